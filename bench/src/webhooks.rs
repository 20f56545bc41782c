//! `bench webhooks`: measures the delay from an event's `recorded_at` to its arrival at webhooks, and what webhooks cost commands.
//!
//! Each webhook gets the events of one account, from an endpoint in this process. Transfers of two events each are sent as fast as the
//! service answers, without and with webhooks, then at a fixed rate. `recorded_at` is set before the commit, by the same machine's clock.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use crate::client::Passbook;
use crate::feed::{open_transfer_accounts, send_transfers, since_day_us};
use crate::latency::Latencies;

/// More events a second than a service records: the senders then wait for its answers.
const UNLIMITED_RATE: u64 = 50_000;
/// How long deliveries may be behind the last command, in seconds.
const SETTLE_SECONDS_MAX: u64 = 60;
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const ACCEPTED: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Measure the delay of webhooks, and the rate of commands with and without them.
///
/// Requires a running service with PASSBOOK_WEBHOOKS_ALLOW_PRIVATE=true. Opens accounts in it and transfers money between them.
#[derive(Args)]
pub struct Options {
    /// URL of the running service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Number of webhooks
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    webhooks: u64,
    /// Events recorded per second while the delay is measured
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(128..=50_000))]
    rate: u64,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

pub async fn webhooks(options: Options) -> Result<ExitCode> {
    let passbook = Passbook::new(&options.url)?;
    passbook.check_reachable().await?;
    let run = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_nanos();
    let accounts = open_transfer_accounts(&passbook, run).await?;
    let rate = async |rate: u64, name: &str| {
        // The senders take longer at an unlimited rate.
        let seconds = if rate == UNLIMITED_RATE { options.seconds.div_ceil(10) } else { options.seconds };
        let started = Instant::now();
        let sent = send_transfers(&passbook, rate, seconds, &accounts, &format!("{run}-{name}")).await?;
        anyhow::Ok(sent as f64 / started.elapsed().as_secs_f64())
    };
    let without = rate(UNLIMITED_RATE, "without").await?;
    let received = Arc::new(Mutex::new(Latencies::new()?));
    let registered = register(&options, &accounts, &received).await?;
    let with = rate(UNLIMITED_RATE, "with").await?;
    settle(&options.url, &registered).await?;
    *received.lock().unwrap_or_else(PoisonError::into_inner) = Latencies::new()?;
    let sent = rate(options.rate, "delay").await?;
    settle(&options.url, &registered).await?;
    delete(&options.url, &registered).await?;
    let delays = received.lock().unwrap_or_else(PoisonError::into_inner);
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| delays.percentile_ms(percent));
    println!("| webhooks | events/s without | with | ratio | at events/s | deliveries | p50 | p99 | max |");
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    println!(
        "| {} | {without:.0} | {with:.0} | {:.2} | {sent:.0} | {} | {p50:.1} ms | {p99:.1} ms | {max:.1} ms |",
        options.webhooks,
        with / without,
        delays.count(),
    );
    Ok(ExitCode::SUCCESS)
}

/// Registers a webhook for each of the first accounts, all at one endpoint in this process. Returns their ids.
async fn register(options: &Options, accounts: &[String], received: &Arc<Mutex<Latencies>>) -> Result<Vec<String>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
    let endpoint = format!("http://{}/", listener.local_addr().context("no free port")?);
    tokio::spawn(accept(listener, Arc::clone(received)));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut registered = Vec::new();
    for account in accounts.iter().take(usize::try_from(options.webhooks)?) {
        let body = json!({"url": endpoint, "account_id": account});
        let response = client.post(format!("{}/v1/webhooks", options.url)).json(&body).send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        ensure!(status.is_success(), "cannot register a webhook: {body}");
        registered.push(body["webhook_id"].as_str().context("an id")?.to_owned());
    }
    Ok(registered)
}

/// Waits until the webhooks have received everything.
async fn settle(url: &str, registered: &[String]) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS_MAX);
    loop {
        let page: Value = client.get(format!("{url}/v1/webhooks?limit=1000")).send().await?.json().await?;
        let rows = page["data"].as_array().context("a list")?;
        let is_own = |row: &&Value| registered.iter().any(|id| row["webhook_id"] == **id);
        if rows.iter().filter(is_own).all(|row| row["lag_events"] == 0) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "webhooks are behind after {SETTLE_SECONDS_MAX} s");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn delete(url: &str, registered: &[String]) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    for id in registered {
        let response = client.delete(format!("{url}/v1/webhooks/{id}")).send().await?;
        ensure!(response.status().is_success(), "cannot delete a webhook: {}", response.status());
    }
    Ok(())
}

async fn accept(listener: TcpListener, received: Arc<Mutex<Latencies>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(receive(stream, Arc::clone(&received)));
    }
}

/// Answers the requests of a connection, and records their delays. A test needs no more of HTTP than lengths.
async fn receive(mut stream: TcpStream, received: Arc<Mutex<Latencies>>) {
    let mut buffer = Vec::with_capacity(REQUEST_BYTES_MAX);
    while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
        while let Some(length) = request_bytes(&buffer) {
            if let Some(delay) = since_day_us(&String::from_utf8_lossy(&buffer[..length])) {
                received.lock().unwrap_or_else(PoisonError::into_inner).record_us(delay);
            }
            buffer.drain(..length);
            if stream.write_all(ACCEPTED).await.is_err() {
                return;
            }
        }
    }
}

/// The length of the first request, if it has arrived completely.
fn request_bytes(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok())?;
    (buffer.len() >= end + length).then_some(end + length)
}

#[cfg(test)]
mod tests {
    use super::request_bytes;

    #[test]
    fn a_request_is_complete_with_its_body() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        assert_eq!(request_bytes(request), Some(request.len() - 4));
        assert_eq!(request_bytes(&request[..request.len() - 5]), None);
        assert_eq!(request_bytes(b"POST / HTTP/1.1\r\n"), None);
    }
}
