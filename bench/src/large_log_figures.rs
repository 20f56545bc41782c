//! The figures of the small and the large log side by side: rates, times, the cost of a command, sizes and memory.

use crate::comparison::{Figure, Measured, Unit};
use crate::large_log_phase::PhaseResults;
use crate::rebuild::Rebuild;
use crate::report::median;
use crate::result_row::{ResultRow, Target};
use crate::sizes::{Part, RelationSize};
use crate::table::{aligned, grouped, or_dash};

const SIZE_HEAD: [&str; 4] = ["relation", "small log, bytes/event", "large log, bytes/event", "large log, MiB"];

/// The results of both logs, the small one first.
#[derive(Clone, Copy)]
pub struct Phases<'a>(pub [&'a PhaseResults; 2]);

impl Phases<'_> {
    /// All figures that the logs have in common.
    pub fn figures(self) -> Vec<Figure> {
        [self.rates(), self.times(), self.costs(), self.sizes(), self.memory()].into_iter().flatten().collect()
    }

    fn rates(self) -> Vec<Figure> {
        let rows = self.rows().filter(|row| !row.is_query());
        let mut figures: Vec<Figure> =
            rows.map(|row| self.row_figure(row, "", Unit::PerSecond, |row| Some(row.load.per_second))).collect();
        figures.extend(self.rebuilds().map(|rebuild| {
            let name = format!("rebuild of {}, events", rebuild.projection);
            self.rebuild_figure(rebuild, name, Unit::PerSecond, |rebuild| Some(rebuild.per_second))
        }));
        let verified = self.each(|phase| (Some(phase.verification.per_second), Some(phase.bulk.hashed_per_second)));
        figures.push(Figure::new("verify, events", Unit::PerSecond, verified));
        figures
    }

    fn times(self) -> Vec<Figure> {
        let half = |row: &ResultRow| Some(row.load.p50_ms);
        let tail = |row: &ResultRow| Some(row.load.p99_ms);
        let queries = self.rows().filter(|row| row.is_query());
        let mut figures: Vec<Figure> =
            queries.map(|row| self.row_figure(row, ", p50", Unit::Milliseconds, half)).collect();
        let commands = self.rows().filter(|row| !row.is_query() && row.load.p99_ms.is_finite());
        figures.extend(commands.map(|row| self.row_figure(row, ", p99", Unit::Milliseconds, tail)));
        let starts = self.each(|phase| (Some(median(&phase.starts_ms)), Some(phase.bulk.hashed_per_second)));
        figures.push(Figure::new("start to ready", Unit::Milliseconds, starts));
        figures
    }

    /// The processor time and the WAL of each command, and of each event of a rebuild.
    fn costs(self) -> Vec<Figure> {
        let postgres = |row: &ResultRow| Some(row.cpu.as_ref()?.postgres_us);
        let service = |row: &ResultRow| Some(row.cpu.as_ref()?.service_us);
        let cpu = |row| {
            [
                self.row_figure(row, ": CPU of Postgres", Unit::Microseconds, postgres),
                self.row_figure(row, ": CPU of Passbook", Unit::Microseconds, service),
            ]
        };
        // A few requests of a query need less processor time than can be measured.
        let mut figures: Vec<Figure> = self.rows().filter(|row| !row.is_query()).flat_map(cpu).collect();
        figures.extend(self.rebuilds().flat_map(|rebuild| {
            let name = |process: &str| format!("rebuild of {}, an event: CPU of {process}", rebuild.projection);
            let postgres = |rebuild: &Rebuild| Some(rebuild.cpu.as_ref()?.postgres_us);
            let service = |rebuild: &Rebuild| Some(rebuild.cpu.as_ref()?.service_us);
            [
                self.rebuild_figure(rebuild, name("Postgres"), Unit::Microseconds, postgres),
                self.rebuild_figure(rebuild, name("Passbook"), Unit::Microseconds, service),
            ]
        }));
        let writes = self.rows().filter(|row| row.wal_bytes_per_command.is_some());
        figures.extend(writes.map(|row| self.row_figure(row, ": WAL", Unit::Bytes, |row| row.wal_bytes_per_command)));
        figures
    }

    fn sizes(self) -> Vec<Figure> {
        let part = |part: Part| {
            self.each(|phase| (phase.sizes.per_event(|relation: &RelationSize| relation.part == part), None))
        };
        vec![
            Figure::new("log on disk, an event", Unit::Bytes, part(Part::Log)),
            Figure::new("views on disk, an event", Unit::Bytes, part(Part::Views)),
            Figure::new("keys and snapshots on disk, an event", Unit::Bytes, part(Part::Other)),
        ]
    }

    fn memory(self) -> Vec<Figure> {
        let mebibytes = |kib: Option<u64>| (kib.map(|kib| kib as f64 / 1024.0), None);
        let after = self.each(|phase| mebibytes(phase.memory.map(|memory| memory.rss_kib)));
        let most = self.each(|phase| mebibytes(phase.memory.map(|memory| memory.high_water_kib)));
        let rebuild =
            self.each(|phase| mebibytes(phase.rebuilds.iter().filter_map(|rebuild| rebuild.high_water_kib).max()));
        let verify = self.each(|phase| mebibytes(phase.verification.high_water_kib));
        vec![
            Figure::new("memory of Passbook after the rows", Unit::Mebibytes, after),
            Figure::new("memory of Passbook, maximum of the rows", Unit::Mebibytes, most),
            Figure::new("memory of Passbook, maximum of the rebuilds", Unit::Mebibytes, rebuild),
            Figure::new("memory of verify, maximum", Unit::Mebibytes, verify),
        ]
    }

    /// The bytes of each relation, divided by the events.
    pub fn size_table(self) -> String {
        let [_, large] = self.0;
        let bytes = |bytes: Option<f64>| or_dash(bytes.map(|bytes| format!("{bytes:.1}")));
        let row = |relation: &RelationSize| {
            let [small, large] = self.0.map(|phase| phase.sizes.per_event(|other| other.name == relation.name));
            [relation.name.clone(), bytes(small), bytes(large), grouped(relation.bytes >> 20)]
        };
        aligned(SIZE_HEAD, &large.sizes.relations.iter().map(row).collect::<Vec<_>>())
    }

    fn each(self, measured: impl Fn(&PhaseResults) -> Measured) -> [Measured; 2] {
        self.0.map(measured)
    }

    /// The rows of Passbook on the large log.
    fn rows(&self) -> impl Iterator<Item = &ResultRow> {
        let [_, large] = self.0;
        large.all_rows().filter(|row| row.target == Target::Passbook)
    }

    fn rebuilds(&self) -> impl Iterator<Item = &Rebuild> {
        let [_, large] = self.0;
        large.rebuilds.iter()
    }

    /// A figure of a row. Processor time is compared with that of the baseline, all else with its rate.
    fn row_figure(self, row: &ResultRow, what: &str, unit: Unit, value: fn(&ResultRow) -> Option<f64>) -> Figure {
        let measured = self.each(|phase| {
            let same = phase.all_rows().find(|other| other.name == row.name && other.target == row.target);
            let speed = match unit {
                Unit::PerSecond | Unit::Milliseconds => phase.baseline_mean(row, |row| Some(row.load.per_second)),
                Unit::Microseconds => phase
                    .baseline_mean(row, |row| Some(1.0 / row.cpu.as_ref()?.postgres_us))
                    .filter(|speed| speed.is_finite()),
                Unit::Bytes | Unit::Mebibytes => None,
            };
            (same.and_then(value), speed)
        });
        Figure::new(format!("{}{what}", row.name), unit, measured)
    }

    fn rebuild_figure(self, rebuild: &Rebuild, name: String, unit: Unit, value: fn(&Rebuild) -> Option<f64>) -> Figure {
        let measured = self.each(|phase| {
            let same = phase.rebuilds.iter().find(|other| other.projection == rebuild.projection);
            (same.and_then(value), Some(phase.bulk.inserted_per_second))
        });
        Figure::new(name, unit, measured)
    }
}
