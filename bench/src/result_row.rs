//! One row of the result tables: a closed loop with a fixed number of connections, and its figures.

use serde::Serialize;

use crate::baseline::Baseline;
use crate::latency::LoadSummary;
use crate::projections::Lag;
use crate::resource_usage::{CpuPerCommand, Memory};
use crate::table::{aligned, grouped, or_dash, rate};

const HEAD: [&str; 11] = [
    "row",
    "connections",
    "commands/s",
    "p50 ms",
    "p99 ms",
    "× baseline",
    "lag at end",
    "commands/commit",
    "CPU µs/command service / Postgres",
    "WAL bytes/command",
    "RSS MiB",
];

/// The system that a row measures. The serialized names are those of `docs/benchmarks*.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    #[serde(rename = "yardstick")]
    Baseline,
    Passbook,
    Peer,
}

/// The figures of one row.
#[derive(Clone, Debug, Serialize)]
pub struct ResultRow {
    pub name: String,
    #[serde(rename = "measured")]
    pub target: Target,
    pub connections: u32,
    #[serde(rename = "yardstick")]
    pub baseline: Baseline,
    #[serde(flatten)]
    pub load: LoadSummary,
    /// Successful responses per second divided by the baseline's mean.
    pub ratio: Option<f64>,
    pub lag: Option<Lag>,
    /// Commands divided by the number of transactions that wrote their events.
    pub commands_per_commit: Option<f64>,
    pub cpu: Option<CpuPerCommand>,
    /// The WAL of a command, with that of the projections; `None` for reads.
    pub wal_bytes_per_command: Option<f64>,
    pub memory: Option<Memory>,
}

impl ResultRow {
    /// Whether the row has errors. Refusals by the peer do not count: it has no queue, so concurrent commands on one
    /// account conflict.
    pub fn failed(&self) -> bool {
        self.load.broken > 0 || self.load.refused > 0 && self.target != Target::Peer
    }

    /// Whether one client sent this query again and again, so that its latency is of interest rather than its rate.
    pub fn is_query(&self) -> bool {
        self.baseline == Baseline::SelectBy1 && self.load.p50_ms.is_finite()
    }

    fn cells(&self) -> [String; 11] {
        [
            format!("{}{}", self.name, error_note(&[("refused", self.load.refused), ("broken", self.load.broken)])),
            self.connections.to_string(),
            rate(self.load.per_second),
            latency_cell(self.load.p50_ms),
            latency_cell(self.load.p99_ms),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.2}"))),
            or_dash(self.lag.as_ref().map(lag_cell)),
            or_dash(self.commands_per_commit.map(|commands| format!("{commands:.1}"))),
            or_dash(self.cpu.as_ref().map(CpuPerCommand::cell)),
            or_dash(self.wal_bytes_per_command.map(rate)),
            or_dash(self.memory.map(|memory| grouped(memory.rss_kib / 1024))),
        ]
    }
}

/// Sets the ratio of each row to the mean of its baseline, which is also among the rows.
pub fn set_ratios(rows: &mut [ResultRow]) {
    for baseline in Baseline::ALL {
        let measured = rows.iter().filter(|row| row.target == Target::Baseline && row.baseline == baseline);
        let rates: Vec<f64> = measured.map(|row| row.load.per_second).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        for row in rows.iter_mut().filter(|row| row.baseline == baseline) {
            row.ratio = Some(row.load.per_second / mean).filter(|ratio| ratio.is_finite());
        }
    }
}

pub fn table(rows: &[ResultRow]) -> String {
    aligned(HEAD, &rows.iter().map(ResultRow::cells).collect::<Vec<_>>())
}

/// The non-zero error counts, to append to a row's name: ` **3 broken**`. Empty if all counts are zero.
pub fn error_note(counted: &[(&str, u64)]) -> String {
    let errors = counted.iter().filter(|(_, count)| *count > 0);
    let errors: Vec<_> = errors.map(|(name, count)| format!("{} {name}", grouped(*count))).collect();
    if errors.is_empty() { String::new() } else { format!(" **{}**", errors.join(", ")) }
}

/// A latency in milliseconds. An import has none, which is NaN.
fn latency_cell(ms: f64) -> String {
    or_dash(Some(ms).filter(|ms| ms.is_finite()).map(|ms| format!("{ms:.2}")))
}

fn lag_cell(lag: &Lag) -> String {
    match lag.events {
        0 => "0".to_owned(),
        events => format!("{} ({:.0} ms)", grouped(events), lag.caught_up_after_ms),
    }
}

#[cfg(test)]
pub mod tests {
    use super::{ResultRow, Target, error_note, set_ratios, table};
    use crate::baseline::Baseline;
    use crate::latency::LoadSummary;

    pub fn row(target: Target, connections: u32, per_second: f64) -> ResultRow {
        ResultRow {
            name: "deposits".to_owned(),
            target,
            connections,
            baseline: Baseline::AppendBy64,
            load: LoadSummary { requests: 10, per_second, p50_ms: 1.0, p99_ms: 2.0, refused: 0, broken: 0 },
            ratio: None,
            lag: None,
            commands_per_commit: None,
            cpu: None,
            wal_bytes_per_command: None,
            memory: None,
        }
    }

    #[test]
    fn a_ratio_is_relative_to_the_mean_of_the_baseline() {
        let mut rows =
            [row(Target::Baseline, 64, 100.0), row(Target::Passbook, 128, 300.0), row(Target::Baseline, 64, 200.0)];
        set_ratios(&mut rows);
        assert_eq!(rows[1].ratio, Some(2.0));
    }

    #[test]
    fn a_row_without_its_baseline_has_no_ratio() {
        let mut rows = [row(Target::Passbook, 128, 300.0)];
        set_ratios(&mut rows);
        assert_eq!(rows[0].ratio, None);
        assert!(table(&rows).lines().nth(2).is_some_and(|line| line.contains(" 300 | ") && line.contains(" – |")));
    }

    #[test]
    fn a_refusal_fails_a_row_of_passbook_but_not_of_the_peer() {
        let refused = |target| {
            let mut row = row(target, 128, 1.0);
            row.load.refused = 1;
            row.failed()
        };
        assert!(refused(Target::Passbook));
        assert!(!refused(Target::Peer));
    }

    #[test]
    fn the_error_note_lists_the_non_zero_counts() {
        assert_eq!(error_note(&[("refused", 0), ("broken", 0)]), "");
        assert_eq!(error_note(&[("refused", 1_200), ("broken", 3)]), " **1 200 refused, 3 broken**");
    }
}
