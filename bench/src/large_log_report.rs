//! The report of `bench grow`: the figures of the small and the large log side by side, then every row.

use std::fmt::Write;

use serde::Serialize;

use crate::comparison::{self, Figure};
use crate::large_log_figures::Phases;
use crate::large_log_phase::PhaseResults;
use crate::machine::Machine;
use crate::resource_usage::Memory;
use crate::result_row::{self, ResultRow};
use crate::table::grouped;

/// The figures of one run. The serialized names are those of `docs/benchmarks-grow.json`.
#[derive(Serialize)]
pub struct LargeLogReport {
    machine: Machine,
    seconds_per_row: u32,
    figures: Vec<Figure>,
    small: PhaseResults,
    many_accounts: ManyAccounts,
    large: PhaseResults,
}

/// Deposits over all accounts, most of them not in the account cache, before the log is filled.
#[derive(Serialize)]
pub struct ManyAccounts {
    pub rows: Vec<ResultRow>,
    /// The service's memory after these deposits.
    pub memory: Option<Memory>,
}

impl LargeLogReport {
    pub fn new(
        machine: Machine,
        seconds_per_row: u32,
        small: PhaseResults,
        many_accounts: ManyAccounts,
        large: PhaseResults,
    ) -> Self {
        let figures = Phases([&small, &large]).figures();
        Self { machine, seconds_per_row, figures, small, many_accounts, large }
    }

    /// Whether any row has errors.
    pub fn failed(&self) -> bool {
        self.small.all_rows().chain(&self.many_accounts.rows).chain(self.large.all_rows()).any(ResultRow::failed)
    }

    /// The tables and notes for `docs/benchmarks.md`.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}, {} s per row.\n\n", self.machine.line(), self.seconds_per_row);
        let _ = writeln!(text, "Small: {}. Large: {}.\n", title(&self.small), title(&self.large));
        text.push_str(&comparison::table(&self.figures));
        text.push_str(
            "\nEach figure was measured between two runs of its baseline on the same log. The last column is the ratio as it \
             would be if the baseline had been as fast on both logs. Rates should be above 1 there, times below. The baseline \
             of a rebuild is an insertion of many events by one statement, that of verify and of a start are hashes of these \
             events.\n\nBytes on disk, after the rows and before the rebuilds:\n\n",
        );
        text.push_str(&Phases([&self.small, &self.large]).size_table());
        self.write_rows(&mut text, "On the small log", self.small.all_rows());
        let accounts = format!("With {} accounts, before the fill", grouped(self.large.accounts.into()));
        self.write_rows(&mut text, &accounts, self.many_accounts.rows.iter());
        if let Some(memory) = self.many_accounts.memory {
            let (now, most) = (grouped(memory.rss_kib / 1024), grouped(memory.high_water_kib / 1024));
            let _ = writeln!(
                text,
                "\nAfter these rows the service's resident memory was {now} MiB, with a maximum of {most} MiB."
            );
        }
        self.write_rows(&mut text, "On the large log", self.large.all_rows());
        for rebuild in &self.large.rebuilds {
            let _ = writeln!(text, "- Rebuild of {} on the large log: {}.", rebuild.projection, rebuild.line());
        }
        text
    }

    fn write_rows<'a>(&self, text: &mut String, title: &str, rows: impl Iterator<Item = &'a ResultRow>) {
        let rows: Vec<ResultRow> = rows.cloned().collect();
        let _ = writeln!(text, "\n{title}:\n\n{}", result_row::table(&rows));
    }
}

fn title(phase: &PhaseResults) -> String {
    let [before, after] = [phase.events, phase.sizes.events].map(grouped);
    format!("{before} events before its rows, {after} after them, {} accounts", grouped(phase.accounts.into()))
}

#[cfg(test)]
mod tests {
    use super::{LargeLogReport, ManyAccounts, PhaseResults};
    use crate::bulk_baseline::BulkRates;
    use crate::machine::Machine;
    use crate::rebuild::tests::rebuild;
    use crate::result_row::Target;
    use crate::result_row::tests::row;
    use crate::sizes::{Part, RelationSize, Sizes};
    use crate::verification::Verification;

    fn phase(events: u64, per_second: f64) -> PhaseResults {
        let event = RelationSize { name: "event".to_owned(), part: Part::Log, bytes: 300 * events };
        PhaseResults {
            events,
            accounts: 5_000,
            fills: Vec::new(),
            rows: vec![row(Target::Baseline, 64, per_second / 2.0), row(Target::Passbook, 128, per_second)],
            memory: None,
            sizes: Sizes { events, relations: vec![event] },
            rebuilds: vec![rebuild(events, per_second)],
            verification: Verification { events, seconds: 1.0, per_second, high_water_kib: None },
            bulk: BulkRates { inserted_per_second: per_second, hashed_per_second: per_second },
            starts_ms: vec![1.0, 2.0, 3.0],
        }
    }

    #[test]
    fn each_figure_of_the_large_log_stands_beside_that_of_the_small_log() {
        let many_accounts = ManyAccounts { rows: Vec::new(), memory: None };
        let [small, large] = [phase(1_000, 20_000.0), phase(100_000, 15_000.0)];
        let report = LargeLogReport::new(Machine::default(), 1, small, many_accounts, large);
        assert!(!report.failed());
        let figure = |name: &str| report.figures.iter().find(|figure| figure.name == name).expect("a figure");
        for name in ["deposits", "rebuild of all, events", "verify, events"] {
            assert_eq!((figure(name).ratio, figure(name).adjusted_ratio), (Some(0.75), Some(1.0)), "{name}");
        }
        assert_eq!(figure("log on disk, an event").ratio, Some(1.0));
        assert_eq!(figure("views on disk, an event").ratio, None);
        assert_eq!(figure("start to ready").adjusted_ratio, Some(0.75));
        let text = report.markdown();
        assert!(text.contains("| event    |                  300.0 |                  300.0 |"), "{text}");
    }
}
