//! `bench feed`: how long after an event was recorded everybody who follows the log has it.
//!
//! Transfers, each two events, are sent at a fixed rate while so many readers follow. The time runs from `recorded_at`,
//! which is set before the commit, until the reader has the bytes; clock and machine are the same. Every tenth reader takes
//! the times; the others only read, so that it is the service that is measured.

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

const SENDERS: u64 = 64;
const EVENTS_PER_TRANSFER: u64 = 2;
const OPENING_BALANCE: u64 = 1_000_000_000;
const TIMED_READERS_EACH: usize = 10;
const SETTLE_SECONDS: u64 = 1;
/// Nothing for so long means that everything was told.
const IDLE_SECONDS: u64 = 3;
const READ_BYTES_MAX: usize = 256 * 1024;
/// What stands before an event's time.
const RECORDED_AT: &str = "\"recorded_at\":\"";
const DAY_US: u64 = 86_400_000_000;

/// Measure how soon many readers of /v1/events/stream have what was recorded.
///
/// Against a service that runs: it opens accounts in it and moves money between them.
#[derive(Args)]
pub struct Options {
    /// The running service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// How many readers follow; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,100,300,500")]
    readers: Vec<usize>,
    /// How many events are recorded in a second
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(128..=50_000))]
    rate: u64,
    /// For how long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// What one reader saw.
struct Seen {
    events: u64,
    latencies: Latencies,
}

pub async fn feed(options: Options) -> Result<ExitCode> {
    let passbook = Passbook::new(&options.url)?;
    passbook.greet().await?;
    let run = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_nanos();
    let accounts = open_accounts(&passbook, run).await?;
    println!("| readers | events/s sent | told of all | p50 | p99 | max |\n|--:|--:|--:|--:|--:|--:|");
    for (round, readers) in options.readers.iter().enumerate() {
        measure(&passbook, &options, *readers, &accounts, &format!("{run}-{round}")).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(passbook: &Passbook, options: &Options, readers: usize, accounts: &[String], run: &str) -> Result<()> {
    // Where the readers begin.
    let moved = passbook.command("/v1/transfers", &format!("{run}-first"), &transfer(accounts, 0)).await?;
    let position = moved.read::<serde_json::Value>()?["position"].as_str().context("a position")?.to_owned();
    let mut following = Vec::new();
    for reader in 0..readers {
        let stream = follow(&options.url, &position).await?;
        following.push(tokio::spawn(read(stream, reader % TIMED_READERS_EACH == 0)));
    }
    sleep(Duration::from_secs(SETTLE_SECONDS)).await;
    let started = Instant::now();
    let sent = send(passbook, options.rate, options.seconds, accounts, run).await?;
    let rate = sent as f64 / started.elapsed().as_secs_f64();
    let all = gather(following).await?;
    let timed = readers.div_ceil(TIMED_READERS_EACH) as u64;
    let percent = 100.0 * all.events as f64 / (sent * timed) as f64;
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| all.latencies.percentile_ms(percent));
    println!("| {readers} | {rate:.0} | {percent:.1} % | {p50:.1} ms | {p99:.1} ms | {max:.1} ms |");
    std::io::stdout().flush().context("cannot print")
}

/// The accounts between which [`send`] moves money.
pub async fn open_accounts(passbook: &Passbook, run: u128) -> Result<Vec<String>> {
    let mut accounts = Vec::new();
    for account in 0..2 * SENDERS {
        let body = json!({"currency": "EUR", "initial_deposit": OPENING_BALANCE});
        let answer = passbook.command("/v1/accounts", &format!("{run}-open-{account}"), &body).await?;
        ensure!(answer.status.is_success(), "opening an account: {}", answer.refusal());
        ensure!(answer.read::<Receipt>()?.balance == OPENING_BALANCE, "an account was opened with another balance");
        let id = answer.read::<serde_json::Value>()?["account_id"].as_str().context("an id")?.to_owned();
        accounts.push(id);
    }
    Ok(accounts)
}

fn transfer(accounts: &[String], sender: u64) -> serde_json::Value {
    let from = 2 * sender as usize;
    json!({"from": accounts[from], "to": accounts[from + 1], "amount": 1, "reference": "rent for the month"})
}

/// Sends transfers at the rate, whatever the answers take; how many events that made.
pub async fn send(passbook: &Passbook, rate: u64, seconds: u64, accounts: &[String], run: &str) -> Result<u64> {
    let transfers = rate * seconds / EVENTS_PER_TRANSFER / SENDERS;
    let pause = Duration::from_secs(seconds) / u32::try_from(transfers).context("so many transfers")?;
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
                let answer = passbook.command("/v1/transfers", &key, &body).await?;
                ensure!(answer.status.is_success(), "a transfer: {}", answer.refusal());
            }
            Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.context("a sender ended")??;
    }
    Ok(SENDERS * transfers * EVENTS_PER_TRANSFER)
}

async fn follow(url: &str, after: &str) -> Result<TcpStream> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.with_context(|| format!("cannot connect to {host}"))?;
    let request = format!("GET /v1/events/stream?after={after} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("cannot ask for the stream")?;
    Ok(stream)
}

/// Reads until nothing comes any more.
async fn read(mut stream: TcpStream, is_timed: bool) -> Result<Seen> {
    let mut seen = Seen { events: 0, latencies: Latencies::new()? };
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut kept = 0;
    loop {
        let reading = timeout(Duration::from_secs(IDLE_SECONDS), stream.read(&mut buffer[kept..]));
        let Ok(read) = reading.await else { return Ok(seen) };
        let read = read.context("the stream broke")?;
        ensure!(read > 0, "a reader was ended, as one that does not keep up is");
        if is_timed {
            let filled = kept + read;
            let whole = buffer[..filled].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            seen.take(&String::from_utf8_lossy(&buffer[..whole]))?;
            buffer.copy_within(whole..filled, 0);
            kept = filled - whole;
        }
    }
}

impl Seen {
    /// Notes every event in these lines as received now.
    fn take(&mut self, lines: &str) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_micros() as u64;
        for (at, name) in lines.match_indices(RECORDED_AT) {
            let time = lines.get(at + name.len()..).and_then(day_us).context("an event without a time")?;
            self.events += 1;
            self.latencies.record_us((now % DAY_US + DAY_US - time) % DAY_US);
        }
        Ok(())
    }
}

/// Microseconds since midnight of a time such as `2026-01-31T12:00:00.000000Z`.
fn day_us(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    Some(((number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?) * 1_000_000 + number(20, 26)?)
}

async fn gather(following: Vec<JoinHandle<Result<Seen>>>) -> Result<Seen> {
    let mut all = Seen { events: 0, latencies: Latencies::new()? };
    for reader in following {
        let seen = reader.await.context("a reader ended")??;
        all.events += seen.events;
        all.latencies.add(&seen.latencies)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_of_day_is_read_to_the_microsecond() {
        assert_eq!(super::day_us("2026-01-31T01:02:03.000004Z"), Some(3_723_000_004));
        assert_eq!(super::day_us("2026-01-31"), None);
    }
}
