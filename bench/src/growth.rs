//! What `bench grow` measured: figures of a small and a large log side by side, and every row.

use std::fmt::Write;

use serde::Serialize;

use crate::machine::Machine;
use crate::process::Memory;
use crate::projections::CatchUp;
use crate::report::median;
use crate::row::{self, Measured, Row};
use crate::table::{aligned, grouped, or_dash, rate};

const HEAD: [&str; 5] = ["figure", "small log", "large log", "large / small", "yardstick large / small"];

#[derive(Serialize)]
pub struct Growth {
    pub machine: Machine,
    pub seconds_per_row: u32,
    pub small: Phase,
    /// Deposits over very many accounts, most of them not in memory, on a log that is not yet large.
    pub many_accounts: Vec<Row>,
    /// The service's memory after them.
    pub memory: Option<Memory>,
    pub large: Phase,
}

/// Everything that is measured on one log.
#[derive(Serialize)]
pub struct Phase {
    /// How long the log was before the rows.
    pub events: u64,
    pub accounts: u32,
    pub rows: Vec<Row>,
    pub catch_up: CatchUp,
    pub verified_per_second: f64,
    /// In ascending order.
    pub starts_ms: Vec<f64>,
}

impl Growth {
    pub fn failed(&self) -> bool {
        [&self.small.rows, &self.many_accounts, &self.large.rows].into_iter().flatten().any(Row::failed)
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("{}, {} s a row.\n\n", self.machine.line(), self.seconds_per_row);
        let _ = writeln!(text, "Small: {}. Large: {}.\n", self.small.title(), self.large.title());
        text.push_str(&aligned(HEAD, &self.figures()));
        let _ = writeln!(
            text,
            "\nEach row was measured between two passes of its yardstick on the same log; the last column says how much \
             of a change is the machine's.\n\nOn the small log:\n\n{}",
            row::table(&self.small.rows)
        );
        let _ = writeln!(text, "With {} accounts:\n", grouped(self.large.accounts.into()));
        text.push_str(&row::table(&self.many_accounts));
        if let Some(memory) = self.memory {
            let (now, most) = (grouped(memory.rss_kib / 1024), grouped(memory.high_water_kib / 1024));
            let _ = writeln!(text, "\nAfter them the service had {now} MiB, and {most} MiB at the most.");
        }
        let _ = write!(text, "\nOn the large log:\n\n{}", row::table(&self.large.rows));
        text
    }

    fn figures(&self) -> Vec<[String; 5]> {
        let ours = self.small.rows.iter().filter(|row| row.measured == Measured::Passbook);
        let rows = ours.flat_map(|small| {
            let large =
                self.large.rows.iter().find(|large| large.name == small.name && large.measured == small.measured);
            let yardsticks = self.small.yardstick(small).zip(self.large.yardstick(small));
            let of_yardstick = yardsticks.map(|(small, large)| large / small);
            let large = large.map(|large| &large.load);
            let throughput = large.map(|large| {
                let name = format!("{}, requests/s", small.name);
                figure(name, small.load.per_second, large.per_second, rate, of_yardstick)
            });
            let tail = large.map(|large| {
                let name = format!("{}, p99 ms", small.name);
                figure(name, small.load.p99_ms, large.p99_ms, |ms| format!("{ms:.2}"), None)
            });
            [throughput, tail].into_iter().flatten()
        });
        let (small, large) = (&self.small, &self.large);
        rows.chain([
            figure("start to ready, ms", median(&small.starts_ms), median(&large.starts_ms), rate, None),
            figure("rebuild, events/s", small.catch_up.per_second, large.catch_up.per_second, rate, None),
            figure("verify, events/s", small.verified_per_second, large.verified_per_second, rate, None),
        ])
        .collect()
    }
}

impl Phase {
    fn title(&self) -> String {
        let [before, after] = [self.events, self.catch_up.events].map(grouped);
        format!("{before} events before its rows and {after} after them, {} accounts", grouped(self.accounts.into()))
    }

    /// The mean of the yardstick that a row is measured by.
    fn yardstick(&self, row: &Row) -> Option<f64> {
        let by = |measured: &&Row| measured.measured == Measured::Yardstick && measured.yardstick == row.yardstick;
        let rates: Vec<f64> = self.rows.iter().filter(by).map(|row| row.load.per_second).collect();
        (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
    }
}

fn figure(
    name: impl Into<String>,
    small: f64,
    large: f64,
    shown: fn(f64) -> String,
    of_yardstick: Option<f64>,
) -> [String; 5] {
    let ratio = |ratio: f64| format!("{ratio:.2}");
    [name.into(), shown(small), shown(large), ratio(large / small), or_dash(of_yardstick.map(ratio))]
}

#[cfg(test)]
mod tests {
    use super::{CatchUp, Growth, Phase};
    use crate::machine::Machine;
    use crate::row::Measured;
    use crate::row::tests::row;

    fn phase(events: u64, per_second: f64) -> Phase {
        Phase {
            events,
            accounts: 5_000,
            rows: vec![row(Measured::Yardstick, 64, per_second / 2.0), row(Measured::Passbook, 128, per_second)],
            catch_up: CatchUp { events, seconds: 1.0, per_second },
            verified_per_second: per_second,
            starts_ms: vec![1.0, 2.0, 3.0],
        }
    }

    #[test]
    fn a_figure_of_the_large_log_stands_in_proportion_to_that_of_the_small_one() {
        let growth = Growth {
            machine: Machine::default(),
            seconds_per_row: 1,
            small: phase(1_000, 20_000.0),
            many_accounts: Vec::new(),
            memory: None,
            large: phase(100_000, 15_000.0),
        };
        let figures = growth.figures();
        assert_eq!(figures[0], ["deposits, requests/s", "20 000", "15 000", "0.75", "0.75"].map(str::to_owned));
        assert_eq!(figures[2], ["start to ready, ms", "2", "2", "1.00", "–"].map(str::to_owned));
        assert!(!growth.failed());
    }
}
