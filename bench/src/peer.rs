//! A peer on the same Postgres: the same paths and bodies, so that the same scripts load it.

use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

use crate::accounts::{self, ACCOUNTS};
use crate::client::Passbook;
use crate::rig::{Plan, Rig, plan};
use crate::row::Row;
use crate::server::{Server, built, free_address};
use crate::service::Service;
use crate::yardstick::Yardstick;

pub const BINARY: &str = "bench/peers/cqrs-es/target/release/cqrs-es-peer";

const DATABASE: &str = "peer";

const PLANS: [Plan; 4] = [
    plan("cqrs-es: deposits, 5 000 accounts", "deposits.lua", 1, Yardstick::AppendBy1),
    plan("cqrs-es: deposits, 5 000 accounts", "deposits.lua", 32, Yardstick::AppendBy64),
    plan("cqrs-es: deposits, 5 000 accounts", "deposits.lua", 128, Yardstick::AppendBy64),
    plan("cqrs-es: deposits, all to one account", "deposits_to_one.lua", 128, Yardstick::AppendBy64),
];

pub async fn measure(binary: &Path, rig: &Rig, service: &Service) -> Result<Vec<Row>> {
    if !binary.exists() {
        eprintln!("there is no {}: the peer is left out", binary.display());
        return Ok(Vec::new());
    }
    rig.postgres.create(DATABASE).await?;
    let mut command = Command::new(built(binary)?);
    command.env("PEER_DATABASE_URL", rig.postgres.url(DATABASE)).env("PEER_LISTEN", free_address()?);
    command.current_dir(&service.folder);
    let mut peer = Server::start(&mut command, service.folder.join("peer.log")).await?;
    let rows = rows(&mut peer, rig, service).await;
    let stopped = peer.stop().await;
    let rows = rows?;
    stopped?;
    Ok(rows)
}

async fn rows(peer: &mut Server, rig: &Rig, service: &Service) -> Result<Vec<Row>> {
    eprintln!("opening {ACCOUNTS} accounts of the peer");
    accounts::open(&Passbook::new(&peer.url)?, 1..=ACCOUNTS).await?;
    let mut rows = Vec::new();
    for plan in &PLANS {
        rows.push(rig.peer_row(plan, peer, service).await?);
    }
    Ok(rows)
}
