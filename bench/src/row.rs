//! One row: a closed loop of so many connections, and what it came to.

use serde::Serialize;

use crate::process::{CpuPerCommand, Memory};
use crate::projections::Lag;
use crate::table::{aligned, grouped, or_dash, rate};
use crate::yardstick::Yardstick;

const HEAD: [&str; 10] = [
    "row",
    "connections",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "× yardstick",
    "lag at end",
    "commands a commit",
    "CPU µs/command service / Postgres",
    "RSS MiB",
];

/// What a load generator saw: `refused` answers were no success, `broken` connections no answer.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    pub requests: u64,
    /// Answers that were a success.
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub refused: u64,
    pub broken: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    Yardstick,
    Passbook,
    Peer,
}

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub measured: Measured,
    pub connections: u32,
    pub yardstick: Yardstick,
    #[serde(flatten)]
    pub load: Load,
    /// Successes per second in proportion to the yardstick's mean.
    pub ratio: Option<f64>,
    pub lag: Option<Lag>,
    /// Requests by the number of transactions that wrote their events.
    pub commands_per_commit: Option<f64>,
    pub cpu: Option<CpuPerCommand>,
    pub memory: Option<Memory>,
}

impl Row {
    /// A peer may refuse: it has no queue in which those who want the same account wait.
    pub fn failed(&self) -> bool {
        self.load.broken > 0 || self.load.refused > 0 && self.measured != Measured::Peer
    }

    fn cells(&self) -> [String; 10] {
        [
            format!("{}{}", self.name, troubles(&[("refused", self.load.refused), ("broken", self.load.broken)])),
            self.connections.to_string(),
            rate(self.load.per_second),
            format!("{:.2}", self.load.p50_ms),
            format!("{:.2}", self.load.p99_ms),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.2}"))),
            or_dash(self.lag.as_ref().map(lag_cell)),
            or_dash(self.commands_per_commit.map(|commands| format!("{commands:.1}"))),
            or_dash(self.cpu.as_ref().map(CpuPerCommand::cell)),
            or_dash(self.memory.map(|memory| grouped(memory.rss_kib / 1024))),
        ]
    }
}

/// Sets each row in proportion to the mean of its yardstick among them.
pub fn compare(rows: &mut [Row]) {
    for yardstick in Yardstick::ALL {
        let measured = rows.iter().filter(|row| row.measured == Measured::Yardstick && row.yardstick == yardstick);
        let rates: Vec<f64> = measured.map(|row| row.load.per_second).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        for row in rows.iter_mut().filter(|row| row.yardstick == yardstick) {
            row.ratio = Some(row.load.per_second / mean).filter(|ratio| ratio.is_finite());
        }
    }
}

pub fn table(rows: &[Row]) -> String {
    aligned(HEAD, &rows.iter().map(Row::cells).collect::<Vec<_>>())
}

/// What went wrong, behind a row's name, where anything did.
pub fn troubles(counted: &[(&str, u64)]) -> String {
    let told = counted.iter().filter(|(_, count)| *count > 0);
    let told: Vec<_> = told.map(|(what, count)| format!("{} {what}", grouped(*count))).collect();
    if told.is_empty() { String::new() } else { format!(" **{}**", told.join(", ")) }
}

fn lag_cell(lag: &Lag) -> String {
    match lag.events {
        0 => "0".to_owned(),
        events => format!("{} ({:.0} ms)", grouped(events), lag.caught_up_after_ms),
    }
}

#[cfg(test)]
pub mod tests {
    use super::{Load, Measured, Row, compare, table, troubles};
    use crate::yardstick::Yardstick;

    pub fn row(measured: Measured, connections: u32, per_second: f64) -> Row {
        Row {
            name: "deposits".to_owned(),
            measured,
            connections,
            yardstick: Yardstick::AppendBy64,
            load: Load { requests: 10, per_second, p50_ms: 1.0, p99_ms: 2.0, refused: 0, broken: 0 },
            ratio: None,
            lag: None,
            commands_per_commit: None,
            cpu: None,
            memory: None,
        }
    }

    #[test]
    fn rows_stand_in_proportion_to_the_mean_of_their_yardstick() {
        let mut rows = [
            row(Measured::Yardstick, 64, 100.0),
            row(Measured::Passbook, 128, 300.0),
            row(Measured::Yardstick, 64, 200.0),
        ];
        compare(&mut rows);
        assert_eq!(rows[1].ratio, Some(2.0));
    }

    #[test]
    fn a_row_without_its_yardstick_has_no_ratio() {
        let mut rows = [row(Measured::Passbook, 128, 300.0)];
        compare(&mut rows);
        assert_eq!(rows[0].ratio, None);
        assert!(table(&rows).lines().nth(2).is_some_and(|line| line.contains(" 300 | ") && line.contains(" – |")));
    }

    #[test]
    fn a_refusal_is_a_failure_of_ours_and_not_of_a_peer() {
        let refused = |measured| {
            let mut row = row(measured, 128, 1.0);
            row.load.refused = 1;
            row.failed()
        };
        assert!(refused(Measured::Passbook));
        assert!(!refused(Measured::Peer));
    }

    #[test]
    fn what_went_wrong_stands_behind_the_name() {
        assert_eq!(troubles(&[("refused", 0), ("broken", 0)]), "");
        assert_eq!(troubles(&[("refused", 1_200), ("broken", 3)]), " **1 200 refused, 3 broken**");
    }
}
