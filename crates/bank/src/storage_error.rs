//! Errors of the write path. [`Kind`] says whether anything was written, and whether a retry can help.

use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use passbook_domain::DecodeError;
use passbook_event_store::{StorageFailure, log::LOG_MOVED};

/// Time limit for opening a connection. Two attempts fit into the time that a command waits during an outage.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
/// Time limit for one statement; its connection is dropped afterwards. It is longer than `lock_timeout`, so that a statement
/// that waits for the log-head lock fails with the error of Postgres first.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The reason while the clock is refused.
pub const CLOCK_SKEWED: &str = "The clock of this instance differs too much from the database's: set the clocks (NTP).";

/// The reason for a reversal whose movement was read from another history of the log.
pub(super) const CHANGED_HISTORY: &str = "The log changed after the transaction to reverse was read from it.";

/// The reason while a long account is folded.
pub(super) const STATE_REBUILDING: &str = "The state of the account is being rebuilt from its events.";

/// A failed database call.
#[derive(Debug)]
pub(super) struct StorageError {
    pub kind: Kind,
    /// The sentence that the readiness check shows to operators.
    pub outage: &'static str,
    /// How the database failed, for the log.
    pub failure: StorageFailure,
    /// The original error, for the log.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Postgres rejected the data (SQLSTATE class 22 or 23). Nothing was written.
    Rejected,
    /// Postgres answered with another error. Nothing was written.
    Unavailable,
    /// The log contains an event that this release cannot decode. Nothing was written.
    UnsupportedEvent,
    /// The clock of this instance differs too much from the database's. Nothing was written.
    ClockSkewed,
    /// Postgres did not answer. The last statement may or may not have been executed.
    UnknownOutcome,
}

impl StorageError {
    /// The log contains an event that only a newer release can decode.
    pub(super) fn unsupported_event(error: &DecodeError) -> Self {
        let outage = "The log holds events of a newer release, which this one cannot read: upgrade this instance.";
        let failure = StorageFailure::Refused;
        Self { kind: Kind::UnsupportedEvent, outage, failure, reason: error.to_string() }
    }

    /// The clock of this instance is `skew_ms` ahead of the database's, or behind it if that is negative.
    pub(super) fn clock_skewed(skew_ms: i64) -> Self {
        let reason = format!("the clock of this instance differs by {skew_ms} ms from the database's");
        Self { kind: Kind::ClockSkewed, outage: CLOCK_SKEWED, failure: StorageFailure::Refused, reason }
    }

    /// Other instances appended more than this one can read while it holds a lock. The next attempt reads it before the lock.
    pub(super) fn too_far_behind() -> Self {
        let outage = "Other instances append faster than this one reads the log.";
        Self { kind: Kind::Unavailable, outage, failure: StorageFailure::TimedOut, reason: outage.to_owned() }
    }

    /// The head moved although this instance holds its lock.
    pub(super) fn head_moved_under_lock() -> Self {
        let outage = "The log head changed while this instance held its lock.";
        Self { kind: Kind::Unavailable, outage, failure: StorageFailure::Refused, reason: outage.to_owned() }
    }
}

impl From<sqlx::Error> for StorageError {
    /// Only a database error of severity ERROR proves that the transaction was rolled back. FATAL may follow a commit, and a
    /// lost connection proves nothing.
    fn from(error: sqlx::Error) -> Self {
        let answer = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        let kind = match answer {
            Some(answer) if answer.severity() != PgSeverity::Error => Kind::UnknownOutcome,
            Some(answer) if matches!(answer.code().get(..2), Some("22" | "23")) => Kind::Rejected,
            Some(_) => Kind::Unavailable,
            None => Kind::UnknownOutcome,
        };
        let failure = StorageFailure::of(&error);
        let outage = operator_message(answer.map(PgDatabaseError::code)).unwrap_or(failure.sentence());
        Self { kind, outage, failure, reason: error.to_string() }
    }
}

/// A sentence for an SQLSTATE that says more than [`StorageFailure::sentence`]. It reveals no internals, because anonymous
/// readiness checks see it.
fn operator_message(code: Option<&str>) -> Option<&'static str> {
    match code? {
        "25006" => Some("The database is read-only."),
        "53100" => Some("The database's disk is full."),
        "53300" => Some("The database has no connection left."),
        "55P03" => Some("Timed out waiting for the log-head lock held by another instance."),
        LOG_MOVED => {
            Some("The log was moved to another database by `passbook copy`. Connect this instance to that database.")
        }
        "57P01" | "57P02" | "57P03" => Some("The database is starting or stopping."),
        _ => None,
    }
}
