//! The times at which requests at a constant rate had long latencies.

use std::time::Duration;

use serde::Serialize;

/// A request with at least this latency belongs to a stall.
const STALL_MS_MIN: u64 = 100;
/// Slow requests that were due within this time of each other belong to the same stall.
const GAP_MS_MAX: u64 = 1_000;

/// A time during which requests had long latencies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stall {
    /// When its first request was due, in seconds after the start of the load.
    pub at_s: f64,
    /// The greatest latency of its requests.
    pub longest_ms: f64,
}

/// Finds the stalls of a load.
#[derive(Default)]
pub struct Stalls(Vec<SlowRequests>);

struct SlowRequests {
    first: Duration,
    last: Duration,
    longest: Duration,
}

impl Stalls {
    /// Records a request by the time when it was due, after the start of the load.
    pub fn record(&mut self, due: Duration, latency: Duration) {
        if latency < Duration::from_millis(STALL_MS_MIN) {
            return;
        }
        let gap = Duration::from_millis(GAP_MS_MAX);
        let is_near = |slow: &&mut SlowRequests| due + gap >= slow.first && due <= slow.last + gap;
        match self.0.iter_mut().rev().find(is_near) {
            Some(slow) => {
                slow.first = slow.first.min(due);
                slow.last = slow.last.max(due);
                slow.longest = slow.longest.max(latency);
            }
            None => self.0.push(SlowRequests { first: due, last: due, longest: latency }),
        }
    }

    /// The stalls in the order of their times.
    pub fn list(&self) -> Vec<Stall> {
        let stall = |slow: &SlowRequests| Stall {
            at_s: slow.first.as_secs_f64(),
            longest_ms: slow.longest.as_secs_f64() * 1000.0,
        };
        let mut stalls: Vec<Stall> = self.0.iter().map(stall).collect();
        stalls.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        stalls
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Stall, Stalls};

    #[test]
    fn slow_requests_that_were_due_close_to_each_other_are_one_stall() {
        let mut stalls = Stalls::default();
        for (due_ms, latency_ms) in [(10, 99), (2_000, 100), (1_500, 350), (2_900, 120), (9_000, 200)] {
            stalls.record(Duration::from_millis(due_ms), Duration::from_millis(latency_ms));
        }
        let stall = |at_s, longest_ms| Stall { at_s, longest_ms };
        assert_eq!(stalls.list(), [stall(1.5, 350.0), stall(9.0, 200.0)]);
    }
}
