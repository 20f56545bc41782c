//! The same load with bearer tokens: a second Passbook on the same database, with access control on. The first one waits.

use anyhow::{Context, Result, ensure};

use crate::accounts::ACCOUNTS;
use crate::rig::{Plan, Rig, plan};
use crate::row::Row;
use crate::service::Service;
use crate::yardstick::Yardstick;

/// How many tellers take turns.
const TELLERS: u32 = 32;
const LASTS_S: &str = "86400";
const SCOPE: &str = "accounts:write:any";

const PLAN: Plan = plan("deposits, 5 000 accounts, with tokens", "deposits_with_token.lua", 128, Yardstick::AppendBy64);

pub async fn measure(rig: &Rig, service: &Service) -> Result<Row> {
    let mut tokens = String::new();
    for teller in 1..=TELLERS {
        let mut command = service.command("token");
        command.args(["--sub", &format!("teller-{teller}"), "--scope", SCOPE, "--lasts-s", LASTS_S]);
        let made = command.output().await.context("cannot make a token")?;
        ensure!(made.status.success(), "no token was made: {}", String::from_utf8_lossy(&made.stderr));
        tokens.push_str(std::str::from_utf8(&made.stdout)?);
    }
    rig.wrk.keep("tokens", &tokens)?;
    let mut guarded = service.guarded(&rig.postgres).await?;
    let row = rig.row_of_another(&PLAN, ACCOUNTS, &mut guarded, service).await;
    let stopped = guarded.stop().await;
    let row = row?;
    stopped?;
    Ok(row)
}
