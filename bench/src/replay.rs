//! `bench replay`: sends the movements of a file to a running Passbook and compares every balance with the file's.
//!
//! Accounts run concurrently; the movements of one account run in order. A second run of the same file changes nothing,
//! because every command is repeated with its idempotency key.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{AccountView, Passbook, Receipt, run_concurrently};
use crate::latency::Latencies;
use crate::movements::{self, Account, Command};
use crate::table::grouped;

const MISMATCHES_SHOWN_MAX: usize = 5;

/// Send the movements of a file to a running Passbook and check every balance.
///
/// Opens each account in CZK at its first line, then deposits and withdraws with trans_id as the
/// Idempotency-Key. Compares the balance of each receipt, and at the end each account's view, with
/// the file. 503, 429 and connection errors are retried with the same key. A second run of the same
/// file changes nothing. The exit code is 1 if any value differs.
#[derive(Args)]
pub struct Options {
    /// CSV file, optionally compressed with gzip: date (yymmdd), trans_id, account, delta_minor, balance_minor
    file: PathBuf,
    /// URL of the running service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Number of accounts that run concurrently
    #[arg(long, default_value = "64", value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    concurrency: usize,
}

/// The results of the commands of one account, or of all.
struct ReplayStats {
    movements: u64,
    commands: u64,
    replayed: u64,
    retries: u64,
    mismatches: Vec<String>,
    latencies: Latencies,
}

pub async fn replay(options: Options) -> Result<ExitCode> {
    let accounts = movements::read(&options.file)?;
    let passbook = Passbook::new(&options.url)?;
    passbook.check_reachable().await?;

    let opened = accounts.len() as u64;
    let expected: u64 = accounts.iter().map(|account| account.movements.len() as u64).sum();
    let bar = progress_bar(expected)?;
    let started = Instant::now();
    let mut total = ReplayStats::new()?;
    let mut completed = Vec::new();
    let jobs = accounts.into_iter().map(|account| replay_account(passbook.clone(), account, bar.clone()));
    run_concurrently(options.concurrency, jobs, |(stats, account)| {
        completed.extend(account);
        total.add(stats)
    })
    .await?;
    let elapsed = started.elapsed();
    bar.finish_and_clear();

    let jobs = completed.into_iter().map(|(account, last)| check_view(passbook.clone(), account, last));
    run_concurrently(options.concurrency, jobs, |stats| total.add(stats)).await?;
    total.print(opened, expected, elapsed);
    Ok(if total.mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends the commands of one account. Returns the account with its last receipt, or `None` if a command was refused: the
/// later commands of the account would be refused as well.
async fn replay_account(
    passbook: Passbook,
    account: Account,
    bar: ProgressBar,
) -> Result<(ReplayStats, Option<(Account, Receipt)>)> {
    let mut stats = ReplayStats::new()?;
    let mut last = None;
    for command in account.commands() {
        last = stats.send(&passbook, &command).await?;
        if last.is_none() {
            return Ok((stats, None));
        }
        if stats.commands > 1 {
            stats.movements += 1;
            bar.inc(1);
        }
    }
    Ok((stats, last.map(|receipt| (account, receipt))))
}

/// Reads one account's view at the position of its last receipt or later, and compares it with the file.
async fn check_view(passbook: Passbook, account: Account, last: Receipt) -> Result<ReplayStats> {
    let mut stats = ReplayStats::new()?;
    let name = format!("view of account {}", account.number);
    let path = format!("/v1/accounts/{}?min_position={}", account.id(), last.position);
    let response = passbook.get(&path).await?;
    stats.retries += u64::from(response.retries);
    if !response.status.is_success() {
        stats.mismatches.push(format!("{name}: {}", response.problem()));
        return Ok(stats);
    }
    let view: AccountView = response.read()?;
    stats.compare(&name, "balance", view.balance, account.closing_balance());
    stats.compare(&name, "version", view.version, last.version);
    let count = account.movements.len() as u64;
    stats.compare(&name, "transaction_count", view.transaction_count, count);
    Ok(stats)
}

impl ReplayStats {
    fn new() -> Result<Self> {
        let latencies = Latencies::new()?;
        let mismatches = Vec::new();
        Ok(Self { movements: 0, commands: 0, replayed: 0, retries: 0, mismatches, latencies })
    }

    /// Sends one command and compares its receipt's balance with the file. Returns `None` if it was refused.
    async fn send(&mut self, passbook: &Passbook, command: &Command) -> Result<Option<Receipt>> {
        let started = Instant::now();
        let response = passbook.command(&command.path, &command.key, &command.body).await?;
        self.latencies.record_us(started.elapsed().as_micros() as u64);
        self.commands += 1;
        self.replayed += u64::from(response.replayed);
        self.retries += u64::from(response.retries);
        if !response.status.is_success() {
            self.mismatches.push(format!("{}: {}", command.name, response.problem()));
            return Ok(None);
        }
        let receipt: Receipt = response.read()?;
        self.compare(&command.name, "balance", receipt.balance, command.balance);
        Ok(Some(receipt))
    }

    fn compare(&mut self, name: &str, field: &str, found: u64, expected: u64) {
        if found != expected {
            self.mismatches.push(format!("{name}: {field} {found}, expected {expected}"));
        }
    }

    fn add(&mut self, other: Self) -> Result<()> {
        self.movements += other.movements;
        self.commands += other.commands;
        self.replayed += other.replayed;
        self.retries += other.retries;
        self.mismatches.extend(other.mismatches);
        self.latencies.add(&other.latencies)
    }

    fn print(&self, accounts: u64, expected: u64, elapsed: Duration) {
        let per_second = self.commands as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
        let percentile = |percent| self.latencies.percentile_ms(percent);
        println!("accounts             {:>10}", grouped(accounts));
        println!("movements            {:>10}  of {}", grouped(self.movements), grouped(expected));
        println!("mismatches           {:>10}", grouped(self.mismatches.len() as u64));
        let nothing_new = self.replayed == self.commands && self.mismatches.is_empty();
        println!(
            "replayed responses   {:>10}  of {}{}",
            grouped(self.replayed),
            grouped(self.commands),
            if nothing_new { ": every response was a replay, nothing changed" } else { "" },
        );
        println!("retries              {:>10}", grouped(self.retries));
        println!("commands per second  {:>10}", grouped(per_second.round() as u64));
        println!("latency p50          {:>10.1}  ms", percentile(50.0));
        println!("latency p99          {:>10.1}  ms", percentile(99.0));
        for mismatch in self.mismatches.iter().take(MISMATCHES_SHOWN_MAX) {
            println!("mismatch: {mismatch}");
        }
        if self.mismatches.len() > MISMATCHES_SHOWN_MAX {
            println!("… and {} more", self.mismatches.len() - MISMATCHES_SHOWN_MAX);
        }
    }
}

fn progress_bar(movements: u64) -> Result<ProgressBar> {
    let style = "{bar:40} {human_pos} of {human_len} movements, {per_sec}, {eta} left";
    Ok(ProgressBar::new(movements).with_style(ProgressStyle::with_template(style)?))
}

#[cfg(test)]
mod tests {
    use super::ReplayStats;

    #[test]
    fn a_mismatch_names_the_found_and_the_expected_balance() {
        let mut stats = ReplayStats::new().expect("empty stats");
        stats.compare("movement 1 of account 7", "balance", 500, 500);
        stats.compare("movement 2 of account 7", "balance", 300, 400);
        assert_eq!(stats.mismatches, ["movement 2 of account 7: balance 300, expected 400"]);
    }
}
