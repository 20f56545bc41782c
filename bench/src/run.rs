//! `bench run`: a fresh Passbook with durable settings, loaded by wrk row by row, between two
//! passes of the yardstick on the same Postgres.
//!
//! Each row starts when the projections have caught up with the one before, and its processor time
//! includes their catching up: work put off is not work saved.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Passbook, side_by_side};
use crate::machine::Machine;
use crate::process;
use crate::report::{CpuPerCommand, Lag, Load, Report, Row};
use crate::service::Service;
use crate::wrk::{self, Wrk};
use crate::yardstick::{self, Postgres, Yardstick};

/// How many accounts the load is spread over; the scripts have the same number.
pub const ACCOUNTS: u32 = 5_000;

const OPENED_AT_ONCE: usize = 64;
const OPENING_BALANCE: u64 = 1_000_000_000;
const WARM_UP_CONNECTIONS: u32 = 32;
const WARM_UP_SECONDS_MAX: u32 = 5;
const CATCH_UP_SECONDS_MAX: u64 = 120;
const CATCH_UP_POLL_MS: u64 = 10;

/// Measure a fresh Passbook on its own embedded Postgres, beside pgbench on the same server.
///
/// Opens 5 000 accounts, warms up, and measures commands and reads with wrk, row by row; before and
/// after, pgbench appends one event per transaction to a bare table, and selects by key. Prints a
/// Markdown table and writes the same as JSON. Takes about 15 times --seconds. Ends with exit code 1
/// if any answer was no success. PASSBOOK_* settings in the environment are passed on and reported,
/// but for those that name another database, or that would refuse requests.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// How long each row is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Where the figures are written as JSON
    #[arg(long, default_value = "bench.json")]
    json: PathBuf,
    /// On which disk: the parent of the temporary data folder, to be reached by the Postgres user
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

struct Plan {
    name: &'static str,
    script: &'static str,
    connections: u32,
    yardstick: Yardstick,
}

const fn plan(name: &'static str, script: &'static str, connections: u32, yardstick: Yardstick) -> Plan {
    Plan { name, script, connections, yardstick }
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

/// The tools that must be there before anything is started.
struct Tools {
    wrk: PathBuf,
    postgres: PathBuf,
}

pub async fn run(options: Options) -> Result<ExitCode> {
    let tools = Tools { wrk: wrk::find()?, postgres: yardstick::find().await? };
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let load_average = Machine::load_average().await;

    let mut service = Service::start(&options.passbook, &options.folder)?;
    let outcome = tokio::select! {
        outcome = measure(&mut service, tools, &options, load_average) => Some(outcome),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    let log_tail = service.log_tail();
    let stopped = service.stop().await;
    let Some(outcome) = outcome else {
        stopped.context("interrupted")?;
        bail!("interrupted; the service is stopped and its folder removed");
    };

    let failed = outcome.as_ref().map_or(true, |report| report.rows.iter().any(Row::failed));
    if failed && !log_tail.is_empty() {
        eprintln!("the last lines of the service's log:\n{log_tail}");
    }
    if let Ok(report) = &outcome {
        print!("{}", report.markdown());
        write_json(report, &options.json)?;
    }
    if let (Err(_), Err(error)) = (&outcome, &stopped) {
        eprintln!("bench: {error:#}");
    }
    outcome.and(stopped)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(service: &mut Service, tools: Tools, options: &Options, load_average: String) -> Result<Report> {
    eprintln!("starting {}", options.passbook.display());
    service.wait_until_listening().await?;
    let passbook = Passbook::new(&service.url)?;
    let wrk = Wrk::new(tools.wrk, service.folder())?;
    let postgres = Postgres::reach(tools.postgres, service.socket_folder(), service.folder()).await?;
    let machine = Machine::describe(load_average, &postgres, service.folder()).await?;

    eprintln!("opening {ACCOUNTS} accounts and warming up");
    open_accounts(&passbook).await?;
    let warm_up = options.seconds.min(WARM_UP_SECONDS_MAX);
    wrk.run(PLANS[0].script, WARM_UP_CONNECTIONS, warm_up, &service.url).await?;
    catch_up(&passbook).await?;

    let mut rows = measure_yardsticks(&postgres, service, options.seconds).await?;
    for plan in &PLANS {
        eprintln!("{}, connections: {}", plan.name, plan.connections);
        rows.push(measure_row(plan, &wrk, &passbook, service, options.seconds).await?);
    }
    rows.extend(measure_yardsticks(&postgres, service, options.seconds).await?);
    Ok(Report::new(machine, options.seconds, rows))
}

async fn measure_row(plan: &Plan, wrk: &Wrk, passbook: &Passbook, service: &mut Service, seconds: u32) -> Result<Row> {
    service.check_alive()?;
    let before = process::cpu_time(service.pid);
    let load = wrk.run(plan.script, plan.connections, seconds, &service.url).await?;
    service.check_alive()?;
    let lag = catch_up(passbook).await?;
    Ok(Row {
        name: plan.name.to_owned(),
        connections: plan.connections,
        is_yardstick: false,
        yardstick: plan.yardstick,
        ratio: None,
        lag: Some(lag),
        cpu: cpu_per_command(before, service.pid, &load),
        memory: process::memory(service.pid),
        load,
    })
}

async fn measure_yardsticks(postgres: &Postgres, service: &Service, seconds: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for yardstick in Yardstick::ALL {
        eprintln!("{}, connections: {}", yardstick.name(), yardstick.clients());
        let before = process::cpu_time(service.pid);
        let load = postgres.measure(yardstick, seconds).await?;
        rows.push(Row {
            name: yardstick.name().to_owned(),
            connections: yardstick.clients(),
            is_yardstick: true,
            yardstick,
            ratio: None,
            lag: None,
            cpu: cpu_per_command(before, service.pid, &load),
            memory: None,
            load,
        });
    }
    Ok(rows)
}

async fn open_accounts(passbook: &Passbook) -> Result<()> {
    let jobs = (1..=ACCOUNTS).map(|n| {
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

/// The lag now, and how long it takes until there is none.
async fn catch_up(passbook: &Passbook) -> Result<Lag> {
    let started = Instant::now();
    let (events, seconds) = lag(passbook).await?;
    let mut behind = events;
    while behind > 0 {
        if started.elapsed() > Duration::from_secs(CATCH_UP_SECONDS_MAX) {
            bail!("a projection is {behind} events behind, {CATCH_UP_SECONDS_MAX} s after the load");
        }
        tokio::time::sleep(Duration::from_millis(CATCH_UP_POLL_MS)).await;
        (behind, _) = lag(passbook).await?;
    }
    let caught_up_after_ms = if events == 0 { 0.0 } else { started.elapsed().as_secs_f64() * 1000.0 };
    Ok(Lag { events, seconds, caught_up_after_ms })
}

/// The greatest lag of any projection, in events and in seconds.
async fn lag(passbook: &Passbook) -> Result<(u64, f64)> {
    let projections = passbook.projections().await?;
    ensure!(!projections.is_empty(), "GET /v1/projections names no projection");
    let events = projections.iter().map(|projection| projection.lag_events).max();
    let seconds = projections.iter().filter_map(|projection| projection.lag_seconds);
    Ok((events.unwrap_or(0), seconds.fold(0.0, f64::max)))
}

fn cpu_per_command(before: Option<process::CpuTime>, pid: u32, load: &Load) -> Option<CpuPerCommand> {
    let (before, after) = (before?, process::cpu_time(pid)?);
    let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / load.requests.max(1) as f64;
    Some(CpuPerCommand {
        passbook_us: each(before.passbook_us, after.passbook_us),
        postgres_us: each(before.postgres_us, after.postgres_us),
    })
}

fn write_json(report: &Report, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
