//! The report of `bench grow`: the figures of the small and the large log side by side, then every row.

use std::fmt::Write;

use serde::Serialize;

use crate::machine::Machine;
use crate::rebuild::Rebuild;
use crate::report::median;
use crate::resource_usage::Memory;
use crate::result_row::{self, ResultRow, Target};
use crate::table::{aligned, grouped, or_dash, rate};

const HEAD: [&str; 5] = ["figure", "small log", "large log", "large / small", "baseline large / small"];

/// The figures of one run. The serialized names are those of `docs/benchmarks-grow.json`.
#[derive(Serialize)]
pub struct LargeLogReport {
    pub machine: Machine,
    pub seconds_per_row: u32,
    pub small: PhaseResults,
    /// Deposits over all accounts, most of them not in the account cache, before the log is filled.
    pub many_accounts: Vec<ResultRow>,
    /// The service's memory after these deposits.
    pub memory: Option<Memory>,
    pub large: PhaseResults,
}

/// The figures of the log in one size.
#[derive(Serialize)]
pub struct PhaseResults {
    /// The length of the log before the rows.
    pub events: u64,
    pub accounts: u32,
    pub rows: Vec<ResultRow>,
    /// Of each projection, then of all at once.
    pub rebuilds: Vec<Rebuild>,
    pub verified_per_second: f64,
    /// In ascending order.
    pub starts_ms: Vec<f64>,
}

impl LargeLogReport {
    /// Whether any row has errors.
    pub fn failed(&self) -> bool {
        [&self.small.rows, &self.many_accounts, &self.large.rows].into_iter().flatten().any(ResultRow::failed)
    }

    /// The tables and notes for `docs/benchmarks.md`.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}, {} s per row.\n\n", self.machine.line(), self.seconds_per_row);
        let _ = writeln!(text, "Small: {}. Large: {}.\n", self.small.title(), self.large.title());
        text.push_str(&aligned(HEAD, &self.figures()));
        let _ = writeln!(
            text,
            "\nEach row was measured between two runs of its baseline on the same log. The last column shows how much of \
             a change is due to the machine.\n\nOn the small log:\n\n{}",
            result_row::table(&self.small.rows)
        );
        let _ = writeln!(text, "With {} accounts:\n", grouped(self.large.accounts.into()));
        text.push_str(&result_row::table(&self.many_accounts));
        if let Some(memory) = self.memory {
            let (now, most) = (grouped(memory.rss_kib / 1024), grouped(memory.high_water_kib / 1024));
            let _ = writeln!(
                text,
                "\nAfter these rows the service's resident memory was {now} MiB, with a maximum of {most} MiB."
            );
        }
        let _ = write!(text, "\nOn the large log:\n\n{}", result_row::table(&self.large.rows));
        text
    }

    /// The rows of the comparison table.
    fn figures(&self) -> Vec<[String; 5]> {
        let passbook = self.small.rows.iter().filter(|row| row.target == Target::Passbook);
        let rows = passbook.flat_map(|small| {
            let large = self.large.rows.iter().find(|large| large.name == small.name && large.target == small.target);
            let baselines = self.small.baseline_mean(small).zip(self.large.baseline_mean(small));
            let baseline_ratio = baselines.map(|(small, large)| large / small);
            let large = large.map(|large| &large.load);
            let throughput = large.map(|large| {
                let name = format!("{}, requests/s", small.name);
                figure(name, small.load.per_second, large.per_second, rate, baseline_ratio)
            });
            let tail = large.map(|large| {
                let name = format!("{}, p99 ms", small.name);
                figure(name, small.load.p99_ms, large.p99_ms, |ms| format!("{ms:.2}"), None)
            });
            [throughput, tail].into_iter().flatten()
        });
        let (small, large) = (&self.small, &self.large);
        let rebuilds = small.rebuilds.iter().filter_map(|small| {
            let large = large.rebuilds.iter().find(|large| large.projection == small.projection)?;
            let name = format!("rebuild of {}, events/s", small.projection);
            Some(figure(name, small.per_second, large.per_second, rate, None))
        });
        rows.chain(rebuilds)
            .chain([
                figure("start to ready, ms", median(&small.starts_ms), median(&large.starts_ms), rate, None),
                figure("verify, events/s", small.verified_per_second, large.verified_per_second, rate, None),
            ])
            .collect()
    }
}

impl PhaseResults {
    fn title(&self) -> String {
        let (events, accounts) = (grouped(self.events), grouped(self.accounts.into()));
        format!("{events} events before its rows, {accounts} accounts")
    }

    /// The mean rate of a row's baseline.
    fn baseline_mean(&self, row: &ResultRow) -> Option<f64> {
        let by = |measured: &&ResultRow| measured.target == Target::Baseline && measured.baseline == row.baseline;
        let rates: Vec<f64> = self.rows.iter().filter(by).map(|row| row.load.per_second).collect();
        (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
    }
}

fn figure(
    name: impl Into<String>,
    small: f64,
    large: f64,
    shown: fn(f64) -> String,
    baseline_ratio: Option<f64>,
) -> [String; 5] {
    let ratio = |ratio: f64| format!("{ratio:.2}");
    [name.into(), shown(small), shown(large), ratio(large / small), or_dash(baseline_ratio.map(ratio))]
}

#[cfg(test)]
mod tests {
    use super::{LargeLogReport, PhaseResults};
    use crate::machine::Machine;
    use crate::rebuild::tests::rebuild;
    use crate::result_row::Target;
    use crate::result_row::tests::row;

    fn phase(events: u64, per_second: f64) -> PhaseResults {
        PhaseResults {
            events,
            accounts: 5_000,
            rows: vec![row(Target::Baseline, 64, per_second / 2.0), row(Target::Passbook, 128, per_second)],
            rebuilds: vec![rebuild(events, per_second)],
            verified_per_second: per_second,
            starts_ms: vec![1.0, 2.0, 3.0],
        }
    }

    #[test]
    fn a_figure_of_the_large_log_is_divided_by_that_of_the_small_log() {
        let report = LargeLogReport {
            machine: Machine::default(),
            seconds_per_row: 1,
            small: phase(1_000, 20_000.0),
            many_accounts: Vec::new(),
            memory: None,
            large: phase(100_000, 15_000.0),
        };
        let figures = report.figures();
        assert_eq!(figures[0], ["deposits, requests/s", "20 000", "15 000", "0.75", "0.75"].map(str::to_owned));
        assert_eq!(figures[3], ["start to ready, ms", "2", "2", "1.00", "–"].map(str::to_owned));
        assert!(!report.failed());
    }
}
