//! Runs `passbook verify` beside the running service, and measures its speed and memory.

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::interval;

use crate::resource_usage::memory;
use crate::service::Service;

const MEMORY_POLL_MS: u64 = 20;

#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    pub events: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// The greatest resident memory of the command, read until shortly before its end.
    pub high_water_kib: Option<u64>,
}

/// The output of `passbook verify --json`.
#[derive(Deserialize)]
struct Output {
    position: String,
    seconds: f64,
}

/// Verifies the whole log. Fails if the log has a flaw.
pub async fn measure(service: &Service) -> Result<Verification> {
    eprintln!("verifying the log");
    let mut command = service.command("verify");
    command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = command.process_group(0).kill_on_drop(true).spawn().context("cannot start `passbook verify`")?;
    let pid = process.id().context("the process has no id")?;
    let mut output = pin!(process.wait_with_output());
    let mut ticks = interval(Duration::from_millis(MEMORY_POLL_MS));
    let mut high_water_kib = None;
    let output = loop {
        tokio::select! {
            output = &mut output => break output.context("cannot wait for `passbook verify`")?,
            _ = ticks.tick() => high_water_kib = memory(pid).map(|memory| memory.high_water_kib).or(high_water_kib),
        }
    };
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`passbook verify` failed ({}): {printed}{errors}", output.status);
    let Output { position, seconds } =
        serde_json::from_str(&printed).context("cannot parse the output of `passbook verify --json`")?;
    let events: u64 = position.parse().context("a position is a number")?;
    Ok(Verification { events, seconds, per_second: events as f64 / seconds, high_water_kib })
}
