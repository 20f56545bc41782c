//! The database's clock, by which commands are decided and events recorded: all instances and all queries agree on what is over. An
//! instance whose own clock differs too much executes no commands: one of the two clocks is wrong, and an append with a time that is
//! a year ahead would freeze all times of the log for a year.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::{Connection, PgConnection, query_scalar};

use super::storage_error::{STATEMENT_TIMEOUT, StorageError};
use passbook_event_store::{PrimaryConnector, timestamp, with_timeout};

/// How long a measurement of the database's clock is used.
const MEASURED_S_MAX: u64 = 10;
/// The shortest pause between two log lines about a clock, in seconds.
const WARNING_S_MIN: u64 = 60;

/// The database's clock, as one executor measures it on its own connection.
pub(super) struct DatabaseClock {
    skew_max: TimeDelta,
    measured: Option<Measurement>,
    warnings: LogInterval,
}

/// One measurement, which this process's monotonic clock continues.
#[derive(Clone, Copy)]
pub(super) struct Measurement {
    /// The database's time.
    time: DateTime<Utc>,
    /// When the request for it was sent, and when the response arrived.
    sent_at: Instant,
    received_at: Instant,
}

impl Measurement {
    /// The database's time now, in microseconds. It is behind by at most the time that the measurement took.
    pub(super) fn now(&self) -> DateTime<Utc> {
        let elapsed = TimeDelta::from_std(self.received_at.elapsed()).unwrap_or_default();
        (self.time + elapsed).trunc_subsecs(6)
    }

    /// How far `own` is ahead of the database's clock at `at`; negative if it is behind. The result is 0 if the time that the
    /// measurement took can explain the difference.
    fn skew(&self, own: DateTime<Utc>, at: Instant) -> TimeDelta {
        let delta = |from: Instant| TimeDelta::from_std(at.saturating_duration_since(from)).unwrap_or(TimeDelta::MAX);
        let earliest = self.time + delta(self.received_at);
        let latest = self.time + delta(self.sent_at);
        match own {
            own if own > latest => own - latest,
            own if own < earliest => own - earliest,
            _ => TimeDelta::zero(),
        }
    }
}

impl DatabaseClock {
    /// Accepts a difference of up to `skew_max`.
    pub(super) fn new(skew_max: Duration) -> Self {
        let skew_max = TimeDelta::from_std(skew_max).unwrap_or(TimeDelta::MAX);
        Self { skew_max, measured: None, warnings: LogInterval::default() }
    }

    /// Returns the last measurement of the database's clock. Measures it again if that is old, or before a refusal.
    ///
    /// # Errors
    /// The clocks differ too much, or the database fails.
    pub(super) async fn check(&mut self, connection: &mut PgConnection) -> Result<Measurement, StorageError> {
        let recent = self.measured.filter(|last| last.received_at.elapsed() < Duration::from_secs(MEASURED_S_MAX));
        if let Some(last) = recent.filter(|last| !self.is_skewed(last.skew(timestamp::now(), Instant::now()))) {
            return Ok(last);
        }
        let measured = measure(connection).await?;
        self.measured = Some(measured);
        let skew = measured.skew(timestamp::now(), Instant::now());
        if !self.is_skewed(skew) {
            return Ok(measured);
        }
        let (skew_ms, skew_ms_max) = (skew.num_milliseconds(), self.skew_max.num_milliseconds());
        if self.warnings.is_due() {
            tracing::warn!(
                skew_ms,
                skew_ms_max,
                "clock of this instance differs from the database's; commands are refused"
            );
        }
        Err(StorageError::clock_skewed(skew_ms))
    }

    fn is_skewed(&self, skew: TimeDelta) -> bool {
        skew.abs() > self.skew_max
    }
}

/// Measures the database's clock.
async fn measure(connection: &mut PgConnection) -> sqlx::Result<Measurement> {
    let sent_at = Instant::now();
    let reading = query_scalar("SELECT clock_timestamp()").fetch_one(connection);
    let time = with_timeout(STATEMENT_TIMEOUT, reading).await?;
    Ok(Measurement { time, sent_at, received_at: Instant::now() })
}

/// How far the clock of this process is ahead of the database's; negative if it is behind.
///
/// # Errors
/// The database cannot be reached or does not answer in time.
pub async fn clock_skew(connect: &PrimaryConnector) -> sqlx::Result<TimeDelta> {
    let mut connection = with_timeout(STATEMENT_TIMEOUT, connect.connect()).await?;
    let skew = measure(&mut connection).await?.skew(timestamp::now(), Instant::now());
    // Best effort: the connection is closed either way.
    let _ = connection.close().await;
    Ok(skew)
}

/// Limits a log line to one a minute.
#[derive(Default)]
pub(super) struct LogInterval(Mutex<Option<Instant>>);

impl LogInterval {
    /// Whether the line may be logged now; if so, not again for a minute.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(WARNING_S_MIN));
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duration_of_a_measurement_is_no_skew() {
        let sent_at = Instant::now();
        let received_at = sent_at + Duration::from_millis(400);
        let time = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let measured = Measurement { time, sent_at, received_at };
        let at = received_at + Duration::from_millis(1_000);
        let skew_ms = |own_ms| measured.skew(time + TimeDelta::milliseconds(own_ms), at).num_milliseconds();
        assert_eq!([1_000, 1_200, 1_400].map(skew_ms), [0; 3]);
        assert_eq!([900, 1_500].map(skew_ms), [-100, 100]);
    }

    #[test]
    fn a_line_is_due_once_a_minute() {
        let interval = LogInterval::default();
        assert_eq!([interval.is_due(), interval.is_due()], [true, false]);
    }
}
