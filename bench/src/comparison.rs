//! Compares a figure of two logs: the ratio of both, and the ratio that remains without the change of the machine's speed.

use serde::Serialize;

use crate::table::{aligned, or_dash, rate};

const HEAD: [&str; 6] =
    ["figure", "small log", "large log", "large / small", "baseline large / small", "without the machine"];

/// The unit of a figure, and so whether it grows with the speed of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
    Bytes,
    Mebibytes,
}

/// A figure of both logs. A ratio is `None` if a log has no such figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: Unit,
    pub small: Option<f64>,
    pub large: Option<f64>,
    pub ratio: Option<f64>,
    /// The speed of the baseline on the large log divided by that on the small one; `None` if the figure has no baseline.
    pub baseline_ratio: Option<f64>,
    /// The ratio as it would be if the baseline had been as fast on both logs.
    pub adjusted_ratio: Option<f64>,
}

/// A value of one log, and the speed of its baseline.
pub type Measured = (Option<f64>, Option<f64>);

impl Figure {
    pub fn new(name: impl Into<String>, unit: Unit, [small, large]: [Measured; 2]) -> Self {
        let divided = |large: Option<f64>, small: Option<f64>| Some(large? / small?).filter(|ratio| ratio.is_finite());
        let (ratio, baseline_ratio) = (divided(large.0, small.0), divided(large.1, small.1));
        let adjusted_ratio = ratio.zip(baseline_ratio).map(|(ratio, speed)| match unit {
            Unit::PerSecond => ratio / speed,
            Unit::Milliseconds | Unit::Microseconds => ratio * speed,
            Unit::Bytes | Unit::Mebibytes => ratio,
        });
        Self { name: name.into(), unit, small: small.0, large: large.0, ratio, baseline_ratio, adjusted_ratio }
    }

    fn cells(&self) -> [String; 6] {
        let value = |value: Option<f64>| or_dash(value.map(|value| self.unit.shown(value)));
        let ratio = |ratio: Option<f64>| or_dash(ratio.map(|ratio| format!("{ratio:.2}")));
        let name = format!("{}, {}", self.name, self.unit.name());
        let ratios = [self.ratio, self.baseline_ratio, self.adjusted_ratio].map(ratio);
        let [of_logs, of_baselines, adjusted] = ratios;
        [name, value(self.small), value(self.large), of_logs, of_baselines, adjusted]
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Bytes => "bytes",
            Self::Mebibytes => "MiB",
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::PerSecond | Self::Bytes | Self::Mebibytes => rate(value),
            Self::Milliseconds => format!("{value:.2}"),
            Self::Microseconds => format!("{value:.1}"),
        }
    }
}

/// The table of all figures.
pub fn table(figures: &[Figure]) -> String {
    aligned(HEAD, &figures.iter().map(Figure::cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::{Figure, Unit, table};

    #[test]
    fn a_rate_is_divided_by_the_speed_of_the_baseline() {
        let figure =
            Figure::new("deposits", Unit::PerSecond, [(Some(20_000.0), Some(10.0)), (Some(15_000.0), Some(7.5))]);
        assert_eq!((figure.ratio, figure.baseline_ratio, figure.adjusted_ratio), (Some(0.75), Some(0.75), Some(1.0)));
    }

    #[test]
    fn a_time_is_multiplied_by_the_speed_of_the_baseline() {
        let figure = Figure::new("GET", Unit::Milliseconds, [(Some(1.0), Some(10.0)), (Some(3.0), Some(5.0))]);
        assert_eq!((figure.ratio, figure.baseline_ratio, figure.adjusted_ratio), (Some(3.0), Some(0.5), Some(1.5)));
    }

    #[test]
    fn a_figure_of_one_log_alone_has_no_ratio() {
        let figure = Figure::new("log, of each event", Unit::Bytes, [(None, None), (Some(430.0), None)]);
        let line = "| log, of each event, bytes |         – |       430 |             – |                      – |                   – |";
        assert_eq!(table(&[figure]).lines().nth(2), Some(line));
    }
}
