//! The relay's errors: those that need an operator, and those that are retried.

use std::path::PathBuf;

use super::log_reader::HistoryMismatch;

/// An error that ends the relay, because an operator must act before it can continue.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message describes it")]
pub enum FatalError {
    #[error("PASSBOOK_RELAY_NATS_URL must be the URL of a NATS server, such as nats://127.0.0.1:4222")]
    InvalidUrl,
    #[error("PASSBOOK_RELAY_NATS_URL contains different logins: use the same login for all servers of the cluster")]
    DifferentLogins,
    #[error("PASSBOOK_RELAY_STREAM={0:?} is not a valid stream name: use only ASCII letters, digits, - and _")]
    InvalidStreamName(String),
    #[error("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE={path} cannot be read, or contains no valid credentials: {source}")]
    Credentials { path: PathBuf, source: std::io::Error },
    #[error("the NATS server rejected the relay's login: {0}")]
    LoginRejected(String),
    #[error(
        "the stream {stream} no longer exists, and it contained the log up to position {position}: restore the stream, or \
         start the relay once with --refill to create it again and publish the log from its first event"
    )]
    StreamMissing { stream: String, position: i64 },
    #[error(
        "the stream {stream} ends at {last}, and it contained the log up to position {position}: the stream was truncated, \
         created again, or restored from a backup. Restore the missing messages, or start the relay once with --refill to \
         publish them again"
    )]
    StreamTruncated { stream: String, last: i64, position: i64 },
    #[error(
        "the stream {stream} is full at {last} ({reason}): raise its limits, or purge messages that all consumers have read, \
         and start the relay again. No event is lost; the relay resumes after {last}"
    )]
    StreamFull { stream: String, last: i64, reason: String },
    #[error(
        "the message at {position} in the stream {stream} is not the event at that position: another publisher writes to \
         the stream. Stop that publisher, delete this stream or remove its subjects, and set PASSBOOK_RELAY_STREAM to the \
         name of a new stream"
    )]
    ForeignMessage { stream: String, position: i64 },
    #[error(
        "the stream {stream} and the log have different histories: {mismatch}. Consumers may have read events that the log \
         no longer contains. Compare the two, delete this stream or remove its subjects, and set PASSBOOK_RELAY_STREAM to \
         the name of a new stream"
    )]
    DifferentHistory { stream: String, mismatch: HistoryMismatch },
    #[error("the stream {stream} does not accept the subjects {subjects}: add them to the stream")]
    MissingSubjects { stream: String, subjects: String },
    #[error("the NATS server refused to create the stream {stream}: {reason}")]
    CreationRefused { stream: String, reason: String },
    #[error(
        "the event at position {position} is larger than the largest allowed message ({reason}): raise max_payload of the \
         NATS server and max_msg_size of the stream"
    )]
    TooLarge { position: i64, reason: String },
    #[error("a task of the relay failed ({0}): start the relay again; it resumes at the end of the stream")]
    TaskFailed(String),
}

/// The error of one publishing attempt.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// An operator must act.
    Fatal(Box<FatalError>),
    /// NATS or the database is unavailable; the publisher retries.
    Outage(String),
}

impl From<FatalError> for AttemptError {
    fn from(error: FatalError) -> Self {
        Self::Fatal(Box::new(error))
    }
}

impl AttemptError {
    pub(super) fn outage(context: &str, error: impl std::fmt::Display) -> Self {
        Self::Outage(format!("{context}: {error}"))
    }
}
