//! Prepares the data of a measurement: opens the accounts, and fills the log through the API.
//!
//! Account ids are computed from numbers, so that the wrk scripts and pgbench address the same accounts without a list.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::client::{Passbook, run_concurrently};
use crate::harness::Harness;
use crate::projections::catch_up;
use crate::service::Service;
use crate::table::grouped;

/// The number of accounts that the load is spread over. The scripts contain the same number.
pub const ACCOUNTS: u32 = 5_000;

/// The balance of a newly opened account, in minor units.
pub const OPENING_BALANCE: u64 = 1_000_000_000;

const CONCURRENT_OPENINGS_MAX: usize = 64;
const FILL_CONNECTIONS: u32 = 256;
/// The longest load between two looks at the log's head.
const FILL_SECONDS_MAX: u32 = 20;

/// Opens the accounts with these numbers.
pub async fn open_accounts(passbook: &Passbook, numbers: RangeInclusive<u32>) -> Result<()> {
    let jobs = numbers.map(|n| {
        let passbook = passbook.clone();
        async move {
            let id = account_id(n);
            let body = json!({
                "account_id": id,
                "currency": "EUR",
                "initial_deposit": OPENING_BALANCE,
            });
            let response = passbook.command("/v1/accounts", &format!("open-{id}"), &body).await?;
            ensure!(response.status.is_success(), "cannot open account {id}: {}", response.problem());
            Ok(())
        }
    });
    run_concurrently(CONCURRENT_OPENINGS_MAX, jobs, |()| Ok(())).await
}

/// The id of the n-th account. The scripts compute the same ids.
pub fn account_id(n: u32) -> String {
    format!("be7c0000-0000-4000-8000-{n:012x}")
}

/// Runs a wrk script against the service until the log's head is at or somewhat beyond position `until`.
pub async fn fill_log(harness: &Harness, service: &mut Service, script: &str, accounts: u32, until: u64) -> Result<()> {
    let mut head = harness.passbook.head().await?;
    let mut seconds = 1;
    while head < until {
        eprintln!("filling the log with {script}: {} of {} events", grouped(head), grouped(until));
        service.server.check_alive()?;
        let load = harness.wrk.run(script, accounts, FILL_CONNECTIONS, seconds, &service.server.url).await?;
        ensure!(load.refused + load.broken == 0, "{} refused, {} broken", load.refused, load.broken);
        ensure!(load.requests > 0, "no response within {seconds} s");
        head = harness.passbook.head().await?;
        seconds = fill_seconds(until.saturating_sub(head), load.per_second);
    }
    // The projections' lag must not affect the next measurement.
    catch_up(&harness.passbook).await?;
    Ok(())
}

/// The duration of the next load, chosen so that it writes about the missing events.
fn fill_seconds(missing: u64, per_second: f64) -> u32 {
    ((missing as f64 / per_second) as u32).clamp(1, FILL_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::{ACCOUNTS, account_id, fill_seconds};
    use crate::baseline::{APPEND, SELECT, TABLES};
    use crate::wrk::SCRIPTS;

    #[test]
    fn a_load_lasts_only_as_long_as_the_missing_events_need() {
        assert_eq!(fill_seconds(5_000, 20_000.0), 1);
        assert_eq!(fill_seconds(100_000, 20_000.0), 5);
        assert_eq!(fill_seconds(10_000_000, 20_000.0), 20);
    }

    #[test]
    fn the_wrk_scripts_address_the_opened_accounts() {
        let common = SCRIPTS[0].1;
        assert!(common.contains(&format!("accounts = {ACCOUNTS}\n")));
        let format = account_id(0).replace("000000000000", "%012x");
        assert!(common.contains(&format!("\"{format}\"")));
    }

    #[test]
    fn the_baseline_is_spread_over_as_many_accounts_as_passbook() {
        let prefix = account_id(0).replace("000000000000", "");
        for script in [APPEND, SELECT] {
            assert!(script.contains(&format!("random(1, {ACCOUNTS})")));
            assert!(script.contains(&format!("'{prefix}'")));
        }
        assert!(TABLES.contains(&format!("generate_series(1, {ACCOUNTS})")));
    }
}
