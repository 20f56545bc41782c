//! What was measured, told twice: as an aligned Markdown table and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::machine::Machine;
use crate::process::Memory;
use crate::yardstick::Yardstick;

const HEAD: [&str; 9] = [
    "row",
    "connections",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "× yardstick",
    "lag at end",
    "CPU µs/command Passbook / Postgres",
    "RSS MiB",
];

/// What a load generator saw: `refused` answers were no success, `broken` connections no answer.
#[derive(Serialize)]
pub struct Load {
    pub requests: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub refused: u64,
    pub broken: u64,
}

/// How far the projections were behind when the load ended, and how long they took to catch up.
#[derive(Serialize)]
pub struct Lag {
    pub events: u64,
    pub seconds: f64,
    pub caught_up_after_ms: f64,
}

/// Processor time, user and system, until the projections had caught up.
#[derive(Serialize)]
pub struct CpuPerCommand {
    pub passbook_us: f64,
    pub postgres_us: f64,
}

#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub connections: u32,
    /// Whether this row is the yardstick itself or is measured by it.
    pub is_yardstick: bool,
    pub yardstick: Yardstick,
    #[serde(flatten)]
    pub load: Load,
    /// Requests per second in proportion to the yardstick's mean, before and after.
    pub ratio: Option<f64>,
    pub lag: Option<Lag>,
    pub cpu: Option<CpuPerCommand>,
    pub memory: Option<Memory>,
}

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub seconds_per_row: u32,
    pub rows: Vec<Row>,
}

impl Row {
    pub fn failed(&self) -> bool {
        self.load.refused > 0 || self.load.broken > 0
    }

    fn cells(&self) -> [String; 9] {
        let mark = if self.failed() {
            format!(" **{} refused, {} broken**", grouped(self.load.refused), grouped(self.load.broken))
        } else {
            String::new()
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        [
            format!("{}{mark}", self.name),
            self.connections.to_string(),
            grouped(self.load.per_second.round() as u64),
            format!("{:.2}", self.load.p50_ms),
            format!("{:.2}", self.load.p99_ms),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.2}"))),
            or_dash(self.lag.as_ref().map(Lag::cell)),
            or_dash(self.cpu.as_ref().map(|c| format!("{:.0} / {:.0}", c.passbook_us, c.postgres_us))),
            or_dash(self.memory.map(|memory| grouped(memory.rss_kib / 1024))),
        ]
    }
}

impl Lag {
    fn cell(&self) -> String {
        if self.events == 0 {
            "0".to_owned()
        } else {
            format!("{} ({:.0} ms)", grouped(self.events), self.caught_up_after_ms)
        }
    }
}

impl Report {
    pub fn new(machine: Machine, seconds_per_row: u32, mut rows: Vec<Row>) -> Self {
        for yardstick in Yardstick::ALL {
            let measured = rows.iter().filter(|row| row.is_yardstick && row.yardstick == yardstick);
            let rates: Vec<f64> = measured.map(|row| row.load.per_second).collect();
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            for row in rows.iter_mut().filter(|row| row.yardstick == yardstick) {
                row.ratio = Some(row.load.per_second / mean).filter(|ratio| ratio.is_finite());
            }
        }
        Self { machine, seconds_per_row, rows }
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("{}, {} s per row\n\n", self.machine.line(), self.seconds_per_row);
        let rows: Vec<_> = self.rows.iter().map(Row::cells).collect();
        text.push_str(&aligned(&HEAD.map(str::to_owned), &rows));
        let peak = self.rows.iter().filter_map(|row| Some(row.memory?.high_water_kib)).max();
        if let Some(kib) = peak {
            let _ = write!(text, "\nPassbook's memory never passed {} MiB.", grouped(kib / 1024));
        }
        text.push_str("\nThe lag's milliseconds say how long the projections took to catch up after the load.\n");
        text
    }
}

/// A Markdown table, the first column to the left and figures to the right.
fn aligned<const N: usize>(head: &[String; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().chain([head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let cells = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!(" {cell:<width$} |"),
            _ => format!(" {cell:>width$} |"),
        });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!("{}|", "-".repeat(width + 2)),
        _ => format!("{}:|", "-".repeat(width + 1)),
    });
    let rule = format!("|{}\n", rule.collect::<String>());
    line(head) + &rule + &rows.iter().map(line).collect::<String>()
}

/// A whole number with a blank between thousands: `22 281`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{aligned, grouped};

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1_000, 22_281, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1 000", "22 281", "1 234 567"]);
    }

    #[test]
    fn a_table_is_aligned_by_its_widest_cells() {
        let head = ["row", "µs"].map(str::to_owned);
        let table = aligned(&head, &[["deposits", "7"].map(str::to_owned)]);
        assert_eq!(table, "| row      | µs |\n|----------|---:|\n| deposits |  7 |\n");
    }
}
