//! Rows with holds: pairs of a placement and a capture beside deposits, and deposits to accounts with and without 200 active holds.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::baseline::Baseline;
use crate::client::{Passbook, run_concurrently};
use crate::harness::{Harness, Workload, workload};
use crate::projections::catch_up;
use crate::result_row::ResultRow;
use crate::seed::{ACCOUNTS, account_id};
use crate::service::Service;

/// The number of accounts that get holds.
const HELD_ACCOUNTS: u32 = 100;
/// The most active holds that an account may have.
const HOLDS: u32 = 200;
const CONCURRENT_PLACEMENTS_MAX: usize = 64;

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
    eprintln!("placing {HOLDS} holds on each of {HELD_ACCOUNTS} accounts");
    place_holds(&harness.passbook).await?;
    catch_up(&harness.passbook).await?;
    let with_holds = harness.measure_passbook(&WITH_HOLDS, HELD_ACCOUNTS, service).await?;
    Ok(vec![deposits, pairs, without_holds, with_holds])
}

/// Fills the accounts with holds; some may have a few that the captures left.
async fn place_holds(passbook: &Passbook) -> Result<()> {
    let placements = (1..=HOLDS).flat_map(|number| (1..=HELD_ACCOUNTS).map(move |account| (account, number)));
    let jobs = placements.map(|(account, number)| {
        let passbook = passbook.clone();
        async move {
            let id = account_id(account);
            let body = json!({"amount": 1, "expires_in_seconds": 31_536_000});
            let response =
                passbook.command(&format!("/v1/accounts/{id}/holds"), &format!("hold-{id}-{number}"), &body).await?;
            let is_full = response.status.as_u16() == 422;
            ensure!(response.status.is_success() || is_full, "cannot place a hold: {}", response.problem());
            Ok(())
        }
    });
    run_concurrently(CONCURRENT_PLACEMENTS_MAX, jobs, |()| Ok(())).await
}
