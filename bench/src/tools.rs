//! The programs of others that `bench` calls: wrk, psql, pgbench, git.
//!
//! Each runs in a process group of its own, so that Ctrl-C reaches `bench` alone, which then stops
//! what it started; a call that is given up takes its program with it.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

pub fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|p| p.is_file())
}

/// Runs a program to its end and gives what it printed.
pub async fn output(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("cannot start {name}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a program says, where it is there and succeeds.
pub async fn said(program: &str, arguments: &[&str]) -> Option<String> {
    output(Command::new(program).args(arguments)).await.ok().filter(|text| !text.is_empty())
}
