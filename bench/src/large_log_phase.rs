//! One part of `bench grow`: all figures of the log in its current size.

use anyhow::Result;
use serde::Serialize;

use crate::baseline::Baseline;
use crate::bulk_baseline::BulkRates;
use crate::harness::{Harness, Workload, measure_starts, workload};
use crate::projections::catch_up;
use crate::queries;
use crate::rebuild::{self, Rebuild};
use crate::resource_usage::{Memory, memory, reset_high_water};
use crate::result_row::{ResultRow, Target, set_ratios};
use crate::service::Service;
use crate::sizes::Sizes;
use crate::verification::{self, Verification};

const CONNECTIONS: u32 = 128;
const BULK_EVENTS: u32 = 300_000;
const SHORT_BULK_EVENTS: u32 = 1_000;

/// Deposits over all accounts, more than the service holds in memory on a large log.
pub const SPREAD: Workload =
    workload("deposits, all accounts", "deposits_spread.lua", CONNECTIONS, Baseline::AppendBy64);
const WORKLOADS: [Workload; 6] = [
    workload("deposits, 5 000 accounts", "deposits.lua", CONNECTIONS, Baseline::AppendBy64),
    workload("deposits, each with a key", "deposits_with_key.lua", CONNECTIONS, Baseline::AppendBy64),
    workload("deposits, all to one account", "deposits_to_one.lua", CONNECTIONS, Baseline::AppendBy64),
    SPREAD,
    workload("transfers, 5 000 accounts", "transfers.lua", CONNECTIONS, Baseline::AppendBy64),
    workload("GET one of 5 000 accounts", "reads.lua", 32, Baseline::SelectBy32),
];

/// The figures of the log in one size. The serialized names are those of `docs/benchmarks-grow.json`.
#[derive(Serialize)]
pub struct PhaseResults {
    /// The length of the log before the rows.
    pub events: u64,
    pub accounts: u32,
    /// The fills that made the log so long.
    pub fills: Vec<ResultRow>,
    pub rows: Vec<ResultRow>,
    /// The service's memory after the rows, and its maximum during them.
    pub memory: Option<Memory>,
    pub sizes: Sizes,
    /// Of each projection, then of all at once.
    pub rebuilds: Vec<Rebuild>,
    pub verification: Verification,
    /// The baselines of the rebuilds and the verification.
    pub bulk: BulkRates,
    /// In ascending order.
    pub starts_ms: Vec<f64>,
}

impl PhaseResults {
    pub fn all_rows(&self) -> impl Iterator<Item = &ResultRow> {
        self.fills.iter().chain(&self.rows)
    }

    /// The mean of a value over the runs of a row's baseline; `None` without runs.
    pub fn baseline_mean(&self, row: &ResultRow, value: fn(&ResultRow) -> Option<f64>) -> Option<f64> {
        let is_its_baseline = |other: &&ResultRow| other.target == Target::Baseline && other.baseline == row.baseline;
        let values: Vec<f64> = self.rows.iter().filter(is_its_baseline).filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// Measures all figures on the log in its current size.
pub async fn measure_phase(
    harness: &Harness,
    service: &mut Service,
    accounts: u32,
    fills: Vec<ResultRow>,
) -> Result<PhaseResults> {
    catch_up(&harness.passbook).await?;
    // Every part begins with the same state: the first change of a page writes the whole page to the WAL.
    harness.postgres.execute("CHECKPOINT").await?;
    let events = harness.passbook.head().await?;
    reset_high_water(service.server.pid);
    let rows = measure_rows(harness, &WORKLOADS, accounts, service).await?;
    let memory = memory(service.server.pid);
    let sizes = Sizes::read(&harness.postgres, harness.passbook.head().await?).await?;

    let bulk_events = harness.length.choose(BULK_EVENTS, SHORT_BULK_EVENTS);
    let bulk_before = BulkRates::measure(&harness.pgbench, bulk_events).await?;
    let rebuilds = rebuild::measure_each_and_all(&harness.passbook, service).await?;
    let verification = verification::measure(service).await?;
    let bulk = bulk_before.mean(BulkRates::measure(&harness.pgbench, bulk_events).await?);
    let starts_ms = measure_starts(service, harness.length).await?;
    Ok(PhaseResults { events, accounts, fills, rows, memory, sizes, rebuilds, verification, bulk, starts_ms })
}

/// Measures rows between two runs of their baselines. The queries of one client are part of the rows if `workloads` reads.
pub async fn measure_rows(
    harness: &Harness,
    workloads: &[Workload],
    accounts: u32,
    service: &mut Service,
) -> Result<Vec<ResultRow>> {
    let has_queries = workloads.iter().any(|workload| !workload.baseline.is_append());
    let mut baselines: Vec<Baseline> = workloads.iter().map(|workload| workload.baseline).collect();
    baselines.extend(has_queries.then_some(Baseline::SelectBy1));
    baselines.dedup();
    let mut rows = Vec::new();
    for baseline in &baselines {
        rows.push(harness.measure_baseline(*baseline, service).await?);
    }
    for workload in workloads {
        rows.push(harness.measure_passbook(workload, accounts, service).await?);
    }
    if has_queries {
        rows.extend(queries::measure(harness, service).await?);
    }
    for baseline in &baselines {
        rows.push(harness.measure_baseline(*baseline, service).await?);
    }
    set_ratios(&mut rows);
    Ok(rows)
}
