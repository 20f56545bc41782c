//! Sends many commands in batches, several at a time: the fastest way to fill a log over HTTP.
//!
//! The commands have no keys, so that the table of keys does not grow with the log. A batch that is repeated after a lost response
//! is executed twice.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::client::{Passbook, run_concurrently};
use crate::table::grouped;

/// The most commands that a batch may have.
const BATCH_COMMANDS: usize = 1_000;
pub const CONCURRENT_BATCHES: usize = 6;
/// A line shows the progress after so many commands.
const SHOWN_COMMANDS: u64 = 500_000;

#[derive(Deserialize)]
struct Response {
    results: Vec<CommandResult>,
}

#[derive(Deserialize)]
struct CommandResult {
    status: u16,
    code: Option<String>,
}

/// Executes commands in JSON. The order is kept only within a batch. Fails at the first command that is refused with another code
/// than `expected`.
pub async fn execute(
    passbook: &Passbook,
    mut commands: impl Iterator<Item = String>,
    expected: Option<&str>,
) -> Result<()> {
    let batches = std::iter::from_fn(|| {
        let batch: Vec<String> = commands.by_ref().take(BATCH_COMMANDS).collect();
        (!batch.is_empty()).then_some(batch)
    });
    let jobs = batches.map(|batch| {
        let passbook = passbook.clone();
        async move { send(&passbook, &batch).await }
    });
    let mut executed = 0;
    run_concurrently(CONCURRENT_BATCHES, jobs, |results| {
        let refused = results.iter().find(|result| result.status >= 400 && result.code.as_deref() != expected);
        if let Some(CommandResult { status, code }) = refused {
            anyhow::bail!("a command of a batch was refused: {status} {}", code.as_deref().unwrap_or_default());
        }
        let before = executed;
        executed += results.len() as u64;
        if before / SHOWN_COMMANDS < executed / SHOWN_COMMANDS {
            eprintln!("{} commands executed", grouped(executed));
        }
        Ok(())
    })
    .await
}

async fn send(passbook: &Passbook, commands: &[String]) -> Result<Vec<CommandResult>> {
    let response = passbook.execute_each(commands).await?;
    ensure!(response.status.is_success(), "POST /v1/batches: {}", response.problem());
    let Response { results } = response.read()?;
    ensure!(results.len() == commands.len(), "a batch of {} commands has {} results", commands.len(), results.len());
    Ok(results)
}
