//! Measures other servers on the service's Postgres: a second instance of Passbook, without and with tokens, and the peer.
//!
//! The peer has the same paths and bodies, so the same wrk scripts load it. The measured service is idle meanwhile.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::baseline::Baseline;
use crate::client::Passbook;
use crate::harness::{Harness, Workload, workload};
use crate::process::{Server, built_binary, free_address};
use crate::result_row::{ResultRow, Target};
use crate::seed::{self, ACCOUNTS};
use crate::service::Service;

pub const PEER_BINARY: &str = "bench/peers/cqrs-es/target/release/cqrs-es-peer";

const PEER_DATABASE: &str = "peer";
const PEER_WORKLOADS: [Workload; 4] = [
    workload("cqrs-es: deposits, 5 000 accounts", "deposits.lua", 1, Baseline::AppendBy1),
    workload("cqrs-es: deposits, 5 000 accounts", "deposits.lua", 32, Baseline::AppendBy64),
    workload("cqrs-es: deposits, 5 000 accounts", "deposits.lua", 128, Baseline::AppendBy64),
    workload("cqrs-es: deposits, all to one account", "deposits_to_one.lua", 128, Baseline::AppendBy64),
];

/// The number of tokens that the requests use in turn, each of another teller.
const TELLERS: u32 = 32;
const TOKEN_LIFETIME_S: &str = "86400";
const SCOPE: &str = "accounts:write:any";

const WITHOUT_TOKENS: Workload = workload("deposits, second instance", "deposits.lua", 128, Baseline::AppendBy64);
const WITH_TOKENS: Workload =
    workload("deposits, second instance, with tokens", "deposits_with_token.lua", 128, Baseline::AppendBy64);

/// Measures a second instance without and with tokens.
///
/// Only these two rows are comparable: the projectors of two instances cost more than the projector of one.
pub async fn measure_with_tokens(harness: &Harness, service: &Service) -> Result<Vec<ResultRow>> {
    let mut tokens = String::new();
    for teller in 1..=TELLERS {
        let mut command = service.command("token");
        command.args([
            "--sub",
            &format!("teller-{teller}"),
            "--scope",
            SCOPE,
            "--expires-in-seconds",
            TOKEN_LIFETIME_S,
        ]);
        let output = command.output().await.context("cannot start `passbook token`")?;
        ensure!(output.status.success(), "`passbook token` failed: {}", String::from_utf8_lossy(&output.stderr));
        tokens.push_str(std::str::from_utf8(&output.stdout)?);
    }
    harness.wrk.add_file("tokens", &tokens)?;
    let keys = service.folder.join("data").join("development.jwks.json").display().to_string();
    let mut rows = Vec::new();
    let runs = [(&WITHOUT_TOKENS, vec![]), (&WITH_TOKENS, vec![("PASSBOOK_AUTH_JWKS_FILE", keys)])];
    for (workload, settings) in runs {
        let mut second = service.start_instance(&harness.postgres, "second", &settings).await?;
        let row = harness.measure_other(workload, ACCOUNTS, Target::Passbook, &mut second, service).await;
        let stopped = second.stop().await;
        rows.push(row?);
        stopped?;
    }
    Ok(rows)
}

/// Measures the peer. Returns no rows if its binary does not exist.
pub async fn measure_peer(binary: &Path, harness: &Harness, service: &Service) -> Result<Vec<ResultRow>> {
    if !binary.exists() {
        eprintln!("skipping the peer: {} does not exist", binary.display());
        return Ok(Vec::new());
    }
    harness.postgres.create(PEER_DATABASE).await?;
    let mut command = Command::new(built_binary(binary)?);
    command.env("PEER_DATABASE_URL", harness.postgres.url(PEER_DATABASE)).env("PEER_LISTEN", free_address()?);
    command.current_dir(&service.folder);
    let mut peer = Server::start(&mut command, service.folder.join("peer.log")).await?;
    let rows = peer_rows(&mut peer, harness, service).await;
    let stopped = peer.stop().await;
    let rows = rows?;
    stopped?;
    Ok(rows)
}

async fn peer_rows(peer: &mut Server, harness: &Harness, service: &Service) -> Result<Vec<ResultRow>> {
    eprintln!("opening {ACCOUNTS} accounts of the peer");
    seed::open_accounts_singly(&Passbook::new(&peer.url)?, 1..=ACCOUNTS).await?;
    let mut rows = Vec::new();
    for workload in &PEER_WORKLOADS {
        rows.push(harness.measure_other(workload, ACCOUNTS, Target::Peer, peer, service).await?);
    }
    Ok(rows)
}
