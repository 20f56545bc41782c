//! `bench run`: a fresh Passbook with durable settings, loaded row by row between two passes of the
//! yardstick on the same Postgres; then at constant rates, rebuilt and started again.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::accounts::{self, ACCOUNTS};
use crate::machine::Machine;
use crate::peer;
use crate::projections::{catch_up, rebuild};
use crate::publish::publish;
use crate::report::Report;
use crate::rig::{Plan, Rig, Tools, plan};
use crate::row::{Row, compare};
use crate::service::{Service, with_fresh};
use crate::steady;
use crate::tokens;
use crate::yardstick::Yardstick;

const WARM_UP_CONNECTIONS: u32 = 32;
const WARM_UP_SECONDS_MAX: u32 = 5;
const STARTS: usize = 3;

/// Measure a fresh Passbook on its own embedded Postgres, beside pgbench and a peer on the same server.
///
/// Opens 5 000 accounts, warms up, and measures commands and reads with wrk, row by row; before and
/// after, pgbench appends one event per transaction to a bare table, and selects by key. Then come
/// deposits at constant rates with the projections' lag, a rebuild of the views, and starts on the
/// data that are there. Writes tables, chart and JSON into a folder. Takes about 25 times --seconds.
/// Ends with exit code 1 if any answer of Passbook was no success. PASSBOOK_* settings in the
/// environment are passed on and reported, but for those that name another database, or that would
/// refuse requests.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// The peer to measure beside it; left out where it is not built
    #[arg(long, default_value = peer::BINARY)]
    peer: PathBuf,
    /// How long each row is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Where benchmarks.md (between its markers), benchmarks.svg and benchmarks.json are written
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// On which disk: the parent of the temporary data folder, to be reached by the Postgres user
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

const PLANS: [Plan; 8] = [
    plan("deposits, 5 000 accounts", "deposits.lua", 1, Yardstick::AppendBy1),
    plan("deposits, 5 000 accounts", "deposits.lua", 32, Yardstick::AppendBy64),
    plan("deposits, 5 000 accounts", "deposits.lua", 128, Yardstick::AppendBy64),
    plan("deposits, 5 000 accounts", "deposits.lua", 256, Yardstick::AppendBy64),
    plan("deposits, each with a key", "deposits_with_key.lua", 128, Yardstick::AppendBy64),
    plan("deposits, all to one account", "deposits_to_one.lua", 128, Yardstick::AppendBy64),
    plan("transfers, 5 000 accounts", "transfers.lua", 128, Yardstick::AppendBy64),
    plan("GET one of 5 000 accounts", "reads.lua", 32, Yardstick::SelectBy32),
];

/// The row that the constant rates are a part of.
const MAXIMUM: usize = 2;

pub async fn run(options: Options) -> Result<ExitCode> {
    let tools = Tools::find().await?;
    let load_average = Machine::load_average().await;
    let report = with_fresh(&options.passbook, &options.folder, &[], async |service| {
        measure(service, tools, &options, load_average).await
    })
    .await?;
    publish(&options.docs, "bench run", &report.markdown(), "benchmarks.json", &report)?;
    let chart = options.docs.join("benchmarks.svg");
    std::fs::write(&chart, report.chart()).with_context(|| format!("cannot write {}", chart.display()))?;
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(service: &mut Service, tools: Tools, options: &Options, load_average: String) -> Result<Report> {
    let rig = Rig::new(tools, service, options.seconds).await?;
    let machine = Machine::describe(load_average, &rig.postgres, &service.folder).await?;
    warm_up(&rig, service).await?;

    let mut rows = measure_yardsticks(&rig, service).await?;
    let mut ours = Vec::new();
    for plan in &PLANS {
        ours.push(rig.row(plan, ACCOUNTS, service).await?);
    }
    ours.extend(tokens::measure(&rig, service).await?);
    let steady = steady::measure_all(&rig, service, ours[MAXIMUM].load.per_second).await?;
    rows.append(&mut ours);
    rows.extend(peer::measure(&options.peer, &rig, service).await?);
    rows.extend(measure_yardsticks(&rig, service).await?);
    compare(&mut rows);

    eprintln!("rebuilding the views");
    let catch_up = rebuild(&rig.passbook, &rig.postgres).await?;
    let starts_ms = starts(service).await?;
    let report = Report { machine, seconds_per_row: options.seconds, rows, steady, catch_up, starts_ms };
    if report.failed() {
        service.server.show_log();
    }
    Ok(report)
}

async fn warm_up(rig: &Rig, service: &Service) -> Result<()> {
    eprintln!("opening {ACCOUNTS} accounts and warming up");
    accounts::open(&rig.passbook, 1..=ACCOUNTS).await?;
    let seconds = rig.seconds.min(WARM_UP_SECONDS_MAX);
    rig.wrk.run(PLANS[0].script, ACCOUNTS, WARM_UP_CONNECTIONS, seconds, &service.server.url).await?;
    catch_up(&rig.passbook).await?;
    Ok(())
}

async fn measure_yardsticks(rig: &Rig, service: &Service) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for yardstick in Yardstick::ALL {
        rows.push(rig.yardstick(yardstick, service).await?);
    }
    Ok(rows)
}

/// How long the service takes until it listens again, in milliseconds and in ascending order.
pub async fn starts(service: &mut Service) -> Result<Vec<f64>> {
    eprintln!("starting {STARTS} times on the data that are there");
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(service.restart().await?);
    }
    starts.sort_by(f64::total_cmp);
    Ok(starts)
}
