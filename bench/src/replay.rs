//! `bench replay`: plays a file of real movements through a running Passbook, many accounts at
//! once and each account's movements in order, and compares every balance with the file's.
//!
//! The second time every answer is a replay and nothing changes: that is what the keys are for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{AccountView, Passbook, Receipt, side_by_side};
use crate::latency::Latencies;
use crate::movements::{self, Account, Command};
use crate::table::grouped;

const MISMATCHES_SHOWN_MAX: usize = 5;

/// Replay a file of real movements through a running Passbook and check every balance.
///
/// Opens each account in CZK at its first line, then deposits and withdraws with trans_id as the
/// Idempotency-Key. Checks each receipt's balance against the file, and at the end each account's
/// read view. 503, 429 and lost connections are retried with the same key. Replaying the same file
/// again changes nothing. Ends with exit code 1 if anything disagrees.
#[derive(Args)]
pub struct Options {
    /// CSV, packed with gzip or not: date (yymmdd), trans_id, account, delta_minor, balance_minor
    file: PathBuf,
    /// Where Passbook listens
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// How many accounts are played at once
    #[arg(long, default_value = "64", value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    concurrency: usize,
}

/// What the commands of one account, or of all, came to.
struct Tally {
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
    passbook.greet().await?;

    let opened = accounts.len() as u64;
    let expected: u64 = accounts.iter().map(|account| account.movements.len() as u64).sum();
    let bar = progress_bar(expected)?;
    let started = Instant::now();
    let mut total = Tally::new()?;
    let mut played = Vec::new();
    let jobs = accounts.into_iter().map(|account| play(passbook.clone(), account, bar.clone()));
    side_by_side(options.concurrency, jobs, |(tally, account)| {
        played.extend(account);
        total.add(tally)
    })
    .await?;
    let elapsed = started.elapsed();
    bar.finish_and_clear();

    let jobs = played.into_iter().map(|(account, last)| view(passbook.clone(), account, last));
    side_by_side(options.concurrency, jobs, |tally| total.add(tally)).await?;
    total.print(opened, expected, elapsed);
    Ok(if total.mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays one account; with its last receipt, if no command was refused. A refusal ends the
/// account: what follows would only be refused as well.
async fn play(passbook: Passbook, account: Account, bar: ProgressBar) -> Result<(Tally, Option<(Account, Receipt)>)> {
    let mut tally = Tally::new()?;
    let mut last = None;
    for command in account.commands() {
        last = tally.send(&passbook, &command).await?;
        if last.is_none() {
            return Ok((tally, None));
        }
        if tally.commands > 1 {
            tally.movements += 1;
            bar.inc(1);
        }
    }
    Ok((tally, last.map(|receipt| (account, receipt))))
}

/// Reads one account's view, not older than its last receipt, and compares it with the file.
async fn view(passbook: Passbook, account: Account, last: Receipt) -> Result<Tally> {
    let mut tally = Tally::new()?;
    let name = format!("view of account {}", account.number);
    let path = format!("/v1/accounts/{}?min_position={}", account.id(), last.position);
    let answer = passbook.get(&path).await?;
    tally.retries += u64::from(answer.retries);
    if !answer.status.is_success() {
        tally.mismatches.push(format!("{name}: {}", answer.refusal()));
        return Ok(tally);
    }
    let view: AccountView = answer.read()?;
    tally.compare(&name, "balance", view.balance, account.closing_balance());
    tally.compare(&name, "version", view.version, last.version);
    let count = account.movements.len() as u64;
    tally.compare(&name, "transaction_count", view.transaction_count, count);
    Ok(tally)
}

impl Tally {
    fn new() -> Result<Self> {
        let latencies = Latencies::new()?;
        let mismatches = Vec::new();
        Ok(Self { movements: 0, commands: 0, replayed: 0, retries: 0, mismatches, latencies })
    }

    /// Sends one command and checks its receipt's balance; `None` if it was refused.
    async fn send(&mut self, passbook: &Passbook, command: &Command) -> Result<Option<Receipt>> {
        let started = Instant::now();
        let answer = passbook.command(&command.path, &command.key, &command.body).await?;
        self.latencies.record_us(started.elapsed().as_micros() as u64);
        self.commands += 1;
        self.replayed += u64::from(answer.replayed);
        self.retries += u64::from(answer.retries);
        if !answer.status.is_success() {
            self.mismatches.push(format!("{}: {}", command.name, answer.refusal()));
            return Ok(None);
        }
        let receipt: Receipt = answer.read()?;
        self.compare(&command.name, "balance", receipt.balance, command.balance);
        Ok(Some(receipt))
    }

    fn compare(&mut self, name: &str, what: &str, found: u64, expected: u64) {
        if found != expected {
            self.mismatches.push(format!("{name}: {what} {found}, expected {expected}"));
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
            "replayed answers     {:>10}  of {}{}",
            grouped(self.replayed),
            grouped(self.commands),
            if nothing_new { ": every answer was a replay, nothing changed" } else { "" },
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
    use super::Tally;

    #[test]
    fn a_balance_that_disagrees_is_a_mismatch_and_says_both() {
        let mut tally = Tally::new().expect("an empty tally");
        tally.compare("movement 1 of account 7", "balance", 500, 500);
        tally.compare("movement 2 of account 7", "balance", 300, 400);
        assert_eq!(tally.mismatches, ["movement 2 of account 7: balance 300, expected 400"]);
    }
}
