//! Counts and latencies of commands in the last ten minutes of this process. Executors record once for each batch. A finished
//! bucket stores only its summary.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use serde::Serialize;
use utoipa::ToSchema;

use passbook_event_store::timestamp;

const BUCKET_S: i64 = 10;
const BUCKETS: i64 = 60;
/// The largest recorded latency. A longer one counts as this one.
const LATENCY_US_MAX: u64 = 60_000_000;
/// The relative error of percentiles is 1 %.
const SIGNIFICANT_DIGITS: u8 = 2;

/// The commands of ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CommandStatsBucket {
    /// The start of the ten seconds.
    #[serde(with = "timestamp")]
    pub from: DateTime<Utc>,
    /// Completed commands per second.
    #[schema(example = 12.3, minimum = 0)]
    pub per_second: f64,
    /// The median latency in milliseconds; `null` if no command was completed.
    #[schema(required = true, example = 0.8)]
    pub p50_ms: Option<f64>,
    /// The 99th percentile of the latency in milliseconds; `null` if no command was completed.
    #[schema(required = true, example = 4.2)]
    pub p99_ms: Option<f64>,
}

/// The statistics, shared by all executors.
pub(super) struct CommandStats(Mutex<Buckets>);

struct Buckets {
    /// The number of the current bucket, counted from the Unix epoch.
    current: i64,
    /// The latencies of the current bucket.
    latencies_us: Histogram<u32>,
    /// The finished buckets that contain commands.
    finished: BTreeMap<i64, Summary>,
}

#[derive(Clone, Copy)]
struct Summary {
    count: u64,
    p50_us: u64,
    p99_us: u64,
}

impl CommandStats {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS);
        let latencies_us = latencies_us.expect("the bounds are valid constants");
        Self(Mutex::new(Buckets { current: bucket_at(now), latencies_us, finished: BTreeMap::new() }))
    }

    /// Records commands that are completed at `now`.
    pub(super) fn record(&self, now: DateTime<Utc>, latencies: impl Iterator<Item = Duration>) {
        let mut buckets = self.lock();
        buckets.advance(now);
        for latency in latencies {
            let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            buckets.latencies_us.saturating_record(us.max(1));
        }
    }

    /// All buckets up to `now`, oldest first, including the empty ones.
    pub(super) fn buckets(&self, now: DateTime<Utc>) -> Vec<CommandStatsBucket> {
        let mut buckets = self.lock();
        buckets.advance(now);
        let current = buckets.current;
        let summary =
            |bucket| if bucket == current { buckets.summary() } else { buckets.finished.get(&bucket).copied() };
        (current - BUCKETS + 1..=current)
            .map(|bucket| {
                // The rate of the current bucket is over its elapsed seconds only.
                let elapsed_s = (now.timestamp() - bucket * BUCKET_S).clamp(1, BUCKET_S);
                stats_of(bucket, elapsed_s, summary(bucket))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        // After a panic of another thread the counts are still usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    /// Starts the bucket of `now`. If the clock was set back, the current bucket continues.
    fn advance(&mut self, now: DateTime<Utc>) {
        let bucket = bucket_at(now);
        if bucket <= self.current {
            return;
        }
        if let Some(summary) = self.summary() {
            self.finished.insert(self.current, summary);
        }
        self.finished = self.finished.split_off(&(bucket - BUCKETS + 1));
        self.latencies_us.reset();
        self.current = bucket;
    }

    fn summary(&self) -> Option<Summary> {
        let us = |quantile| self.latencies_us.value_at_quantile(quantile);
        let count = self.latencies_us.len();
        (count > 0).then(|| Summary { count, p50_us: us(0.5), p99_us: us(0.99) })
    }
}

fn bucket_at(time: DateTime<Utc>) -> i64 {
    time.timestamp().div_euclid(BUCKET_S)
}

fn stats_of(bucket: i64, elapsed_s: i64, summary: Option<Summary>) -> CommandStatsBucket {
    let ms = |us: u64| us as f64 / 1_000.0;
    let count = summary.map_or(0, |summary| summary.count);
    CommandStatsBucket {
        from: DateTime::from_timestamp(bucket * BUCKET_S, 0).unwrap_or_default(),
        per_second: (count as f64 * 10.0 / elapsed_s as f64).round() / 10.0,
        p50_ms: summary.map(|summary| ms(summary.p50_us)),
        p99_ms: summary.map(|summary| ms(summary.p99_us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + s, 0).expect("a valid time")
    }

    fn ms(latencies: &[u64]) -> impl Iterator<Item = Duration> {
        latencies.iter().copied().map(Duration::from_millis)
    }

    #[test]
    fn all_buckets_are_returned_oldest_first_including_empty_ones() {
        let stats = CommandStats::new(at(0));
        let buckets = stats.buckets(at(0));
        assert_eq!(buckets.len(), 60);
        for bucket in &buckets {
            assert_eq!((bucket.per_second, bucket.p50_ms, bucket.p99_ms), (0.0, None, None));
        }
        assert!(buckets.windows(2).all(|pair| (pair[1].from - pair[0].from).num_seconds() == 10));
        assert_eq!(buckets[59].from, at(0));
    }

    #[test]
    fn commands_count_in_the_bucket_of_their_completion_for_ten_minutes() {
        let stats = CommandStats::new(at(0));
        stats.record(at(3), ms(&[1; 99]));
        stats.record(at(9), ms(&[100]));
        stats.record(at(25), ms(&[7]));
        let buckets = stats.buckets(at(29));
        assert_eq!(buckets[57..].iter().map(|bucket| bucket.per_second).collect::<Vec<_>>(), [10.0, 0.0, 0.1]);
        let is_near = |actual: Option<f64>, ms: f64| actual.is_some_and(|actual| (actual / ms - 1.0).abs() < 0.01);
        assert!(is_near(buckets[57].p50_ms, 1.0) && is_near(buckets[57].p99_ms, 1.0), "{:?}", buckets[57]);
        assert!(is_near(buckets[59].p50_ms, 7.0), "{:?}", buckets[59]);
        assert_eq!(stats.buckets(at(599))[0].per_second, 10.0);
        assert_eq!(stats.buckets(at(600))[0].per_second, 0.0);
        assert!(stats.buckets(at(1_000_000)).iter().all(|bucket| bucket.per_second == 0.0));
    }

    #[test]
    fn rate_of_the_current_bucket_is_over_its_elapsed_seconds() {
        let stats = CommandStats::new(at(0));
        stats.record(at(0), ms(&[1; 8]));
        assert_eq!(stats.buckets(at(0))[59].per_second, 8.0);
        assert_eq!(stats.buckets(at(4))[59].per_second, 2.0);
    }

    #[test]
    fn clock_set_back_and_extreme_latencies_are_tolerated() {
        let stats = CommandStats::new(at(100));
        stats.record(at(0), ms(&[0, u64::MAX]));
        let last = stats.buckets(at(-500)).pop().expect("the current bucket");
        assert_eq!((last.from, last.per_second), (at(100), 2.0));
        assert!(last.p99_ms.is_some_and(|ms| ms >= 59_000.0), "{last:?}");
    }
}
