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

const WITHOUT: Plan = plan("deposits, second instance", "deposits.lua", 128, Yardstick::AppendBy64);
const WITH: Plan =
    plan("deposits, second instance, with tokens", "deposits_with_token.lua", 128, Yardstick::AppendBy64);

/// Without tokens and with them, each on a second instance: two projectors on one log cost more than one, with or without.
pub async fn measure(rig: &Rig, service: &Service) -> Result<Vec<Row>> {
    let mut tokens = String::new();
    for teller in 1..=TELLERS {
        let mut command = service.command("token");
        command.args(["--sub", &format!("teller-{teller}"), "--scope", SCOPE, "--lasts-s", LASTS_S]);
        let made = command.output().await.context("cannot make a token")?;
        ensure!(made.status.success(), "no token was made: {}", String::from_utf8_lossy(&made.stderr));
        tokens.push_str(std::str::from_utf8(&made.stdout)?);
    }
    rig.wrk.keep("tokens", &tokens)?;
    let keys = service.folder.join("data").join("development.jwks.json").display().to_string();
    let mut rows = Vec::new();
    for (plan, settings) in [(&WITHOUT, vec![]), (&WITH, vec![("PASSBOOK_AUTH_JWKS_FILE", keys)])] {
        let mut second = service.another(&rig.postgres, "second", &settings).await?;
        let row = rig.row_of_another(plan, ACCOUNTS, &mut second, service).await;
        let stopped = second.stop().await;
        rows.push(row?);
        stopped?;
    }
    Ok(rows)
}
