//! Latencies as a histogram of microseconds with three significant digits: what a percentile is
//! taken from, whoever measured it.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

const LATENCY_US_MAX: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS);
        Ok(Self(histogram.context("cannot make a histogram")?))
    }

    /// A latency above the bound counts as the bound.
    pub fn record_us(&mut self, microseconds: u64) {
        self.0.saturating_record(microseconds);
    }

    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).context("cannot add two histograms")
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// 0 when empty.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// The latency in milliseconds that `percent` of all answers stayed within; 0 when empty.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::Latencies;

    #[test]
    fn percentiles_are_taken_over_everything_added() {
        let mut all = Latencies::new().expect("a histogram");
        let mut other = Latencies::new().expect("a histogram");
        (1..=500).for_each(|n| all.record_us(n * 10));
        (501..=1000).for_each(|n| other.record_us(n * 10));
        all.add(&other).expect("both are of one kind");
        assert!((all.percentile_ms(50.0) - 5.0).abs() < 0.01);
        assert!((all.percentile_ms(99.0) - 9.9).abs() < 0.01);
    }

    #[test]
    fn a_histogram_without_answers_has_the_percentile_0() {
        let none = Latencies::new().expect("a histogram");
        assert!(none.percentile_ms(99.0).abs() < f64::EPSILON);
    }
}
