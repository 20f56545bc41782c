//! When each request of a constant rate has its time.

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

    /// The next request, if its time has come `elapsed` after the start: its number and its time.
    pub fn next_due(&mut self, elapsed: Duration) -> Option<(u64, Duration)> {
        let due = Duration::from_secs_f64(self.next as f64 / self.per_second);
        if self.is_over() || due > elapsed {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, due))
    }

    pub fn is_over(&self) -> bool {
        self.next == self.total
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Schedule;

    #[test]
    fn a_request_is_due_at_its_time_and_not_before() {
        let mut schedule = Schedule::new(1_000.0, 1);
        assert_eq!(schedule.next_due(Duration::ZERO), Some((0, Duration::ZERO)));
        assert_eq!(schedule.next_due(Duration::from_micros(999)), None);
        assert_eq!(schedule.next_due(Duration::from_millis(1)), Some((1, Duration::from_millis(1))));
    }

    #[test]
    fn after_a_stall_all_that_were_missed_are_due_at_their_own_times() {
        let mut schedule = Schedule::new(100.0, 1);
        let due: Vec<_> = std::iter::from_fn(|| schedule.next_due(Duration::from_millis(25))).collect();
        assert_eq!(due, [(0, 0), (1, 10), (2, 20)].map(|(number, at)| (number, Duration::from_millis(at))));
    }

    #[test]
    fn it_is_over_after_rate_times_seconds() {
        let mut schedule = Schedule::new(30.0, 2);
        let due = std::iter::from_fn(|| schedule.next_due(Duration::from_secs(10)));
        assert_eq!(due.count(), 60);
        assert!(schedule.is_over());
    }
}
