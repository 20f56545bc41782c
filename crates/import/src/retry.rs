//! The limits of an import that is interrupted: waits, attempts, and how long it waits for a result.

use std::time::Duration;

/// The wait before the first retry. It doubles with each attempt that brings no result.
const RETRY_WAIT_MS_MIN: u64 = 200;
/// The longest wait before a retry, also if the service asks for a longer one.
const RETRY_WAIT_MS_MAX: u64 = 10_000;
/// After this number of attempts in a row without a result the import gives up: about two minutes if the service is down.
const ATTEMPTS_WITHOUT_RESULT_MAX: u32 = 16;
/// How long the import waits for the next result while lines have none. Longer than the service's limit for a command.
const RESULT_WAIT_S_MAX: u64 = 30;

/// When an interrupted import sends its lines again, and when it gives up.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The wait before the first retry.
    pub wait_min: Duration,
    /// The longest wait.
    pub wait_max: Duration,
    /// The number of attempts in a row without a result.
    pub attempts_max: u32,
    /// The time without a result after which a request is ended.
    pub result_wait_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            wait_min: Duration::from_millis(RETRY_WAIT_MS_MIN),
            wait_max: Duration::from_millis(RETRY_WAIT_MS_MAX),
            attempts_max: ATTEMPTS_WITHOUT_RESULT_MAX,
            result_wait_max: Duration::from_secs(RESULT_WAIT_S_MAX),
        }
    }
}

impl RetryPolicy {
    /// The wait after `attempts` attempts without a result (at least 1). The service's `Retry-After` can only lengthen it.
    pub(crate) fn wait(&self, attempts: u32, retry_after: Option<Duration>) -> Duration {
        let backoff = self.wait_min.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        retry_after.map_or(backoff, |wait| wait.max(backoff)).min(self.wait_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_obeys_retry_after() {
        let policy = RetryPolicy::default();
        let wait_ms = |attempts, retry_after| policy.wait(attempts, retry_after).as_millis();
        assert_eq!([1, 2, 3, 10, 100].map(|attempts| wait_ms(attempts, None)), [200, 400, 800, 10_000, 10_000]);
        assert_eq!(wait_ms(1, Some(Duration::from_secs(2))), 2_000);
        assert_eq!(wait_ms(5, Some(Duration::from_secs(1))), 3_200);
        assert_eq!(wait_ms(1, Some(Duration::from_secs(3_600))), 10_000);
    }
}
