//! The schedule of a constant rate: request `n` is due `n / rate` seconds after the start.

use std::time::Duration;

pub struct Schedule {
    per_second: f64,
    total: u64,
    next: u64,
}

impl Schedule {
    pub fn new(per_second: f64, seconds: u32) -> Self {
        Self { per_second, total: (per_second * f64::from(seconds)).round() as u64, next: 0 }
    }

    /// The number and due time of the next request, if it is due `elapsed` after the start.
    pub fn next_due(&mut self, elapsed: Duration) -> Option<(u64, Duration)> {
        let due = Duration::from_secs_f64(self.next as f64 / self.per_second);
        if self.is_over() || due > elapsed {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, due))
    }

    /// Whether every request has been returned.
    pub fn is_over(&self) -> bool {
        self.next == self.total
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Schedule;

    #[test]
    fn a_request_is_not_due_before_its_time() {
        let mut schedule = Schedule::new(1_000.0, 1);
        assert_eq!(schedule.next_due(Duration::ZERO), Some((0, Duration::ZERO)));
        assert_eq!(schedule.next_due(Duration::from_micros(999)), None);
        assert_eq!(schedule.next_due(Duration::from_millis(1)), Some((1, Duration::from_millis(1))));
    }

    #[test]
    fn missed_requests_keep_their_due_times_after_a_stall() {
        let mut schedule = Schedule::new(100.0, 1);
        let due: Vec<_> = std::iter::from_fn(|| schedule.next_due(Duration::from_millis(25))).collect();
        assert_eq!(due, [(0, 0), (1, 10), (2, 20)].map(|(number, at)| (number, Duration::from_millis(at))));
    }

    #[test]
    fn a_schedule_has_rate_times_seconds_requests() {
        let mut schedule = Schedule::new(30.0, 2);
        let due = std::iter::from_fn(|| schedule.next_due(Duration::from_secs(10)));
        assert_eq!(due.count(), 60);
        assert!(schedule.is_over());
    }
}
