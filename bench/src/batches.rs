//! Rows with batches: requests of 100 commands in each mode, and `passbook import` of a file. They count commands.

use std::fs;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::baseline::Baseline;
use crate::harness::{Harness, Workload, workload};
use crate::process;
use crate::projections::catch_up;
use crate::result_row::ResultRow;
use crate::seed::{ACCOUNTS, account_id};
use crate::service::Service;

const CONNECTIONS: u32 = 8;
/// The size of a batch. `batches.lua` contains the same number.
const COMMANDS: u32 = 100;

const WORKLOADS: [Workload; 4] = [
    batches("batches of 100 deposits, each", "batches_each.lua"),
    batches("batches of 100 deposits, each, minimal results", "batches_minimal.lua"),
    batches("batches of 100 deposits, atomic", "batches_atomic.lua"),
    batches("batches of 100 transfers, each", "batches_of_transfers.lua"),
];

/// The accounts of the import, behind those of the other rows, which may have many holds.
const IMPORT_ACCOUNTS: Range<u32> = ACCOUNTS + 1..ACCOUNTS + 1 + 100_000;
const SHORT_IMPORT_ACCOUNTS: Range<u32> = ACCOUNTS + 1..ACCOUNTS + 1 + 100;
const DEPOSITS_PER_ACCOUNT: u32 = 20;
const IMPORT_NAME: &str = "import of 2 000 000 deposits, 100 000 accounts";
/// Two deposits in a row are to accounts that are this far apart. A prime number, so that every account has its turn.
const ACCOUNT_STEP: u32 = 7_919;

const fn batches(name: &'static str, script: &'static str) -> Workload {
    Workload { commands_per_request: COMMANDS, ..workload(name, script, CONNECTIONS, Baseline::AppendBy64) }
}

/// Measures the requests with batches.
pub async fn measure(harness: &Harness, service: &mut Service) -> Result<Vec<ResultRow>> {
    let mut rows = Vec::new();
    for workload in &WORKLOADS {
        rows.push(harness.measure_passbook(workload, ACCOUNTS, service).await?);
    }
    Ok(rows)
}

/// Opens the accounts with one import, and measures another one with the deposits. Fails if a command is refused.
pub async fn measure_import(harness: &Harness, service: &mut Service) -> Result<ResultRow> {
    let accounts = harness.length.choose(IMPORT_ACCOUNTS, SHORT_IMPORT_ACCOUNTS);
    eprintln!("importing {} accounts", accounts.len());
    import(service, "accounts.ndjson", &openings(accounts.clone()))?.await?;
    catch_up(&harness.passbook).await?;

    eprintln!("{IMPORT_NAME}");
    let head = harness.passbook.head().await?;
    let commands = accounts.len() as u64 * u64::from(DEPOSITS_PER_ACCOUNT);
    let import = import(service, "deposits.ndjson", &deposits(accounts))?;
    let mut row = harness.measure_commands(IMPORT_NAME, 1, commands, service, import).await?;
    row.commands_per_commit = harness.commands_per_commit(commands, head).await?;
    Ok(row)
}

/// Prepares `passbook import` of these lines. The future returns the seconds from the start of the process to its end.
fn import(service: &Service, name: &str, lines: &str) -> Result<impl Future<Output = Result<f64>> + use<>> {
    let file = service.folder.join(name);
    fs::write(&file, lines).with_context(|| format!("cannot write {name}"))?;
    let mut command = service.command("import");
    command.arg(&file).args(["--url", &service.server.url]);
    Ok(async move {
        let started = Instant::now();
        process::run(&mut command).await?;
        Ok(started.elapsed().as_secs_f64())
    })
}

fn openings(accounts: Range<u32>) -> String {
    let line = |n| format!("{{\"command\":\"open\",\"account_id\":\"{}\",\"currency\":\"EUR\"}}\n", account_id(n));
    accounts.map(line).collect()
}

fn deposits(accounts: Range<u32>) -> String {
    let line = |n| format!("{{\"command\":\"deposit\",\"account_id\":\"{}\",\"amount\":1}}\n", account_id(n));
    deposit_accounts(accounts).map(line).collect()
}

/// The numbers of the accounts of the deposits, in their order.
fn deposit_accounts(accounts: Range<u32>) -> impl Iterator<Item = u32> {
    let count = accounts.end - accounts.start;
    (0..count * DEPOSITS_PER_ACCOUNT).map(move |n| accounts.start + (n % count * ACCOUNT_STEP) % count)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{DEPOSITS_PER_ACCOUNT, IMPORT_ACCOUNTS, deposit_accounts};

    #[test]
    fn the_import_has_as_many_deposits_to_each_account() {
        let mut deposits: HashMap<u32, u32> = HashMap::new();
        deposit_accounts(IMPORT_ACCOUNTS).for_each(|account| *deposits.entry(account).or_default() += 1);
        assert!(IMPORT_ACCOUNTS.into_iter().all(|account| deposits.get(&account) == Some(&DEPOSITS_PER_ACCOUNT)));
        assert_eq!(deposits.len(), IMPORT_ACCOUNTS.len());
    }
}
