//! `bench relay`: measures the relay's throughput to NATS, and the delay from an event's time to its arrival at a consumer.
//!
//! First the relay publishes an existing log; the time counts from the first message in the stream to the last. Then
//! transfers of two events each are sent at a fixed rate while a consumer reads the stream. The event's time is set before
//! the commit, by the same machine's clock.

use std::path::{Path, PathBuf};
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

use crate::feed;
use crate::fill::{Spread, fill};
use crate::harness::{Harness, Tools};
use crate::latency::Latencies;
use crate::process::{self, Server, free_address};
use crate::row_length::RowLength;
use crate::seed::{self, ACCOUNTS};
use crate::service::{Service, with_fresh_service};
use crate::table::grouped;

const STREAM: &str = "passbook-0";
const START_SECONDS_MAX: u64 = 30;
const POLL_MS: u64 = 5;
/// The consumer stops when it receives nothing for this time.
const IDLE_SECONDS: u64 = 3;

/// Measure how fast `passbook relay nats` publishes, and the delay until a consumer receives an event.
///
/// Starts a fresh Passbook and a nats-server with their data below --folder.
#[derive(Args)]
pub struct Options {
    /// The service to measure; build it with --release
    #[arg(long, default_value = "target/release/passbook")]
    passbook: PathBuf,
    /// Events in the log when the relay starts
    #[arg(long, default_value_t = 300_000)]
    events: u64,
    /// Events recorded per second while a consumer reads; several numbers are measured one after another
    #[arg(long, value_delimiter = ',', default_value = "200,2000,5000")]
    rates: Vec<u64>,
    /// Duration of each rate, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Parent of the temporary data folder; it selects the disk, and the Postgres user must be able to enter it
    #[arg(long, default_value = "/tmp")]
    folder: PathBuf,
}

/// The part of a message that the benchmark reads.
#[derive(Deserialize)]
struct CloudEvent {
    time: DateTime<Utc>,
}

pub async fn relay(options: Options) -> Result<ExitCode> {
    let tools = Tools::find().await?;
    let nats = process::find_tool("nats-server")?;
    with_fresh_service(&options.passbook, &options.folder, &[], async |service| {
        measure(service, tools, &nats, &options).await
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(service: &mut Service, tools: Tools, nats: &Path, options: &Options) -> Result<()> {
    let harness = Harness::new(tools, service, RowLength::of_seconds(1)).await?;
    seed::open_accounts(&harness.passbook, 1..=ACCOUNTS).await?;
    fill(&harness, service, Spread::Over(ACCOUNTS), options.events).await?;
    let (_nats, address) = start_nats(nats, service)?;
    let client = connect(&address).await?;
    let mut relay = start_relay(service, &address).await?;
    let head = harness.passbook.head().await?;
    let caught_up = catch_up(&client, head).await?;
    println!("{} events in {caught_up:.1} s: {:.0} events/s", grouped(head), head as f64 / caught_up);

    println!("| events/s sent | received | p50 | p99 | max |\n|--:|--:|--:|--:|--:|");
    let run = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_nanos();
    let accounts = feed::open_transfer_accounts(&harness.passbook, run).await?;
    for (round, rate) in options.rates.iter().enumerate() {
        catch_up(&client, harness.passbook.head().await?).await?;
        let start = harness.passbook.head().await? + 1;
        let reading = tokio::spawn(read(client.clone(), start));
        let started = Instant::now();
        let run = format!("{run}-{round}");
        let sent = feed::send_transfers(&harness.passbook, *rate, options.seconds, &accounts, &run).await?;
        let sent_rate = sent as f64 / started.elapsed().as_secs_f64();
        let delays = reading.await.context("the consumer panicked")??;
        let percent = 100.0 * delays.count() as f64 / sent as f64;
        let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| delays.percentile_ms(percent));
        println!("| {sent_rate:.0} | {percent:.1} % | {p50:.1} ms | {p99:.1} ms | {max:.1} ms |");
    }
    relay.check_alive()?;
    relay.stop().await
}

fn start_nats(nats: &Path, service: &Service) -> Result<(Child, String)> {
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("the address has no port")?;
    let mut command = Command::new(nats);
    command.args(["--addr", host, "--port", port, "--jetstream", "--store_dir"]).arg(service.folder.join("nats"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok((command.spawn().context("cannot start nats-server")?, address))
}

async fn connect(address: &str) -> Result<async_nats::Client> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        match async_nats::connect(address).await {
            Ok(client) => return Ok(client),
            Err(error) => ensure!(Instant::now() < deadline, "cannot connect to the NATS server: {error}"),
        }
        sleep(Duration::from_millis(POLL_MS)).await;
    }
}

async fn start_relay(service: &Service, address: &str) -> Result<Server> {
    let mut command = service.command("relay");
    command.arg("nats").env("PASSBOOK_RELAY_NATS_URL", address).env("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0");
    Server::start(&mut command, service.folder.join("relay.log")).await
}

/// Waits until the stream contains position `head`. Returns the seconds since the first message.
async fn catch_up(client: &async_nats::Client, head: u64) -> Result<f64> {
    let jetstream = jetstream::new(client.clone());
    let mut first_message_at = None;
    loop {
        let last = match jetstream.get_stream(STREAM).await {
            Ok(stream) => stream.cached_info().state.last_sequence,
            Err(_) => 0,
        };
        if last > 0 {
            let started = *first_message_at.get_or_insert_with(Instant::now);
            if last >= head {
                return Ok(started.elapsed().as_secs_f64());
            }
        }
        sleep(Duration::from_millis(POLL_MS)).await;
    }
}

/// Reads the stream from sequence number `start` until it is idle. Returns the delays.
async fn read(client: async_nats::Client, start: u64) -> Result<Latencies> {
    let stream = jetstream::new(client).get_stream(STREAM).await.map_err(|error| anyhow!(error))?;
    let from = DeliverPolicy::ByStartSequence { start_sequence: start };
    let consumer = stream.create_consumer(OrderedConfig { deliver_policy: from, ..OrderedConfig::default() });
    let mut messages = consumer.await.map_err(|error| anyhow!(error))?.messages().await?;
    let mut delays = Latencies::new()?;
    let mut wait_max = Duration::from_secs(START_SECONDS_MAX);
    while let Ok(Some(message)) = timeout(wait_max, messages.next()).await {
        let event: CloudEvent = serde_json::from_slice(&message?.payload).context("a message is not a CloudEvent")?;
        let delay = Utc::now() - event.time;
        delays.record_us(u64::try_from(delay.num_microseconds().unwrap_or(0)).unwrap_or(0));
        wait_max = Duration::from_secs(IDLE_SECONDS);
    }
    Ok(delays)
}
