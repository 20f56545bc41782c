//! `bench replay`: sends the movements of a file to a running Passbook with `passbook import`, and compares every balance with
//! the file's.
//!
//! The movements have idempotency keys of their own, so a second run of the same file changes nothing.

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::process::{ChildStdin, Command};

use crate::client::{Passbook, run_concurrently};
use crate::movements::{self, Account, Movement, Recording};
use crate::process::built_binary;
use crate::table::grouped;

const MISMATCHES_SHOWN_MAX: usize = 5;
/// Number of accounts whose transactions are read concurrently.
const ACCOUNTS_CONCURRENT: usize = 32;
/// The exit code of `passbook import` if commands were refused.
const EXIT_REFUSED: i32 = 1;

/// Send the movements of a file to a running Passbook and check every balance.
///
/// Opens each account in CZK at its first line, then deposits and withdraws with trans_id as the
/// idempotency key. At the end compares each transaction and its balance with the file. A second
/// run of the same file changes nothing. The exit code is 1 if any value differs.
#[derive(Args)]
pub struct Options {
    /// CSV file, optionally compressed with gzip: date (yymmdd), trans_id, account, delta_minor, balance_minor
    file: PathBuf,
    /// URL of the running service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The Passbook that runs the import
    #[arg(long, default_value = "target/release/passbook")]
    binary: PathBuf,
}

/// A transaction as the service lists it.
#[derive(Deserialize)]
struct Transaction {
    kind: String,
    amount: u64,
    balance_after: u64,
    reference: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Transaction>,
    next: Option<String>,
}

pub async fn replay(options: Options) -> Result<ExitCode> {
    let recording = movements::read(&options.file)?;
    let passbook = Passbook::new(&options.url)?;
    passbook.check_reachable().await?;
    let status = import(&options, &recording).await?;
    if !matches!(status.code(), Some(0 | EXIT_REFUSED)) {
        bail!("passbook import failed: {status}");
    }

    let position = passbook.head_position().await?;
    let movements = recording.movements() as u64;
    let accounts = recording.into_accounts();
    let count = accounts.len() as u64;
    let mut mismatches = Vec::new();
    let jobs = accounts.into_iter().map(|account| check(passbook.clone(), account, position.clone()));
    run_concurrently(ACCOUNTS_CONCURRENT, jobs, |found| {
        mismatches.extend(found);
        Ok(())
    })
    .await?;
    println!("compared {} movements of {} accounts with the file", grouped(movements), grouped(count));
    print_mismatches(&mismatches);
    Ok(if mismatches.is_empty() && status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `passbook import -` with the commands of the recording as its standard input.
async fn import(options: &Options, recording: &Recording) -> Result<ExitStatus> {
    let mut command = Command::new(built_binary(&options.binary)?);
    command.args(["import", "-", "--url", &options.url]).stdin(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", options.binary.display()))?;
    let stdin = child.stdin.take().context("the import has no standard input")?;
    // An import that has failed reads no more; its exit status says so.
    let _ = write_commands(stdin, recording).await;
    child.wait().await.context("cannot wait for the import")
}

async fn write_commands(stdin: ChildStdin, recording: &Recording) -> std::io::Result<()> {
    let mut stdin = BufWriter::new(stdin);
    for command in recording.commands() {
        stdin.write_all(format!("{command}\n").as_bytes()).await?;
    }
    stdin.shutdown().await
}

/// Compares the transactions of one account with the file, in a view that has read the log up to `position`.
async fn check(passbook: Passbook, account: Account, position: String) -> Result<Vec<String>> {
    let path = format!("/v1/accounts/{}/transactions?limit=1000&min_position={position}", account.id());
    let (mut transactions, mut after) = (Vec::new(), String::new());
    loop {
        let response = passbook.get(&format!("{path}{after}")).await?;
        if !response.status.is_success() {
            return Ok(vec![format!("account {}: {}", account.number, response.problem())]);
        }
        let page: Page = response.read()?;
        transactions.extend(page.data);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    transactions.reverse();
    Ok(compare(&account, &transactions))
}

fn compare(account: &Account, transactions: &[Transaction]) -> Vec<String> {
    let mut mismatches = Vec::new();
    if transactions.len() != account.movements.len() {
        let (found, expected) = (transactions.len(), account.movements.len());
        mismatches.push(format!("account {}: {found} transactions, expected {expected}", account.number));
    }
    for (transaction, movement) in transactions.iter().zip(&account.movements) {
        if !transaction.is(movement) {
            mismatches.push(format!(
                "movement {} of account {}: {} of {} with the balance {}, expected the balance {}",
                movement.trans_id,
                account.number,
                transaction.kind,
                transaction.amount,
                transaction.balance_after,
                movement.balance_minor
            ));
        }
    }
    mismatches
}

impl Transaction {
    fn is(&self, movement: &Movement) -> bool {
        let kind = if movement.delta_minor > 0 { "deposit" } else { "withdrawal" };
        self.kind == kind
            && self.amount == movement.delta_minor.unsigned_abs()
            && self.balance_after == movement.balance_minor
            && self.reference.as_ref() == Some(&movement.date)
    }
}

fn print_mismatches(mismatches: &[String]) {
    println!("mismatches: {}", grouped(mismatches.len() as u64));
    for mismatch in mismatches.iter().take(MISMATCHES_SHOWN_MAX) {
        println!("  {mismatch}");
    }
    if mismatches.len() > MISMATCHES_SHOWN_MAX {
        println!("  … and {} more", mismatches.len() - MISMATCHES_SHOWN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_the_movement_and_both_balances() {
        let movement = |trans_id: &str, delta: i64, balance: u64| {
            let line = serde_json::json!({
                "date": "930101", "trans_id": trans_id, "account": "7", "delta_minor": delta, "balance_minor": balance,
            });
            serde_json::from_value::<Movement>(line).expect("a movement")
        };
        let account =
            Account { number: "7".to_owned(), movements: vec![movement("1", 500, 500), movement("2", -100, 400)] };
        let transaction = |kind: &str, amount, balance_after| Transaction {
            kind: kind.to_owned(),
            amount,
            balance_after,
            reference: Some("930101".to_owned()),
        };
        let first = || transaction("deposit", 500, 500);
        assert!(compare(&account, &[first(), transaction("withdrawal", 100, 400)]).is_empty());
        assert_eq!(
            compare(&account, &[first(), transaction("withdrawal", 100, 300)]),
            ["movement 2 of account 7: withdrawal of 100 with the balance 300, expected the balance 400"]
        );
        assert_eq!(compare(&account, &[first()]), ["account 7: 1 transactions, expected 2"]);
    }
}
