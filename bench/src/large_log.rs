//! `bench grow`: measures the same figures on a small and on a large log of one service.
//!
//! Each row is compared with a baseline on the same Postgres, to separate changes of the service from changes of the machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use crate::baseline::Baseline;
use crate::fill::{Spread, fill};
use crate::harness::{Harness, Tools, Workload, measure_starts, workload};
use crate::large_log_report::{LargeLogReport, PhaseResults};
use crate::machine::Machine;
use crate::process;
use crate::projections::catch_up;
use crate::publish::publish;
use crate::rebuild;
use crate::resource_usage;
use crate::result_row::{ResultRow, set_ratios};
use crate::row_length::RowLength;
use crate::seed::{self, ACCOUNTS};
use crate::service::{Service, with_fresh_service};

/// Measure how a large log and many accounts change the figures.
///
/// Measures a fresh Passbook with 5 000 accounts. Opens the other accounts and measures deposits spread over all of them. Fills
/// the log, a tenth of it with events of one account, and measures again. All data is written through the API. The defaults take
/// half an hour and 10 GB of disk. The exit code is 1 if any response was an error.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    #[command(flatten)]
    length: RowLength,
    /// Number of accounts of the large log
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(i64::from(ACCOUNTS)..))]
    accounts: u32,
    /// Number of events of the large log
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Number of events of the large log that belong to one account
    #[arg(long, default_value_t = 1_000_000)]
    hot_events: u64,
    /// Folder for benchmarks.md (the text between its markers) and benchmarks-grow.json
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Parent of the temporary data folder; it selects the disk, and the Postgres user must be able to enter it
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

const CONNECTIONS: u32 = 128;
const DEPOSITS: Workload = workload("deposits, 5 000 accounts", "deposits.lua", CONNECTIONS, Baseline::AppendBy64);
const WITH_KEYS: Workload =
    workload("deposits, each with a key", "deposits_with_key.lua", CONNECTIONS, Baseline::AppendBy64);
const TO_ONE: Workload =
    workload("deposits, all to one account", "deposits_to_one.lua", CONNECTIONS, Baseline::AppendBy64);
const SPREAD: Workload = workload("deposits, all accounts", "deposits_spread.lua", CONNECTIONS, Baseline::AppendBy64);
const READS: Workload = workload("GET one of 5 000 accounts", "reads.lua", 32, Baseline::SelectBy32);

/// The output of `passbook verify --json`.
#[derive(Deserialize)]
struct Verification {
    position: String,
    seconds: f64,
}

pub async fn grow(options: Options) -> Result<ExitCode> {
    let tools = Tools::find().await?;
    let load_average = Machine::load_average().await;
    let report = with_fresh_service(&options.passbook, &options.folder, &[], async |service| {
        measure(service, tools, &options, load_average).await
    })
    .await?;
    publish(&options.docs, "bench grow", &report.markdown(), "benchmarks-grow.json", &report)?;
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(
    service: &mut Service,
    tools: Tools,
    options: &Options,
    load_average: String,
) -> Result<LargeLogReport> {
    let harness = Harness::new(tools, service, options.length).await?;
    let machine = Machine::describe(load_average, &harness.postgres, &service.folder).await?;
    eprintln!("opening {ACCOUNTS} accounts");
    seed::open_accounts(&harness.passbook, 1..=ACCOUNTS).await?;
    let small = measure_phase(&harness, service, ACCOUNTS).await?;

    eprintln!("opening {} accounts", options.accounts);
    seed::open_accounts(&harness.passbook, ACCOUNTS + 1..=options.accounts).await?;
    catch_up(&harness.passbook).await?;
    let many_accounts = measure_rows(&harness, &[SPREAD], options.accounts, service).await?;
    let memory = resource_usage::memory(service.server.pid);

    let head = harness.passbook.head().await?;
    let hot_until = options.events.min(head + options.hot_events);
    fill(&harness, service, Spread::One, hot_until).await?;
    fill(&harness, service, Spread::Over(options.accounts), options.events).await?;
    let large = measure_phase(&harness, service, options.accounts).await?;
    let report =
        LargeLogReport { machine, seconds_per_row: options.length.seconds(), small, many_accounts, memory, large };
    if report.failed() {
        service.server.show_log();
    }
    Ok(report)
}

/// Measures all figures on the log in its current size.
async fn measure_phase(harness: &Harness, service: &mut Service, accounts: u32) -> Result<PhaseResults> {
    catch_up(&harness.passbook).await?;
    let events = harness.passbook.head().await?;
    let workloads = [DEPOSITS, WITH_KEYS, TO_ONE, SPREAD, READS];
    let rows = measure_rows(harness, &workloads, accounts, service).await?;
    let rebuilds = rebuild::measure_each_and_all(&harness.passbook, service).await?;
    let verified_per_second = verify(service).await?;
    Ok(PhaseResults {
        events,
        accounts,
        rows,
        rebuilds,
        verified_per_second,
        starts_ms: measure_starts(service, harness.length).await?,
    })
}

/// Measures rows between two runs of their baselines.
async fn measure_rows(
    harness: &Harness,
    workloads: &[Workload],
    accounts: u32,
    service: &mut Service,
) -> Result<Vec<ResultRow>> {
    let mut baselines: Vec<Baseline> = workloads.iter().map(|workload| workload.baseline).collect();
    baselines.dedup();
    let mut rows = Vec::new();
    for baseline in &baselines {
        rows.push(harness.measure_baseline(*baseline, service).await?);
    }
    for workload in workloads {
        rows.push(harness.measure_passbook(workload, accounts, service).await?);
    }
    for baseline in &baselines {
        rows.push(harness.measure_baseline(*baseline, service).await?);
    }
    set_ratios(&mut rows);
    Ok(rows)
}

/// Runs `passbook verify` while the service runs. Returns events per second.
async fn verify(service: &Service) -> Result<f64> {
    eprintln!("verifying the log");
    let output = process::run(service.command("verify").arg("--json")).await?;
    let Verification { position, seconds } =
        serde_json::from_str(&output).context("cannot parse the output of `passbook verify --json`")?;
    let events: f64 = position.parse().context("a position is a number")?;
    Ok(events / seconds)
}
