//! The errors of reading the event log. HTTP shows their texts to clients as the detail of a problem.

use std::borrow::Cow;

use passbook_event_store::{Position, StorageFailure, sqlstate};

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The limit of feed subscribers or of concurrent verifications is reached.
    #[error("Too many requests read the log. Retry later.")]
    Busy,
    /// The account has more events than one request verifies. The next request continues.
    #[error(
        "The account has more events than one request verifies; {events} of them are verified. Retry the request to continue."
    )]
    VerificationUnfinished {
        /// How many events are verified.
        events: i64,
    },
    /// The cursor identifies no event of this log.
    #[error(transparent)]
    InvalidCursorPosition(#[from] InvalidCursorPosition),
    /// The database failed or did not answer in time.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

impl Error {
    /// The log fields `failure` and `sqlstate` of an error that is not the caller's.
    pub(crate) fn storage_failure(&self) -> (StorageFailure, Cow<'_, str>) {
        match self {
            Self::Storage(error) => (StorageFailure::of(error), sqlstate(error)),
            Self::Busy | Self::VerificationUnfinished { .. } | Self::InvalidCursorPosition(_) => {
                (StorageFailure::Refused, Cow::default())
            }
        }
    }
}

impl InvalidCursorPosition {
    /// Whether a former primary may have shown another history than the primary has.
    pub(crate) fn may_be_of_former_primary(&self) -> bool {
        match self {
            Self::BeyondHead(_) | Self::OtherHistory(_) => true,
            Self::OtherPartitions(_) => false,
        }
    }
}

/// Why a cursor identifies no event of this log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursorPosition {
    /// The log ends before the cursor's position.
    #[error("Position {0} is beyond the head of the log. The log may have been restored from an older backup.")]
    BeyondHead(Position),
    /// The event at the cursor's position has another hash.
    #[error(
        "The cursor belongs to another history of this log: its hash is not that of the event at position {0}. Continue from an older cursor."
    )]
    OtherHistory(Position),
    /// The cursor has other partitions than the log.
    #[error("The cursor belongs to a log with another number of partitions. This log has {0}.")]
    OtherPartitions(i16),
}

/// A text is not a cursor of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "A cursor of the log is <position>-<first 8 hex digits of that event's hash>, such as 42-9f86d081, or a position alone. With \
     several partitions, it is a list such as 0:42-9f86d081,3:17."
)]
pub struct InvalidCursor;
