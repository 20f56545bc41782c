//! `bench run`: measures a fresh Passbook with durable settings.
//!
//! The rows are measured between two runs of the baseline on the same Postgres. Constant rates, a rebuild of the views and
//! restarts follow.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::baseline::Baseline;
use crate::batches;
use crate::constant_rate;
use crate::harness::{Harness, Tools, Workload, measure_starts, workload};
use crate::holds;
use crate::machine::Machine;
use crate::other_servers::{self, PEER_BINARY};
use crate::projections::catch_up;
use crate::publish::publish;
use crate::rebuild;
use crate::report::Report;
use crate::result_row::{ResultRow, set_ratios};
use crate::row_length::RowLength;
use crate::seed::{self, ACCOUNTS};
use crate::service::{Service, with_fresh_service};

const WARM_UP_CONNECTIONS: u32 = 32;
const WARM_UP_SECONDS_MAX: u32 = 5;

/// Measure a fresh Passbook on its embedded Postgres, with pgbench and a peer on the same Postgres for comparison.
///
/// Opens 5 000 accounts, warms up, and measures commands, batches and reads with wrk, row by row, and
/// an import. Before and after these rows, pgbench appends one event per transaction to a bare table,
/// and selects by key. It also measures deposits at constant rates with the projections' lag, a
/// rebuild of the views, and restarts on the existing data. It writes tables, a chart and JSON into a
/// folder. A run takes about 32 times --seconds, --long-seconds, and two minutes for the import. The
/// exit code is 1 if any response of Passbook was an error.
/// PASSBOOK_* settings in the environment are forwarded and reported, except settings that select
/// another database or enable authentication or a rate limit.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// The peer to compare with; skipped if the file does not exist
    #[arg(long, default_value = PEER_BINARY)]
    peer: PathBuf,
    #[command(flatten)]
    length: RowLength,
    /// Duration of the long row at half of the maximum, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    long_seconds: u32,
    /// Folder for benchmarks.md (the text between its markers), benchmarks.svg and benchmarks.json
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Parent of the temporary data folder; it selects the disk, and the Postgres user must be able to enter it
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

const WORKLOADS: [Workload; 8] = [
    workload("deposits, 5 000 accounts", "deposits.lua", 1, Baseline::AppendBy1),
    workload("deposits, 5 000 accounts", "deposits.lua", 32, Baseline::AppendBy64),
    workload("deposits, 5 000 accounts", "deposits.lua", 128, Baseline::AppendBy64),
    workload("deposits, 5 000 accounts", "deposits.lua", 256, Baseline::AppendBy64),
    workload("deposits, each with a key", "deposits_with_key.lua", 128, Baseline::AppendBy64),
    workload("deposits, all to one account", "deposits_to_one.lua", 128, Baseline::AppendBy64),
    workload("transfers, 5 000 accounts", "transfers.lua", 128, Baseline::AppendBy64),
    workload("GET one of 5 000 accounts", "reads.lua", 32, Baseline::SelectBy32),
];

/// The workload whose throughput is the maximum for the constant rates: 128 connections.
const MAXIMUM: usize = 2;

pub async fn run(options: Options) -> Result<ExitCode> {
    let tools = Tools::find().await?;
    let load_average = Machine::load_average().await;
    let report = with_fresh_service(&options.passbook, &options.folder, &[], async |service| {
        measure(service, tools, &options, load_average).await
    })
    .await?;
    publish(&options.docs, "bench run", &report.markdown(), "benchmarks.json", &report)?;
    let chart = options.docs.join("benchmarks.svg");
    std::fs::write(&chart, report.chart()).with_context(|| format!("cannot write {}", chart.display()))?;
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(service: &mut Service, tools: Tools, options: &Options, load_average: String) -> Result<Report> {
    let harness = Harness::new(tools, service, options.length).await?;
    let machine = Machine::describe(load_average, &harness.postgres, &service.folder).await?;
    warm_up(&harness, service).await?;

    let mut rows = measure_baselines(&harness, service).await?;
    let mut passbook = Vec::new();
    for workload in &WORKLOADS {
        passbook.push(harness.measure_passbook(workload, ACCOUNTS, service).await?);
    }
    passbook.extend(batches::measure(&harness, service).await?);
    passbook.extend(holds::measure(&harness, service).await?);
    passbook.push(batches::measure_import(&harness, service).await?);
    let max_per_second = passbook[MAXIMUM].load.per_second;
    let long_seconds = options.length.choose(options.long_seconds, 1);
    let constant_rates = constant_rate::measure_all(&harness, service, max_per_second, long_seconds).await?;
    // Behind the constant rates: the service reads its accounts anew after another instance has written much.
    passbook.extend(other_servers::measure_with_tokens(&harness, service).await?);
    rows.append(&mut passbook);
    rows.extend(other_servers::measure_peer(&options.peer, &harness, service).await?);
    rows.extend(measure_baselines(&harness, service).await?);
    set_ratios(&mut rows);

    let rebuild = rebuild::measure_all(&harness.passbook, service).await?;
    let starts_ms = measure_starts(service, options.length).await?;
    let report =
        Report { machine, seconds_per_row: options.length.seconds(), rows, constant_rates, rebuild, starts_ms };
    if report.failed() {
        service.server.show_log();
    }
    Ok(report)
}

async fn warm_up(harness: &Harness, service: &Service) -> Result<()> {
    eprintln!("opening {ACCOUNTS} accounts and warming up");
    seed::open_accounts(&harness.passbook, 1..=ACCOUNTS).await?;
    let seconds = harness.length.seconds().min(WARM_UP_SECONDS_MAX);
    let connections = harness.length.connections(WARM_UP_CONNECTIONS);
    harness.wrk.run(WORKLOADS[0].script, ACCOUNTS, connections, seconds, &service.server.url).await?;
    catch_up(&harness.passbook).await?;
    Ok(())
}

async fn measure_baselines(harness: &Harness, service: &Service) -> Result<Vec<ResultRow>> {
    let mut rows = Vec::new();
    for baseline in [Baseline::AppendBy1, Baseline::AppendBy64, Baseline::SelectBy32] {
        rows.push(harness.measure_baseline(baseline, service).await?);
    }
    Ok(rows)
}
