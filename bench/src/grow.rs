//! `bench grow`: what a log of ten million events and a million accounts changes. The same figures are
//! taken on a small log and on a large one of the same service, beside the same yardstick.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use crate::accounts::{self, ACCOUNTS};
use crate::fill::fill;
use crate::growth::{Growth, Phase};
use crate::machine::Machine;
use crate::process;
use crate::projections::{catch_up, rebuild};
use crate::publish::publish;
use crate::rig::{Plan, Rig, Tools, plan};
use crate::row::{Row, compare};
use crate::run::starts;
use crate::service::{Service, with_fresh};
use crate::tools;
use crate::yardstick::Yardstick;

/// Measure what a large log and many accounts change.
///
/// Measures a fresh Passbook with 5 000 accounts; opens very many accounts and measures deposits
/// spread over all of them; fills the log, a tenth of it with one account's events; and measures
/// again. Everything goes through the API. Takes half an hour with the numbers given, and 10 GB of disk.
/// Ends with exit code 1 if any answer was no success.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// How long each row is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How many accounts there are in the end
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(i64::from(ACCOUNTS)..))]
    accounts: u32,
    /// How many events the large log has
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// How many of them one account gets
    #[arg(long, default_value_t = 1_000_000)]
    hot_events: u64,
    /// Where benchmarks.md (between its markers) and benchmarks-grow.json are written
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// On which disk: the parent of the temporary data folder, to be reached by the Postgres user
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

const CONNECTIONS: u32 = 128;
const DEPOSITS: Plan = plan("deposits, 5 000 accounts", "deposits.lua", CONNECTIONS, Yardstick::AppendBy64);
const WITH_KEYS: Plan = plan("deposits, each with a key", "deposits_with_key.lua", CONNECTIONS, Yardstick::AppendBy64);
const TO_ONE: Plan = plan("deposits, all to one account", "deposits_to_one.lua", CONNECTIONS, Yardstick::AppendBy64);
const SPREAD: Plan = plan("deposits, all accounts", "deposits_spread.lua", CONNECTIONS, Yardstick::AppendBy64);
const READS: Plan = plan("GET one of 5 000 accounts", "reads.lua", 32, Yardstick::SelectBy32);

/// What `passbook verify --json` says.
#[derive(Deserialize)]
struct Verified {
    position: u64,
    seconds: f64,
}

pub async fn grow(options: Options) -> Result<ExitCode> {
    let tools = Tools::find().await?;
    let load_average = Machine::load_average().await;
    let growth = with_fresh(&options.passbook, &options.folder, &[], async |service| {
        measure(service, tools, &options, load_average).await
    })
    .await?;
    publish(&options.docs, "bench grow", &growth.markdown(), "benchmarks-grow.json", &growth)?;
    Ok(if growth.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(service: &mut Service, tools: Tools, options: &Options, load_average: String) -> Result<Growth> {
    let rig = Rig::new(tools, service, options.seconds).await?;
    let machine = Machine::describe(load_average, &rig.postgres, &service.folder).await?;
    eprintln!("opening {ACCOUNTS} accounts");
    accounts::open(&rig.passbook, 1..=ACCOUNTS).await?;
    let small = phase(&rig, service, ACCOUNTS).await?;

    eprintln!("opening {} accounts", options.accounts);
    accounts::open(&rig.passbook, ACCOUNTS + 1..=options.accounts).await?;
    catch_up(&rig.passbook).await?;
    let many_accounts = rows(&rig, &[SPREAD], options.accounts, service).await?;
    let memory = process::memory(service.server.pid);

    let head = rig.passbook.head().await?;
    let hot_until = options.events.min(head + options.hot_events);
    fill(&rig, service, TO_ONE.script, options.accounts, hot_until).await?;
    fill(&rig, service, SPREAD.script, options.accounts, options.events).await?;
    let large = phase(&rig, service, options.accounts).await?;
    let growth = Growth { machine, seconds_per_row: options.seconds, small, many_accounts, memory, large };
    if growth.failed() {
        service.server.show_log();
    }
    Ok(growth)
}

async fn phase(rig: &Rig, service: &mut Service, accounts: u32) -> Result<Phase> {
    catch_up(&rig.passbook).await?;
    let events = rig.passbook.head().await?;
    let plans = [DEPOSITS, WITH_KEYS, TO_ONE, SPREAD, READS];
    let rows = rows(rig, &plans, accounts, service).await?;
    eprintln!("rebuilding the views");
    let catch_up = rebuild(&rig.passbook, &rig.postgres).await?;
    let verified_per_second = verify(service).await?;
    Ok(Phase { events, accounts, rows, catch_up, verified_per_second, starts_ms: starts(service).await? })
}

/// The rows between two passes of the yardsticks that they need.
async fn rows(rig: &Rig, plans: &[Plan], accounts: u32, service: &mut Service) -> Result<Vec<Row>> {
    let mut yardsticks: Vec<Yardstick> = plans.iter().map(|plan| plan.yardstick).collect();
    yardsticks.dedup();
    let mut rows = Vec::new();
    for yardstick in &yardsticks {
        rows.push(rig.yardstick(*yardstick, service).await?);
    }
    for plan in plans {
        rows.push(rig.row(plan, accounts, service).await?);
    }
    for yardstick in &yardsticks {
        rows.push(rig.yardstick(*yardstick, service).await?);
    }
    compare(&mut rows);
    Ok(rows)
}

/// Checks the books while the service runs; in events a second.
async fn verify(service: &Service) -> Result<f64> {
    eprintln!("checking the books");
    let said = tools::output(service.command("verify").arg("--json")).await?;
    let Verified { position, seconds } = serde_json::from_str(&said).context("verify says nothing that can be read")?;
    Ok(position as f64 / seconds)
}
