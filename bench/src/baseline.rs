//! The baseline of each measurement: pgbench on the Postgres that the service uses, with bare tables of the same shape.
//!
//! Commands are compared with one event per transaction, queries with a select by key. Reports give Passbook's rate as a
//! ratio to the baseline, because absolute figures depend mostly on the machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::latency::{Latencies, LoadSummary};
use crate::postgres::Postgres;
use crate::process;
use crate::row_length::RowLength;

pub const TABLES: &str = include_str!("../sql/tables.sql");
pub const APPEND: &str = include_str!("../sql/append.sql");
pub const SELECT: &str = include_str!("../sql/select.sql");
const DATABASE: &str = "baseline";
/// The transactions of each client in the short form.
const SHORT_TRANSACTIONS: &str = "50";

/// The pgbench workloads, named by statement and number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Baseline {
    #[serde(rename = "append_by_1")]
    AppendBy1,
    #[serde(rename = "append_by_64")]
    AppendBy64,
    #[serde(rename = "select_by_1")]
    SelectBy1,
    #[serde(rename = "select_by_32")]
    SelectBy32,
}

impl Baseline {
    pub const ALL: [Self; 4] = [Self::AppendBy1, Self::AppendBy64, Self::SelectBy1, Self::SelectBy32];

    pub fn name(self) -> &'static str {
        match self {
            Self::AppendBy1 | Self::AppendBy64 => "pgbench: one event per transaction",
            Self::SelectBy1 | Self::SelectBy32 => "pgbench: select by key",
        }
    }

    pub fn clients(self) -> u32 {
        match self {
            Self::AppendBy1 | Self::SelectBy1 => 1,
            Self::AppendBy64 => 64,
            Self::SelectBy32 => 32,
        }
    }

    /// Whether the workload writes, as opposed to reading.
    pub fn is_append(self) -> bool {
        match self {
            Self::AppendBy1 | Self::AppendBy64 => true,
            Self::SelectBy1 | Self::SelectBy32 => false,
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::AppendBy1 | Self::AppendBy64 => APPEND,
            Self::SelectBy1 | Self::SelectBy32 => SELECT,
        }
    }
}

/// Runs pgbench in a separate database of the service's Postgres.
pub struct Pgbench {
    pub postgres: Postgres,
    folder: PathBuf,
}

impl Pgbench {
    /// Creates the database. pgbench's scripts and logs go into a subfolder of `folder`.
    pub async fn new(postgres: Postgres, folder: &Path) -> Result<Self> {
        let folder = folder.join("pgbench");
        fs::create_dir(&folder).context("cannot create the folder for pgbench")?;
        postgres.create(DATABASE).await?;
        Ok(Self { postgres, folder })
    }

    /// Creates the tables anew.
    pub async fn create_tables(&self) -> Result<()> {
        let tables = self.folder.join("tables.sql");
        fs::write(&tables, TABLES).context("cannot write tables.sql")?;
        self.postgres.psql(DATABASE, &["--file", &tables.to_string_lossy()]).await.map(drop)
    }

    /// Executes statements in the database of the baseline, all of them in one transaction.
    pub async fn execute(&self, statements: &str) -> Result<()> {
        self.postgres.psql(DATABASE, &["--command", statements]).await.map(drop)
    }

    /// Creates the tables anew and runs one workload.
    pub async fn measure(&self, baseline: Baseline, length: RowLength) -> Result<LoadSummary> {
        let script = self.folder.join("script.sql");
        fs::write(&script, baseline.script()).context("cannot write script.sql")?;
        self.create_tables().await?;
        let log = format!("log-of-{}", baseline.clients());
        let clients = length.connections(baseline.clients()).to_string();
        let seconds = length.seconds().to_string();
        let duration = length.choose(["--time", &seconds], ["--transactions", SHORT_TRANSACTIONS]);
        let output = process::run(
            self.postgres
                .command("pgbench")
                .current_dir(&self.folder)
                .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "1"])
                .args(["--client", &clients])
                .args(duration)
                .args(["--log", "--log-prefix", &log, "--file"])
                .arg(&script)
                .arg(DATABASE),
        )
        .await?;
        self.summarize(&output, &log)
    }

    fn summarize(&self, output: &str, log: &str) -> Result<LoadSummary> {
        let per_second = tps(output).with_context(|| format!("pgbench printed no tps: {output}"))?;
        let mut latencies = Latencies::new()?;
        let mut requests = 0;
        for entry in fs::read_dir(&self.folder).context("cannot read pgbench's folder")? {
            let path = entry.context("cannot read pgbench's folder")?.path();
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(log)) {
                continue;
            }
            let text = fs::read_to_string(&path).context("cannot read pgbench's log")?;
            for latency in text.lines().filter_map(latency_us) {
                latencies.record_us(latency);
                requests += 1;
            }
            fs::remove_file(&path).context("cannot remove pgbench's log")?;
        }
        ensure!(requests > 0, "pgbench logged no transaction");
        Ok(LoadSummary {
            requests,
            per_second,
            p50_ms: latencies.percentile_ms(50.0),
            p99_ms: latencies.percentile_ms(99.0),
            refused: 0,
            broken: 0,
        })
    }
}

fn tps(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The latency of a transaction, which is the third field of a line in pgbench's log.
fn latency_us(line: &str) -> Option<u64> {
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{latency_us, tps};

    #[test]
    fn the_rate_is_parsed_from_pgbench_output() {
        let output = "number of transactions actually processed: 9\nlatency average = 0.4 ms\n\
                      tps = 2356.250000 (without initial connection time)\n";
        assert_eq!(tps(output), Some(2356.25));
        assert_eq!(tps("pgbench: error"), None);
    }

    #[test]
    fn a_latency_is_the_third_field_of_a_log_line() {
        assert_eq!(latency_us("0 199 2241 0 1175850568 995598"), Some(2241));
        assert_eq!(latency_us("0 201 failed 0 1175850569 2"), None);
    }
}
