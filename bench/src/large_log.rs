//! `bench grow`: measures the same figures on a small and on a large log of one service.
//!
//! Each row is compared with a baseline on the same Postgres, to separate changes of the service from changes of the machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::fill::{Spread, fill};
use crate::harness::{Harness, Tools};
use crate::large_log_phase::{PhaseResults, SPREAD, measure_phase, measure_rows};
use crate::large_log_report::{LargeLogReport, ManyAccounts};
use crate::machine::Machine;
use crate::projections::catch_up;
use crate::publish::publish;
use crate::queries;
use crate::resource_usage::memory;
use crate::row_length::RowLength;
use crate::seed::{self, ACCOUNTS};
use crate::service::{Service, with_fresh_service};
use crate::table::grouped;

/// Measure how a large log and many accounts change the figures.
///
/// Measures a fresh Passbook with 5 000 accounts and a short log. Opens the other accounts and measures deposits spread over
/// all of them. Fills the log, a tenth of it with events of one account, and measures again: commands, queries, a rebuild of
/// each view, a verification, starts, sizes and memory. All data is written through the API, in batches, and is the same in
/// every run but for the rows. The defaults take one to two hours and 25 GB of disk. The exit code is 1 if any response was an
/// error.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    #[command(flatten)]
    length: RowLength,
    /// Number of accounts of the large log
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(i64::from(ACCOUNTS)..=100_000_000))]
    accounts: u32,
    /// Number of events of the large log
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Number of events of the large log that belong to one account
    #[arg(long, default_value_t = 1_000_000)]
    hot_events: u64,
    /// Fill the large log with deposits to its accounts in turn; random accounts take several times as long
    #[arg(long)]
    in_turn: bool,
    /// Folder for benchmarks.md (the text between its markers) and benchmarks-grow.json
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Parent of the temporary data folder; it selects the disk, and the Postgres user must be able to enter it
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

/// The number of accounts and events of the large log.
struct LogSize {
    accounts: u32,
    events: u64,
    hot_events: u64,
    in_turn: bool,
}

/// The large log of the short form.
const SHORT: LogSize = LogSize { accounts: ACCOUNTS + 1_000, events: 12_000, hot_events: 1_000, in_turn: false };
/// The small log has this part of the large log's events, within these limits.
const PART_OF_LARGE: u64 = 20;
const SMALL_EVENTS_MIN: u64 = 1_000;
const SMALL_EVENTS_MAX: u64 = 100_000;

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
    let Options { length, accounts, events, hot_events, in_turn, .. } = *options;
    let size = length.choose(LogSize { accounts, events, hot_events, in_turn }, SHORT);
    let harness = Harness::new(tools, service, length).await?;
    let machine = Machine::describe(load_average, &harness.postgres, &service.folder).await?;
    let small = small_log(&harness, service, &size).await?;

    open_accounts(&harness, ACCOUNTS + 1, size.accounts).await?;
    let rows = measure_rows(&harness, &[SPREAD], size.accounts, service).await?;
    let many_accounts = ManyAccounts { rows, memory: memory(service.server.pid) };

    let large = large_log(&harness, service, &size).await?;
    let report = LargeLogReport::new(machine, length.seconds(), small, many_accounts, large);
    if report.failed() {
        service.server.show_log();
    }
    Ok(report)
}

async fn small_log(harness: &Harness, service: &mut Service, size: &LogSize) -> Result<PhaseResults> {
    queries::open_rare_accounts(&harness.passbook).await?;
    open_accounts(harness, 1, ACCOUNTS).await?;
    let events = (size.events / PART_OF_LARGE).clamp(SMALL_EVENTS_MIN, SMALL_EVENTS_MAX);
    let head = harness.passbook.head().await?;
    let hot = fill(harness, service, Spread::One, head + events / 10).await?;
    let spread = fill(harness, service, Spread::Over(ACCOUNTS), head + events).await?;
    measure_phase(harness, service, ACCOUNTS, hot.into_iter().chain(spread).collect()).await
}

async fn large_log(harness: &Harness, service: &mut Service, size: &LogSize) -> Result<PhaseResults> {
    let head = harness.passbook.head().await?;
    let hot = fill(harness, service, Spread::One, size.events.min(head + size.hot_events)).await?;
    let spread = if size.in_turn { Spread::InTurn(size.accounts) } else { Spread::Over(size.accounts) };
    let spread = fill(harness, service, spread, size.events).await?;
    measure_phase(harness, service, size.accounts, hot.into_iter().chain(spread).collect()).await
}

async fn open_accounts(harness: &Harness, from: u32, to: u32) -> Result<()> {
    eprintln!("opening {} accounts", grouped((to + 1 - from).into()));
    seed::open_accounts(&harness.passbook, from..=to).await?;
    catch_up(&harness.passbook).await.map(drop)
}
