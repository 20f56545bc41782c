//! The accounts that the load is spread over: their ids can be computed, here and in the scripts.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::client::{Passbook, side_by_side};

/// How many accounts the load is spread over; the scripts have the same number.
pub const ACCOUNTS: u32 = 5_000;

const OPENED_AT_ONCE: usize = 64;
const OPENING_BALANCE: u64 = 1_000_000_000;

pub async fn open(passbook: &Passbook, numbers: RangeInclusive<u32>) -> Result<()> {
    let jobs = numbers.map(|n| {
        let passbook = passbook.clone();
        async move {
            let id = account_id(n);
            let body = json!({
                "account_id": id,
                "currency": "EUR",
                "initial_deposit": OPENING_BALANCE,
            });
            let answer = passbook.command("/v1/accounts", &format!("open-{id}"), &body).await?;
            ensure!(answer.status.is_success(), "cannot open account {id}: {}", answer.refusal());
            Ok(())
        }
    });
    side_by_side(OPENED_AT_ONCE, jobs, |()| Ok(())).await
}

/// The id of the n-th account, the same in the scripts.
pub fn account_id(n: u32) -> String {
    format!("be7c0000-0000-4000-8000-{n:012x}")
}
