//! Errors of the write path, classified by two questions: was anything written, and can a retry help?

use std::{io, time::Duration};

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use passbook_domain::DecodeError;
use passbook_event_store::log::LOG_MOVED;

/// Time limit for opening a connection. Two attempts fit into the time that a command waits during an outage.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
/// Time limit for one statement; its connection is dropped afterwards. It is longer than `lock_timeout`, so that a statement
/// that waits for the log-head lock fails with the error of Postgres first.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A failed database call.
#[derive(Debug)]
pub(super) struct StorageError {
    pub kind: Kind,
    /// The sentence that the readiness check shows to operators.
    pub outage: &'static str,
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
    /// Postgres did not answer. The last statement may or may not have been executed.
    UnknownOutcome,
}

impl StorageError {
    /// The log contains an event that only a newer release can decode.
    pub(super) fn unsupported_event(error: &DecodeError) -> Self {
        let outage = "the log holds events of a newer release, which this one cannot read: upgrade this instance";
        Self { kind: Kind::UnsupportedEvent, outage, reason: error.to_string() }
    }

    /// The head moved although this instance holds its lock.
    pub(super) fn head_moved_under_lock() -> Self {
        let outage = "the log head changed while this instance held its lock";
        Self { kind: Kind::Unavailable, outage, reason: outage.to_owned() }
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
        let outage = match &error {
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => "the database does not answer",
            _ => operator_message(answer.map(PgDatabaseError::code)),
        };
        Self { kind, outage, reason: error.to_string() }
    }
}

/// A sentence for an SQLSTATE. It reveals no internals, because anonymous readiness checks see it.
fn operator_message(code: Option<&str>) -> &'static str {
    match code {
        Some("25006") => "the database is read-only",
        Some("53100") => "the database's disk is full",
        Some("53300") => "the database has no connection left",
        Some("55P03") => "timed out waiting for the log-head lock held by another instance",
        Some(LOG_MOVED) => {
            "the log was moved to another database by `passbook copy`: connect this instance to that one"
        }
        Some("57P01" | "57P02" | "57P03") => "the database is starting or stopping",
        Some(_) => "the database answers with an error",
        None => "the database cannot be reached",
    }
}
