//! `bench feed`: measures the delay from an event's `recorded_at` to its arrival at the readers of the event stream.
//!
//! Transfers of two events each are sent at a fixed rate while readers follow the stream. `recorded_at` is set before the
//! commit, by the same machine's clock. Only every tenth reader records delays, to keep the readers' own cost low.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::client::{Passbook, Receipt};
use crate::latency::Latencies;
use crate::seed::OPENING_BALANCE;

const SENDERS: u64 = 64;
const EVENTS_PER_TRANSFER: u64 = 2;
/// Every tenth reader records delays.
const READERS_PER_TIMED_READER: usize = 10;
const SETTLE_SECONDS: u64 = 1;
/// A reader stops when it receives nothing for this time.
const IDLE_SECONDS: u64 = 3;
const READ_BYTES_MAX: usize = 256 * 1024;
/// The text before the time of an event.
const RECORDED_AT: &str = "\"recorded_at\":\"";
const DAY_US: u64 = 86_400_000_000;

/// Measure the delay from recording an event to its arrival at many readers of /v1/events/stream.
///
/// Requires a running service. Opens accounts in it and transfers money between them.
#[derive(Args)]
pub struct Options {
    /// URL of the running service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Number of readers; several numbers are measured one after another
    #[arg(long, value_delimiter = ',', default_value = "1,100,300,500")]
    readers: Vec<usize>,
    /// Events recorded per second
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(128..=50_000))]
    rate: u64,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// The events that one or all readers received, and their delays.
struct ReaderStats {
    events: u64,
    latencies: Latencies,
}

pub async fn feed(options: Options) -> Result<ExitCode> {
    let passbook = Passbook::new(&options.url)?;
    passbook.check_reachable().await?;
    let run = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_nanos();
    let accounts = open_transfer_accounts(&passbook, run).await?;
    println!("| readers | events/s sent | received | p50 | p99 | max |\n|--:|--:|--:|--:|--:|--:|");
    for (round, readers) in options.readers.iter().enumerate() {
        measure(&passbook, &options, *readers, &accounts, &format!("{run}-{round}")).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(passbook: &Passbook, options: &Options, readers: usize, accounts: &[String], run: &str) -> Result<()> {
    // The readers start after this transfer.
    let moved = passbook.command("/v1/transfers", &format!("{run}-first"), &transfer(accounts, 0)).await?;
    let position = moved.read::<serde_json::Value>()?["position"].as_str().context("a position")?.to_owned();
    let mut running = Vec::new();
    for reader in 0..readers {
        let stream = open_stream(&options.url, &position).await?;
        running.push(tokio::spawn(read(stream, reader % READERS_PER_TIMED_READER == 0)));
    }
    sleep(Duration::from_secs(SETTLE_SECONDS)).await;
    let started = Instant::now();
    let sent = send_transfers(passbook, options.rate, options.seconds, accounts, run).await?;
    let rate = sent as f64 / started.elapsed().as_secs_f64();
    let all = join_readers(running).await?;
    let timed = readers.div_ceil(READERS_PER_TIMED_READER) as u64;
    let percent = 100.0 * all.events as f64 / (sent * timed) as f64;
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| all.latencies.percentile_ms(percent));
    println!("| {readers} | {rate:.0} | {percent:.1} % | {p50:.1} ms | {p99:.1} ms | {max:.1} ms |");
    std::io::stdout().flush().context("cannot print")
}

/// Opens the accounts for [`send_transfers`].
pub async fn open_transfer_accounts(passbook: &Passbook, run: u128) -> Result<Vec<String>> {
    let mut accounts = Vec::new();
    for account in 0..2 * SENDERS {
        let body = json!({"currency": "EUR", "initial_deposit": OPENING_BALANCE});
        let response = passbook.command("/v1/accounts", &format!("{run}-open-{account}"), &body).await?;
        ensure!(response.status.is_success(), "cannot open an account: {}", response.problem());
        ensure!(response.read::<Receipt>()?.balance == OPENING_BALANCE, "a new account has the wrong balance");
        let id = response.read::<serde_json::Value>()?["account_id"].as_str().context("an id")?.to_owned();
        accounts.push(id);
    }
    Ok(accounts)
}

fn transfer(accounts: &[String], sender: u64) -> serde_json::Value {
    let from = 2 * sender as usize;
    json!({"from": accounts[from], "to": accounts[from + 1], "amount": 1, "reference": "rent for the month"})
}

/// Sends transfers at a fixed rate of events per second. Returns the number of events.
pub async fn send_transfers(
    passbook: &Passbook,
    rate: u64,
    seconds: u64,
    accounts: &[String],
    run: &str,
) -> Result<u64> {
    let transfers = rate * seconds / EVENTS_PER_TRANSFER / SENDERS;
    let pause = Duration::from_secs(seconds) / u32::try_from(transfers).context("too many transfers")?;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (passbook, body, run) = (passbook.clone(), transfer(accounts, sender), run.to_owned());
        senders.spawn(async move {
            sleep(pause * sender as u32 / SENDERS as u32).await;
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for transfer in 0..transfers {
                ticks.tick().await;
                let key = format!("{run}-{sender}-{transfer}");
                let response = passbook.command("/v1/transfers", &key, &body).await?;
                ensure!(response.status.is_success(), "a transfer failed: {}", response.problem());
            }
            Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.context("a sender panicked")??;
    }
    Ok(SENDERS * transfers * EVENTS_PER_TRANSFER)
}

async fn open_stream(url: &str, after: &str) -> Result<TcpStream> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.with_context(|| format!("cannot connect to {host}"))?;
    let request = format!("GET /v1/events/stream?after={after} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("cannot request the stream")?;
    Ok(stream)
}

/// Reads the stream until it is idle. Records delays if `is_timed`.
async fn read(mut stream: TcpStream, is_timed: bool) -> Result<ReaderStats> {
    let mut stats = ReaderStats { events: 0, latencies: Latencies::new()? };
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut partial = 0;
    loop {
        let reading = timeout(Duration::from_secs(IDLE_SECONDS), stream.read(&mut buffer[partial..]));
        let Ok(read) = reading.await else { return Ok(stats) };
        let read = read.context("the stream failed")?;
        ensure!(read > 0, "the service closed the stream, as it does for a reader that is too slow");
        if is_timed {
            let filled = partial + read;
            let whole = buffer[..filled].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            stats.record(&String::from_utf8_lossy(&buffer[..whole]))?;
            buffer.copy_within(whole..filled, 0);
            partial = filled - whole;
        }
    }
}

impl ReaderStats {
    /// Records every event in these lines as received now.
    fn record(&mut self, lines: &str) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_micros() as u64;
        for (at, name) in lines.match_indices(RECORDED_AT) {
            let time = lines.get(at + name.len()..).and_then(day_us).context("an event has no valid time")?;
            self.events += 1;
            self.latencies.record_us((now % DAY_US + DAY_US - time) % DAY_US);
        }
        Ok(())
    }
}

/// The microseconds since the `recorded_at` in an event; `None` if it has none.
pub fn since_day_us(event: &str) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros() as u64;
    let time = day_us(event.split_once(RECORDED_AT)?.1)?;
    Some((now % DAY_US + DAY_US - time) % DAY_US)
}

/// The microseconds since midnight of a time such as `2026-01-31T12:00:00.000000Z`.
fn day_us(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    Some(((number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?) * 1_000_000 + number(20, 26)?)
}

async fn join_readers(readers: Vec<JoinHandle<Result<ReaderStats>>>) -> Result<ReaderStats> {
    let mut all = ReaderStats { events: 0, latencies: Latencies::new()? };
    for reader in readers {
        let stats = reader.await.context("a reader panicked")??;
        all.events += stats.events;
        all.latencies.add(&stats.latencies)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_of_day_is_parsed_to_the_microsecond() {
        assert_eq!(super::day_us("2026-01-31T01:02:03.000004Z"), Some(3_723_000_004));
        assert_eq!(super::day_us("2026-01-31"), None);
    }
}
