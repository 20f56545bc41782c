//! `bench relay`: how fast the log gets to NATS, and how long after an event was recorded another service has it.
//!
//! First the relay is started on a log that nobody has published, and the time runs from its first message in the stream to
//! the last. Then transfers, each two events, are sent at a fixed rate while one consumer reads the stream: the time runs
//! from the event's time, which is set before its commit, until the consumer has it; clock and machine are the same.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use chrono::{DateTime, Utc};
use clap::Args;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::accounts::{self, ACCOUNTS};
use crate::feed;
use crate::fill::fill;
use crate::latency::Latencies;
use crate::rig::{Rig, Tools};
use crate::server::{Server, free_address};
use crate::service::{Service, with_fresh};
use crate::table::grouped;
use crate::tools;

const STREAM: &str = "passbook-0";
const START_SECONDS_MAX: u64 = 30;
const LOOK_MS: u64 = 5;
/// Nothing for so long means that everything has come.
const IDLE_SECONDS: u64 = 3;

/// Measure how fast `passbook relay nats` publishes, and how soon a consumer has what was recorded.
///
/// Starts a fresh Passbook and a nats-server, both on the disk below --folder.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// How many events are in the log when the relay is started
    #[arg(long, default_value_t = 300_000)]
    events: u64,
    /// How many events are recorded in a second while a consumer reads; several numbers one after the other
    #[arg(long, value_delimiter = ',', default_value = "200,2000,5000")]
    rates: Vec<u64>,
    /// For how long each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// On which disk: the parent of the temporary data folder, to be reached by the Postgres user
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

/// What of a message is read.
#[derive(Deserialize)]
struct CloudEvent {
    time: DateTime<Utc>,
}

pub async fn relay(options: Options) -> Result<ExitCode> {
    let tools = Tools::find().await?;
    tools::on_path("nats-server").context("nats-server is not there (`scripts/setup --test` installs it)")?;
    with_fresh(&options.passbook, &options.folder, &[], async |service| measure(service, tools, &options).await)
        .await?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(service: &mut Service, tools: Tools, options: &Options) -> Result<()> {
    let rig = Rig::new(tools, service, 1).await?;
    accounts::open(&rig.passbook, 1..=ACCOUNTS).await?;
    fill(&rig, service, "deposits.lua", ACCOUNTS, options.events).await?;
    let (_nats, address) = start_nats(service)?;
    let client = connect(&address).await?;
    let mut relay = start_relay(service, &address).await?;
    let head = rig.passbook.head().await?;
    let caught_up = catch_up(&client, head).await?;
    println!("{} events in {caught_up:.1} s: {:.0} events/s", grouped(head), head as f64 / caught_up);

    println!("| events/s sent | read of all | p50 | p99 | max |\n|--:|--:|--:|--:|--:|");
    let run = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_nanos();
    let between = feed::open_accounts(&rig.passbook, run).await?;
    for (round, rate) in options.rates.iter().enumerate() {
        catch_up(&client, rig.passbook.head().await?).await?;
        let start = rig.passbook.head().await? + 1;
        let reading = tokio::spawn(read(client.clone(), start));
        let started = Instant::now();
        let sent = feed::send(&rig.passbook, *rate, options.seconds, &between, &format!("{run}-{round}")).await?;
        let sent_rate = sent as f64 / started.elapsed().as_secs_f64();
        let seen = reading.await.context("the consumer ended")??;
        let percent = 100.0 * seen.count() as f64 / sent as f64;
        let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| seen.percentile_ms(percent));
        println!("| {sent_rate:.0} | {percent:.1} % | {p50:.1} ms | {p99:.1} ms | {max:.1} ms |");
    }
    relay.check_alive()?;
    relay.stop().await
}

fn start_nats(service: &Service) -> Result<(Child, String)> {
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let mut command = Command::new("nats-server");
    command.args(["--addr", host, "--port", port, "--jetstream", "--store_dir"]).arg(service.folder.join("nats"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok((command.spawn().context("cannot start nats-server")?, address))
}

async fn connect(address: &str) -> Result<async_nats::Client> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        match async_nats::connect(address).await {
            Ok(client) => return Ok(client),
            Err(error) => ensure!(Instant::now() < deadline, "the NATS server cannot be reached: {error}"),
        }
        sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

async fn start_relay(service: &Service, address: &str) -> Result<Server> {
    let mut command = service.command("relay");
    command.arg("nats").env("PASSBOOK_RELAY_NATS_URL", address).env("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0");
    Server::start(&mut command, service.folder.join("relay.log")).await
}

/// In seconds, how long it takes from the first message in the stream until it holds `head`.
async fn catch_up(client: &async_nats::Client, head: u64) -> Result<f64> {
    let jetstream = jetstream::new(client.clone());
    let mut begun = None;
    loop {
        let last = match jetstream.get_stream(STREAM).await {
            Ok(stream) => stream.cached_info().state.last_sequence,
            Err(_) => 0,
        };
        if last > 0 {
            let begun = *begun.get_or_insert_with(Instant::now);
            if last >= head {
                return Ok(begun.elapsed().as_secs_f64());
            }
        }
        sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// Reads the stream from `start` on until nothing comes any more.
async fn read(client: async_nats::Client, start: u64) -> Result<Latencies> {
    let stream = jetstream::new(client).get_stream(STREAM).await.map_err(|error| anyhow!(error))?;
    let from = DeliverPolicy::ByStartSequence { start_sequence: start };
    let consumer = stream.create_consumer(OrderedConfig { deliver_policy: from, ..OrderedConfig::default() });
    let mut messages = consumer.await.map_err(|error| anyhow!(error))?.messages().await?;
    let mut seen = Latencies::new()?;
    let mut patience = Duration::from_secs(START_SECONDS_MAX);
    while let Ok(Some(message)) = timeout(patience, messages.next()).await {
        let event: CloudEvent = serde_json::from_slice(&message?.payload).context("a message that is no CloudEvent")?;
        let delay = Utc::now() - event.time;
        seen.record_us(u64::try_from(delay.num_microseconds().unwrap_or(0)).unwrap_or(0));
        patience = Duration::from_secs(IDLE_SECONDS);
    }
    Ok(seen)
}
