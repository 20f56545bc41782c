//! The report of `bench run`, as Markdown, as a chart and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::chart::{Chart, Panel, Point, Series};
use crate::constant_rate::{self, ConstantRateRow};
use crate::machine::Machine;
use crate::rebuild::Rebuild;
use crate::result_row::{self, ResultRow, Target};
use crate::table::grouped;

/// The figures of one run. The serialized names are those of `docs/benchmarks.json`.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub seconds_per_row: u32,
    pub rows: Vec<ResultRow>,
    #[serde(rename = "steady")]
    pub constant_rates: Vec<ConstantRateRow>,
    #[serde(rename = "catch_up")]
    pub rebuild: Rebuild,
    /// In ascending order.
    pub starts_ms: Vec<f64>,
}

impl Report {
    /// Whether any row has errors.
    pub fn failed(&self) -> bool {
        self.rows.iter().any(ResultRow::failed) || self.constant_rates.iter().any(ConstantRateRow::failed)
    }

    /// The tables and notes for `docs/benchmarks.md`.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}, {} s per row.\n\n", self.machine.line(), self.seconds_per_row);
        text.push_str("![Throughput and p99 against connections](benchmarks.svg)\n\n");
        text.push_str(&result_row::table(&self.rows));
        let passbook = self.rows.iter().filter(|row| row.target == Target::Passbook);
        if let Some(kib) = passbook.filter_map(|row| Some(row.memory?.high_water_kib)).max() {
            let _ = write!(text, "\nPassbook's greatest resident memory was {} MiB.", grouped(kib / 1024));
        }
        text.push_str(
            "\nThe time in parentheses after the lag is the time until the projections had caught up. Commands/commit: \
             commands divided by the transactions that wrote their events. A GET counts as a command. Latencies of batches \
             are those of whole batches.\n\n",
        );
        text.push_str(&constant_rate::table(&self.constant_rates));
        text.push_str(
            "\nThe maximum is the row with 128 connections. Latency counts from the scheduled time; up to 0.25 ms of it is \
             the generator's clock. The lag is `lag_seconds` of `GET /v1/projections`, sampled every 20 ms.\n\n",
        );
        text.push_str(&constant_rate::stalls(&self.constant_rates));
        let _ = writeln!(text, "- Rebuild of all views at once: {}.", self.rebuild.line());
        let _ = writeln!(text, "- Start to ready on this data: {}.", format_starts(&self.starts_ms));
        text
    }

    /// A chart of the deposits over all accounts by connections: Passbook, the baseline and the peer.
    pub fn chart(&self) -> String {
        let lines = [
            ("Passbook", Target::Passbook),
            ("pgbench, one event per transaction", Target::Baseline),
            ("cqrs-es", Target::Peer),
        ];
        let panel = |title, is_logarithmic, value: fn(&ResultRow) -> f64| {
            let series = lines.iter().map(|(name, target)| Series { name, points: self.points(*target, value) });
            Panel { title, is_logarithmic, series: series.filter(|series| !series.points.is_empty()).collect() }
        };
        Chart {
            title: "Deposits over 5 000 accounts, by connections",
            x_label: "connections (closed loop)",
            panels: [
                panel("requests per second", false, |row| row.load.per_second),
                panel("p99 in ms (logarithmic)", true, |row| row.load.p99_ms),
            ],
        }
        .svg()
    }

    /// One point per number of connections: the mean of the rows with this number.
    fn points(&self, target: Target, value: fn(&ResultRow) -> f64) -> Vec<Point> {
        let is_charted = |row: &&ResultRow| {
            row.target == target
                && match target {
                    Target::Baseline => row.baseline.is_append(),
                    Target::Passbook | Target::Peer => row.name.ends_with("deposits, 5 000 accounts"),
                }
        };
        let rows: Vec<&ResultRow> = self.rows.iter().filter(is_charted).collect();
        let mut connections: Vec<u32> = rows.iter().map(|row| row.connections).collect();
        connections.sort_unstable();
        connections.dedup();
        let mean = |x: u32| {
            let values: Vec<f64> = rows.iter().filter(|row| row.connections == x).map(|row| value(row)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        connections.into_iter().map(|x| Point { x: f64::from(x), y: mean(x) }).collect()
    }
}

/// The median of times in ascending order, and the list of them.
fn format_starts(ascending_ms: &[f64]) -> String {
    let all: Vec<_> = ascending_ms.iter().map(|ms| format!("{ms:.0}")).collect();
    format!("median {:.0} ms ({})", median(ascending_ms), all.join(", "))
}

/// The median of an odd number of values in ascending order.
pub fn median(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Report, format_starts};
    use crate::machine::Machine;
    use crate::rebuild::tests::rebuild;
    use crate::result_row::Target;
    use crate::result_row::tests::row;

    #[test]
    fn the_chart_has_a_line_for_each_measured_target() {
        let mut rows = [1, 32].map(|connections| row(Target::Passbook, connections, 100.0)).to_vec();
        rows.iter_mut().for_each(|row| row.name = "deposits, 5 000 accounts".to_owned());
        rows.extend([100.0, 200.0].map(|per_second| row(Target::Baseline, 64, per_second)));
        let report = Report {
            machine: Machine::default(),
            seconds_per_row: 1,
            rows,
            constant_rates: Vec::new(),
            rebuild: rebuild(1, 1.0),
            starts_ms: vec![1.0],
        };
        let baseline_points = report.points(Target::Baseline, |row| row.load.per_second);
        assert_eq!(baseline_points.iter().map(|point| (point.x, point.y)).collect::<Vec<_>>(), [(64.0, 150.0)]);
        let svg = report.chart();
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(!svg.contains("NaN") && !svg.contains("cqrs-es"));
    }

    #[test]
    fn the_median_of_three_starts_is_the_middle_one() {
        assert_eq!(format_starts(&[80.2, 90.0, 200.0]), "median 90 ms (80, 90, 200)");
    }
}
