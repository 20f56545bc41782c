//! Outages of one partition's publisher: the pause before each retry, and one log line at the start and at the end.

use std::time::Duration;

/// The pause after an outage. It doubles from the minimum to the maximum until publishing resumes.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 2_000;

/// Whether publishing fails at present, and the next pause.
pub(super) struct OutageState {
    stream_name: String,
    /// Whether the start of an outage was logged, and not its end.
    in_outage: bool,
    retry_ms: u64,
}

impl OutageState {
    pub(super) fn new(stream_name: String) -> Self {
        Self { stream_name, in_outage: false, retry_ms: RETRY_MS_MIN }
    }

    pub(super) fn in_outage(&self) -> bool {
        self.in_outage
    }

    /// Logs one warning per outage; further failures are logged at debug level.
    pub(super) fn record_failure(&mut self, reason: &str) {
        match std::mem::replace(&mut self.in_outage, true) {
            false => tracing::warn!(stream = self.stream_name, reason, "publishing failed; retrying"),
            true => tracing::debug!(stream = self.stream_name, reason, "publishing failed again; retrying"),
        }
    }

    /// Logs the end of an outage, and resets the pause.
    pub(super) fn record_success(&mut self, position: i64) {
        if std::mem::take(&mut self.in_outage) {
            tracing::info!(stream = self.stream_name, position, "publishing resumed");
        }
        self.retry_ms = RETRY_MS_MIN;
    }

    /// The pause before the next attempt. Each call without a success doubles the following pause, up to the maximum.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = Duration::from_millis(self.retry_ms);
        self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
        pause
    }
}
