//! The durations of deliveries. Tests shorten them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// The pauses after the first failures of an event, in seconds. Later pauses are those of [`LATER_PAUSE_S`].
const PAUSES_S: [u64; 4] = [5, 30, 120, 600];
const LATER_PAUSE_S: u64 = 3_600;
/// How long an event is tried, in seconds: 3 days.
const GIVE_UP_S: u64 = 3 * 24 * 3_600;
/// How long one attempt may take.
const ATTEMPT_S_MAX: u64 = 15;
/// The shortest time limit of an attempt, whatever a test divides it by: a slow machine must not fail one.
const ATTEMPT_MS_MIN: u64 = 3_000;
/// How long a process owns an endpoint without a sign of life.
const LEASE_S: u64 = 10;
/// The longest pause that an endpoint can ask for by `Retry-After`.
const RETRY_AFTER_S_MAX: u64 = 3_600;
/// How much longer or shorter a pause may be, in percent, so that retries do not coincide.
const JITTER_PERCENT: u64 = 10;

/// The durations of deliveries.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    divisor: u32,
    lease_divisor: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self { divisor: 1, lease_divisor: 1 }
    }
}

impl Timing {
    /// All durations divided by `divisor`, but for the lease.
    pub fn divided_by(divisor: u32) -> Self {
        Self { divisor: divisor.max(1), lease_divisor: 1 }
    }

    /// The durations of this process. In debug builds a test divides them by `PASSBOOK_TEST_WEBHOOK_TIME_DIVISOR`, which is not 0.
    pub fn of_process() -> Self {
        #[cfg(debug_assertions)]
        if let Some(divisor) = std::env::var("PASSBOOK_TEST_WEBHOOK_TIME_DIVISOR")
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
            .filter(|divisor| *divisor > 0)
        {
            return Self { lease_divisor: divisor, ..Self::divided_by(divisor) };
        }
        Self::default()
    }

    fn seconds(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds) / self.divisor
    }

    /// How long one attempt may take.
    pub(crate) fn attempt_max(self) -> Duration {
        self.seconds(ATTEMPT_S_MAX).max(Duration::from_millis(ATTEMPT_MS_MIN))
    }

    /// How long a process owns an endpoint without a sign of life.
    pub(crate) fn lease(self) -> Duration {
        Duration::from_secs(LEASE_S) / self.lease_divisor
    }

    /// The pause after so many failures in a row, at least 1. `retry_after` is what the endpoint asked for, in seconds. It makes the pause
    /// longer, never shorter.
    pub(crate) fn pause(self, failures: u32, retry_after: Option<u64>) -> Duration {
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let planned = PAUSES_S.get(index).copied().unwrap_or(LATER_PAUSE_S);
        let seconds = planned.max(retry_after.unwrap_or_default().min(RETRY_AFTER_S_MAX));
        // The last byte of a UUID is random.
        let share = u64::from(Uuid::now_v7().as_bytes()[15]) * 2 * JITTER_PERCENT / 255;
        let jitter = 100 - JITTER_PERCENT + share;
        let jitter = if retry_after.is_some() { jitter.max(100) } else { jitter };
        self.seconds(seconds) * jitter as u32 / 100
    }

    /// Whether an event that has failed since then is given up.
    pub(crate) fn is_given_up(self, failing_since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        now - failing_since >= TimeDelta::from_std(self.seconds(GIVE_UP_S)).unwrap_or(TimeDelta::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_with_a_tenth_of_jitter() {
        for (failures, seconds) in [(1, 5), (2, 30), (3, 120), (4, 600), (5, 3_600), (500, 3_600)] {
            let (low, high) = (seconds * 900, seconds * 1_100);
            for _ in 0..100 {
                let pause_ms = Timing::default().pause(failures, None).as_millis();
                assert!((low..=high).contains(&pause_ms), "{failures}: {pause_ms}");
            }
        }
    }

    #[test]
    fn retry_after_is_respected_up_to_an_hour() {
        for (asked, seconds) in [(0, 5), (7, 7), (3_600, 3_600), (u64::MAX, 3_600)] {
            let pause = Timing::default().pause(1, Some(asked));
            assert!(pause >= Duration::from_secs(seconds), "{asked}: {pause:?}");
            assert!(pause <= Duration::from_secs(seconds) * 11 / 10, "{asked}: {pause:?}");
        }
    }

    #[test]
    fn an_event_is_given_up_after_three_days() {
        let since = DateTime::UNIX_EPOCH;
        let given_up = |hours| Timing::default().is_given_up(since, since + TimeDelta::hours(hours));
        assert_eq!([0, 71, 72, 100].map(given_up), [false, false, true, true]);
    }
}
