//! Rows with holds: pairs of a placement and a capture beside deposits, and deposits to accounts with and without 200 active holds.

use anyhow::Result;
use serde_json::json;

use crate::baseline::Baseline;
use crate::client::Passbook;
use crate::each_batches;
use crate::harness::{Harness, Workload, workload};
use crate::projections::catch_up;
use crate::result_row::ResultRow;
use crate::seed::{ACCOUNTS, account_id};
use crate::service::Service;

/// The number of accounts that get holds.
const HELD_ACCOUNTS: u32 = 100;
/// The most active holds that an account may have.
const HOLDS: u32 = 200;
const SHORT_HOLDS: u32 = 2;

/// wrk reads the responses of this row and of the next one, which takes it longer than to skip them.
const READ_DEPOSITS: Workload =
    workload("deposits, 5 000 accounts, responses read", "deposits_read.lua", 128, Baseline::AppendBy64);
const PAIRS: Workload = workload("place and capture, 5 000 accounts", "holds.lua", 128, Baseline::AppendBy64);
const WITHOUT_HOLDS: Workload = workload("deposits, 100 accounts", "deposits_spread.lua", 128, Baseline::AppendBy64);
const WITH_HOLDS: Workload =
    workload("deposits, 100 accounts with 200 holds each", "deposits_spread.lua", 128, Baseline::AppendBy64);

/// Measures the rows. The holds of the last one stay active.
pub async fn measure(harness: &Harness, service: &mut Service) -> Result<Vec<ResultRow>> {
    let deposits = harness.measure_passbook(&READ_DEPOSITS, ACCOUNTS, service).await?;
    let pairs = harness.measure_passbook(&PAIRS, ACCOUNTS, service).await?;
    let without_holds = harness.measure_passbook(&WITHOUT_HOLDS, HELD_ACCOUNTS, service).await?;
    let holds = harness.length.choose(HOLDS, SHORT_HOLDS);
    eprintln!("placing {holds} holds on each of {HELD_ACCOUNTS} accounts");
    place_holds(&harness.passbook, holds).await?;
    catch_up(&harness.passbook).await?;
    let with_holds = harness.measure_passbook(&WITH_HOLDS, HELD_ACCOUNTS, service).await?;
    Ok(vec![deposits, pairs, without_holds, with_holds])
}

/// Places holds on each account. Some accounts have a few holds already, which the captures left, and then refuse the last ones.
async fn place_holds(passbook: &Passbook, holds: u32) -> Result<()> {
    let placements = (0..holds).flat_map(|_| 1..=HELD_ACCOUNTS).map(|account| {
        json!({
            "command": "place_hold",
            "account_id": account_id(account),
            "amount": 1,
            "expires_in_seconds": 31_536_000,
        })
        .to_string()
    });
    each_batches::execute(passbook, placements, Some("too_many_holds")).await
}
