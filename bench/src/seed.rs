//! Opens the accounts of a measurement.
//!
//! Account ids are computed from numbers, so that the wrk scripts and pgbench address the same accounts without a list.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::client::{Passbook, run_concurrently};
use crate::each_batches;

/// The number of accounts that the load is spread over. The scripts contain the same number.
pub const ACCOUNTS: u32 = 5_000;

/// The balance of a newly opened account, in minor units.
pub const OPENING_BALANCE: u64 = 1_000_000_000;

const CONCURRENT_OPENINGS_MAX: usize = 64;

/// Opens the accounts with these numbers, in batches.
pub async fn open_accounts(passbook: &Passbook, numbers: RangeInclusive<u32>) -> Result<()> {
    let openings = numbers.map(|n| opening(&account_id(n), "EUR", OPENING_BALANCE));
    // A batch that is repeated after a lost response finds its accounts open.
    each_batches::execute(passbook, openings, Some("account_exists")).await
}

/// Opens the accounts with these numbers by single requests, which the peer has as well.
pub async fn open_accounts_singly(passbook: &Passbook, numbers: RangeInclusive<u32>) -> Result<()> {
    let jobs = numbers.map(|n| {
        let passbook = passbook.clone();
        async move {
            let id = account_id(n);
            let body = json!({"account_id": id, "currency": "EUR", "initial_deposit": OPENING_BALANCE});
            let response = passbook.command("/v1/accounts", &format!("open-{id}"), &body).await?;
            ensure!(response.status.is_success(), "cannot open account {id}: {}", response.problem());
            Ok(())
        }
    });
    run_concurrently(CONCURRENT_OPENINGS_MAX, jobs, |()| Ok(())).await
}

/// The command that opens an account, as an item of a batch.
pub fn opening(id: &str, currency: &str, initial_deposit: u64) -> String {
    json!({"command": "open", "account_id": id, "currency": currency, "initial_deposit": initial_deposit}).to_string()
}

/// The id of the n-th account. The scripts compute the same ids.
pub fn account_id(n: u32) -> String {
    format!("be7c0000-0000-4000-8000-{n:012x}")
}

#[cfg(test)]
mod tests {
    use super::{ACCOUNTS, account_id};
    use crate::baseline::{APPEND, SELECT, TABLES};
    use crate::wrk::SCRIPTS;

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
