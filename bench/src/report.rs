//! What `bench run` measured, as Markdown, as a chart and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::chart::{Chart, Panel, Point, Series};
use crate::machine::Machine;
use crate::projections::CatchUp;
use crate::row::{self, Measured, Row};
use crate::steady::{self, Steady};
use crate::table::{grouped, rate};
use crate::yardstick::Yardstick;

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub seconds_per_row: u32,
    pub rows: Vec<Row>,
    pub steady: Vec<Steady>,
    pub catch_up: CatchUp,
    /// In ascending order.
    pub starts_ms: Vec<f64>,
}

impl Report {
    pub fn failed(&self) -> bool {
        self.rows.iter().any(Row::failed) || self.steady.iter().any(Steady::failed)
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("{}, {} s a row.\n\n", self.machine.line(), self.seconds_per_row);
        text.push_str("![Throughput and p99 against connections](benchmarks.svg)\n\n");
        text.push_str(&row::table(&self.rows));
        let ours = self.rows.iter().filter(|row| row.measured == Measured::Passbook);
        if let Some(kib) = ours.filter_map(|row| Some(row.memory?.high_water_kib)).max() {
            let _ = write!(text, "\nPassbook's memory never passed {} MiB.", grouped(kib / 1024));
        }
        text.push_str(
            "\nThe lag's milliseconds say how long the projections took to catch up after the load. Commands a commit: \
             requests by transactions that wrote events.\n\n",
        );
        text.push_str(&steady::table(&self.steady));
        text.push_str(
            "\nThe maximum is the row with 128 connections. Latency counts from the time that the schedule says; up to \
             0.25 ms of it is the generator's clock. The lag is `lag_seconds` of `GET /v1/projections`, looked at every \
             20 ms.\n",
        );
        let CatchUp { events, seconds, per_second } = self.catch_up;
        let _ = write!(
            text,
            "\n- Emptied, the views had read {} events again after {seconds:.1} s: {} a second.\n",
            grouped(events),
            rate(per_second)
        );
        let _ = writeln!(text, "- Start to ready with these data: {}.", starts(&self.starts_ms));
        text
    }

    /// Deposits over all accounts against connections, ours, the yardstick's and the peer's.
    pub fn chart(&self) -> String {
        let lines = [
            ("Passbook", Measured::Passbook),
            ("pgbench, one event a transaction", Measured::Yardstick),
            ("cqrs-es", Measured::Peer),
        ];
        let panel = |title, is_logarithmic, value: fn(&Row) -> f64| {
            let series = lines.iter().map(|(name, measured)| Series { name, points: self.points(*measured, value) });
            Panel { title, is_logarithmic, series: series.filter(|series| !series.points.is_empty()).collect() }
        };
        Chart {
            title: "Deposits over 5 000 accounts, against connections",
            x_label: "connections (closed loop)",
            panels: [
                panel("requests a second", false, |row| row.load.per_second),
                panel("p99 in ms (logarithmic)", true, |row| row.load.p99_ms),
            ],
        }
        .svg()
    }

    /// One point for each number of connections; of the yardstick, the mean of its passes.
    fn points(&self, measured: Measured, value: fn(&Row) -> f64) -> Vec<Point> {
        let is_charted = |row: &&Row| {
            row.measured == measured
                && match measured {
                    Measured::Yardstick => row.yardstick != Yardstick::SelectBy32,
                    Measured::Passbook | Measured::Peer => row.name.ends_with("deposits, 5 000 accounts"),
                }
        };
        let rows: Vec<&Row> = self.rows.iter().filter(is_charted).collect();
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

/// Starts in ascending order: the median, and all of them.
fn starts(ascending_ms: &[f64]) -> String {
    let all: Vec<_> = ascending_ms.iter().map(|ms| format!("{ms:.0}")).collect();
    format!("{:.0} ms (of {})", median(ascending_ms), all.join(", "))
}

/// The middle one of an odd number of values in ascending order.
pub fn median(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Report, starts};
    use crate::machine::Machine;
    use crate::projections::CatchUp;
    use crate::row::Measured;
    use crate::row::tests::row;

    #[test]
    fn the_chart_has_a_line_for_each_who_was_measured() {
        let mut rows = [1, 32].map(|connections| row(Measured::Passbook, connections, 100.0)).to_vec();
        rows.iter_mut().for_each(|row| row.name = "deposits, 5 000 accounts".to_owned());
        rows.extend([100.0, 200.0].map(|per_second| row(Measured::Yardstick, 64, per_second)));
        let report = Report {
            machine: Machine::default(),
            seconds_per_row: 1,
            rows,
            steady: Vec::new(),
            catch_up: CatchUp { events: 1, seconds: 1.0, per_second: 1.0 },
            starts_ms: vec![1.0],
        };
        let of_yardstick = report.points(Measured::Yardstick, |row| row.load.per_second);
        assert_eq!(of_yardstick.iter().map(|point| (point.x, point.y)).collect::<Vec<_>>(), [(64.0, 150.0)]);
        let svg = report.chart();
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(!svg.contains("NaN") && !svg.contains("cqrs-es"));
    }

    #[test]
    fn of_three_starts_the_middle_one_counts() {
        assert_eq!(starts(&[80.2, 90.0, 200.0]), "90 ms (of 80, 90, 200)");
    }
}
