//! The results of a load generator: a latency histogram, and the summary that each generator returns.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

const LATENCY_US_MAX: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The summary of one run of a load generator.
#[derive(Clone, Debug, Serialize)]
pub struct LoadSummary {
    /// Requests, or the commands in them if they are batches.
    pub requests: u64,
    /// Successful responses per second, or the commands in them.
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Responses with an error status.
    pub refused: u64,
    /// Requests without a response: the connection failed or timed out.
    pub broken: u64,
}

impl LoadSummary {
    /// Successful commands whose latencies are unknown, which is NaN.
    pub fn without_latencies(requests: u64, seconds: f64) -> Self {
        Self {
            requests,
            per_second: requests as f64 / seconds,
            p50_ms: f64::NAN,
            p99_ms: f64::NAN,
            refused: 0,
            broken: 0,
        }
    }

    /// Counts the commands of requests that are batches. Latencies and errors remain those of the requests.
    pub fn in_commands(self, per_request: u32) -> Self {
        Self {
            requests: self.requests * u64::from(per_request),
            per_second: self.per_second * f64::from(per_request),
            ..self
        }
    }
}

/// A histogram of latencies in microseconds, with three significant digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS);
        Ok(Self(histogram.context("cannot create a histogram")?))
    }

    /// Records a latency. A latency above `LATENCY_US_MAX` counts as that limit.
    pub fn record_us(&mut self, microseconds: u64) {
        self.0.saturating_record(microseconds);
    }

    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).context("cannot add two histograms")
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The greatest latency in milliseconds; 0 if the histogram is empty.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// The latency in milliseconds at this percentile (0 to 100); 0 if the histogram is empty.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Latencies, LoadSummary};

    #[test]
    fn a_load_of_batches_counts_commands_and_keeps_latencies() {
        let batches = LoadSummary { requests: 3, per_second: 1.5, p50_ms: 7.0, p99_ms: 9.0, refused: 1, broken: 0 };
        let load = batches.in_commands(100);
        assert_eq!((load.requests, load.refused), (300, 1));
        assert_eq!((load.per_second, load.p50_ms), (150.0, 7.0));
    }

    #[test]
    fn percentiles_cover_all_added_histograms() {
        let mut all = Latencies::new().expect("a histogram");
        let mut other = Latencies::new().expect("a histogram");
        (1..=500).for_each(|n| all.record_us(n * 10));
        (501..=1000).for_each(|n| other.record_us(n * 10));
        all.add(&other).expect("both histograms have the same bounds");
        assert!((all.percentile_ms(50.0) - 5.0).abs() < 0.01);
        assert!((all.percentile_ms(99.0) - 9.9).abs() < 0.01);
    }

    #[test]
    fn percentile_of_an_empty_histogram_is_zero() {
        let none = Latencies::new().expect("a histogram");
        assert!(none.percentile_ms(99.0).abs() < f64::EPSILON);
    }
}
