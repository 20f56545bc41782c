//! What a failed passage means: whether the log may have changed, and whether trying again can help.

use std::{future::Future, time::Duration};

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::time::timeout;

use passbook_domain::event::DecodeError;

/// How long the database may take to open a connection. Two tries fit into the patience with an outage.
pub(super) const CONNECT_MAX: Duration = Duration::from_millis(700);
/// How long one statement of a passage may take before its connection is given up as lost. Longer than a statement may
/// wait for the appender (`lock_timeout`), which then says so itself.
pub(super) const STATEMENT_MAX: Duration = Duration::from_millis(2_500);

/// Why a passage through the appender failed.
#[derive(Debug)]
pub(super) struct StorageError {
    pub kind: Kind,
    /// For whoever asks whether the service is ready.
    pub outage: &'static str,
    /// For the log.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The database refused the data (SQLSTATE class 22 or 23); nothing was written.
    Rejected,
    /// The database answered with another error; nothing was written.
    Unavailable,
    /// The log holds an event of a newer release; nothing was written.
    UnsupportedEvent,
    /// No answer: whatever was sent last may or may not have been carried out.
    UnknownOutcome,
}

impl StorageError {
    /// An event that only a newer release can read.
    pub(super) fn newer(error: &DecodeError) -> Self {
        let outage = "the log holds events of a newer release, which this one cannot read: upgrade this instance";
        Self { kind: Kind::UnsupportedEvent, outage, reason: error.to_string() }
    }
}

impl From<sqlx::Error> for StorageError {
    /// Only an answer of severity ERROR proves that the transaction was rolled back. FATAL may come after a commit,
    /// and a lost connection says nothing.
    fn from(error: sqlx::Error) -> Self {
        let answer = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        let kind = match answer {
            Some(answer) if answer.severity() != PgSeverity::Error => Kind::UnknownOutcome,
            Some(answer) if matches!(answer.code().get(..2), Some("22" | "23")) => Kind::Rejected,
            Some(_) => Kind::Unavailable,
            None => Kind::UnknownOutcome,
        };
        Self { kind, outage: operator_message(answer.map(PgDatabaseError::code)), reason: error.to_string() }
    }
}

/// What an SQLSTATE means to an operator, and nothing of the inside.
fn operator_message(code: Option<&str>) -> &'static str {
    match code {
        Some("25006") => "the database is read-only",
        Some("53100") => "the database's disk is full",
        Some("53300") => "the database has no connection left",
        Some("55P03") => "another instance does not leave the turnstile",
        Some("57P01" | "57P02" | "57P03") => "the database is starting or stopping",
        Some(_) => "the database refuses to work",
        None => "the database cannot be reached",
    }
}

/// Bounds a statement in time, so that a frozen server is noticed.
pub(super) async fn within<T>(limit: Duration, statement: impl Future<Output = sqlx::Result<T>>) -> Result<T, StorageError> {
    match timeout(limit, statement).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StorageError {
            kind: Kind::UnknownOutcome,
            outage: "the database does not answer",
            reason: format!("no answer within {limit:?}"),
        }),
    }
}
