//! Runs wrk, the HTTP load generator, with its Lua scripts.
//!
//! wrk runs with one thread, because it shares the machine's cores with the service and Postgres. The scripts are embedded
//! in this binary and written into the service's folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::process::Command;

use crate::latency::LoadSummary;
use crate::process;

/// The scripts by file name, `common.lua` first.
pub const SCRIPTS: [(&str, &str); 15] = [
    ("common.lua", include_str!("../lua/common.lua")),
    ("batches.lua", include_str!("../lua/batches.lua")),
    ("batches_each.lua", include_str!("../lua/batches_each.lua")),
    ("batches_minimal.lua", include_str!("../lua/batches_minimal.lua")),
    ("batches_atomic.lua", include_str!("../lua/batches_atomic.lua")),
    ("batches_of_transfers.lua", include_str!("../lua/batches_of_transfers.lua")),
    ("deposits.lua", include_str!("../lua/deposits.lua")),
    ("deposits_read.lua", include_str!("../lua/deposits_read.lua")),
    ("deposits_spread.lua", include_str!("../lua/deposits_spread.lua")),
    ("deposits_with_key.lua", include_str!("../lua/deposits_with_key.lua")),
    ("deposits_with_token.lua", include_str!("../lua/deposits_with_token.lua")),
    ("deposits_to_one.lua", include_str!("../lua/deposits_to_one.lua")),
    ("holds.lua", include_str!("../lua/holds.lua")),
    ("transfers.lua", include_str!("../lua/transfers.lua")),
    ("reads.lua", include_str!("../lua/reads.lua")),
];

pub struct Wrk {
    program: PathBuf,
    scripts: PathBuf,
}

/// The summary that `done` in `common.lua` prints.
#[derive(Deserialize)]
struct Summary {
    requests: u64,
    microseconds: u64,
    p50_us: f64,
    p99_us: f64,
    refused: u64,
    broken: u64,
}

/// Finds wrk on PATH.
pub fn find() -> Result<PathBuf> {
    process::on_path("wrk")
        .context("wrk is not on PATH; install it with `apt-get install wrk` (Debian, Ubuntu) or `brew install wrk`")
}

impl Wrk {
    /// Writes the scripts into a subfolder of `folder`.
    pub fn new(program: PathBuf, folder: &Path) -> Result<Self> {
        let scripts = folder.join("lua");
        fs::create_dir(&scripts).context("cannot create the folder for the scripts")?;
        for (name, text) in SCRIPTS {
            fs::write(scripts.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(Self { program, scripts })
    }

    /// Writes a file that a script reads into the folder of the scripts.
    pub fn add_file(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.scripts.join(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// Runs a script against `url`. Only `deposits_spread.lua` reads `accounts`.
    pub async fn run(
        &self,
        script: &str,
        accounts: u32,
        connections: u32,
        seconds: u32,
        url: &str,
    ) -> Result<LoadSummary> {
        let output = process::run(
            Command::new(&self.program)
                .current_dir(&self.scripts)
                .args(["--threads", "1", "--timeout", "30s", "--script", script])
                .args(["--connections", &connections.to_string()])
                .args(["--duration", &format!("{seconds}s")])
                .args([url, "--", &accounts.to_string()]),
        )
        .await?;
        parse_summary(&output)
    }
}

fn parse_summary(output: &str) -> Result<LoadSummary> {
    let line = output.lines().rev().find(|line| line.starts_with('{'));
    let summary: Summary = serde_json::from_str(line.context("wrk printed no summary")?)
        .with_context(|| format!("cannot parse wrk's summary: {output}"))?;
    Ok(LoadSummary {
        requests: summary.requests,
        per_second: summary.requests.saturating_sub(summary.refused) as f64 * 1e6 / summary.microseconds.max(1) as f64,
        p50_ms: summary.p50_us / 1000.0,
        p99_ms: summary.p99_us / 1000.0,
        refused: summary.refused,
        broken: summary.broken,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_summary;

    #[test]
    fn the_summary_is_the_last_line_that_begins_with_a_brace() {
        let text = "Running 10s test\n{\"requests\":1000,\"microseconds\":500000,\"p50_us\":1500,\
                    \"p99_us\":9000,\"refused\":2,\"broken\":1}\n";
        let load = parse_summary(text).expect("a summary");
        assert_eq!((load.requests, load.refused, load.broken), (1000, 2, 1));
        assert!((load.per_second - 1996.0).abs() < 0.001);
        assert!((load.p99_ms - 9.0).abs() < 0.001);
    }
}
