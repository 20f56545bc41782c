//! How many commands end and how long each took, over the last minutes of this process.
//!
//! The executor alone records, once a batch; of a slice of time that is over only its summary is kept.

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

const SLICE_S: i64 = 10;
const SLICES: i64 = 60;
/// What takes longer is counted as this.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Percentiles are told to one part in a hundred.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Ten seconds of commands.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CommandStatsBucket {
    /// When it began.
    #[serde(with = "timestamp")]
    pub from: DateTime<Utc>,
    /// How many commands ended in each of its seconds.
    #[schema(example = 12.3, minimum = 0)]
    pub per_second: f64,
    /// Half of them took no longer, in milliseconds; `null` where there was none.
    #[schema(example = 0.8)]
    pub p50_ms: Option<f64>,
    /// All but one in a hundred took no longer.
    #[schema(example = 4.2)]
    pub p99_ms: Option<f64>,
}

/// What the process remembers of its commands.
pub(super) struct CommandStats(Mutex<Slices>);

struct Slices {
    /// The running slice, counted from the epoch.
    running: i64,
    latencies_us: Histogram<u32>,
    /// Those that are over and had any commands.
    over: BTreeMap<i64, Summary>,
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
        let latencies_us = latencies_us.expect("the bounds are constant and sound");
        Self(Mutex::new(Slices { running: slice_of(now), latencies_us, over: BTreeMap::new() }))
    }

    /// Commands that end now, after so long each.
    pub(super) fn record(&self, now: DateTime<Utc>, latencies: impl Iterator<Item = Duration>) {
        let mut slices = self.lock();
        slices.advance(now);
        for latency in latencies {
            let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            slices.latencies_us.saturating_record(us.max(1));
        }
    }

    /// The last minutes up to now, oldest first, with nothing left out.
    pub(super) fn slices(&self, now: DateTime<Utc>) -> Vec<CommandStatsBucket> {
        let mut slices = self.lock();
        slices.advance(now);
        let running = slices.running;
        let summary = |slice| if slice == running { slices.summary() } else { slices.over.get(&slice).copied() };
        (running - SLICES + 1..=running)
            .map(|slice| {
                // The running one is told by what has passed of it.
                let s = (now.timestamp() - slice * SLICE_S).clamp(1, SLICE_S);
                told(slice, s, summary(slice))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slices> {
        // Nothing that is counted half is worth a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slices {
    /// Time may have gone on. A clock that is set back adds to the slice that runs.
    fn advance(&mut self, now: DateTime<Utc>) {
        let slice = slice_of(now);
        if slice <= self.running {
            return;
        }
        if let Some(summary) = self.summary() {
            self.over.insert(self.running, summary);
        }
        self.over = self.over.split_off(&(slice - SLICES + 1));
        self.latencies_us.reset();
        self.running = slice;
    }

    fn summary(&self) -> Option<Summary> {
        let us = |quantile| self.latencies_us.value_at_quantile(quantile);
        let count = self.latencies_us.len();
        (count > 0).then(|| Summary { count, p50_us: us(0.5), p99_us: us(0.99) })
    }
}

fn slice_of(time: DateTime<Utc>) -> i64 {
    time.timestamp().div_euclid(SLICE_S)
}

fn told(slice: i64, seconds: i64, summary: Option<Summary>) -> CommandStatsBucket {
    let ms = |us: u64| us as f64 / 1_000.0;
    let count = summary.map_or(0, |summary| summary.count);
    CommandStatsBucket {
        from: DateTime::from_timestamp(slice * SLICE_S, 0).unwrap_or_default(),
        per_second: (count as f64 * 10.0 / seconds as f64).round() / 10.0,
        p50_ms: summary.map(|summary| ms(summary.p50_us)),
        p99_ms: summary.map(|summary| ms(summary.p99_us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + s, 0).expect("a time")
    }

    fn ms(latencies: &[u64]) -> impl Iterator<Item = Duration> {
        latencies.iter().copied().map(Duration::from_millis)
    }

    #[test]
    fn every_slice_is_told_oldest_first_and_the_empty_ones_too() {
        let command_stats = CommandStats::new(at(0));
        let slices = command_stats.slices(at(0));
        assert_eq!(slices.len(), 60);
        assert!(slices.iter().all(|slice| slice.per_second == 0.0 && slice.p50_ms.is_none() && slice.p99_ms.is_none()));
        assert!(slices.windows(2).all(|pair| (pair[1].from - pair[0].from).num_seconds() == 10));
        assert_eq!(slices[59].from, at(0));
    }

    #[test]
    fn commands_are_counted_in_the_slice_in_which_they_end_until_it_is_too_long_ago() {
        let command_stats = CommandStats::new(at(0));
        command_stats.record(at(3), ms(&[1; 99]));
        command_stats.record(at(9), ms(&[100]));
        command_stats.record(at(25), ms(&[7]));
        let slices = command_stats.slices(at(29));
        assert_eq!(slices[57..].iter().map(|slice| slice.per_second).collect::<Vec<_>>(), [10.0, 0.0, 0.1]);
        let near = |told: Option<f64>, ms: f64| told.is_some_and(|told| (told / ms - 1.0).abs() < 0.01);
        assert!(near(slices[57].p50_ms, 1.0) && near(slices[57].p99_ms, 1.0), "{:?}", slices[57]);
        assert!(near(slices[59].p50_ms, 7.0), "{:?}", slices[59]);
        assert_eq!(command_stats.slices(at(599))[0].per_second, 10.0);
        assert_eq!(command_stats.slices(at(600))[0].per_second, 0.0);
        assert!(command_stats.slices(at(1_000_000)).iter().all(|slice| slice.per_second == 0.0));
    }

    #[test]
    fn the_running_slice_is_told_by_what_has_passed_of_it() {
        let command_stats = CommandStats::new(at(0));
        command_stats.record(at(0), ms(&[1; 8]));
        assert_eq!(command_stats.slices(at(0))[59].per_second, 8.0);
        assert_eq!(command_stats.slices(at(4))[59].per_second, 2.0);
    }

    #[test]
    fn neither_a_clock_that_is_set_back_nor_an_age_harms() {
        let command_stats = CommandStats::new(at(100));
        command_stats.record(at(0), ms(&[0, u64::MAX]));
        let last = command_stats.slices(at(-500)).pop().expect("a slice");
        assert_eq!((last.from, last.per_second), (at(100), 2.0));
        assert!(last.p99_ms.is_some_and(|ms| ms >= 59_000.0), "{last:?}");
    }
}
