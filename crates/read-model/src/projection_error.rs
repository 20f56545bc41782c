//! Errors of projections. They travel as [`sqlx::Error`], so that one error type covers a whole step.

use std::io;

use passbook_domain::DecodeError;
use passbook_event_store::{RecordedEvent, StreamVersion};

/// A recorded event that this release cannot decode.
#[derive(Debug, thiserror::Error)]
#[error("the event at position {} cannot be decoded: {source}", recorded.position)]
struct Undecodable {
    recorded: RecordedEvent,
    source: DecodeError,
}

/// The error for a recorded event that this release cannot decode.
pub(crate) fn undecodable(recorded: RecordedEvent, source: DecodeError) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Undecodable { recorded, source }))
}

/// The event behind an error, if it was written by a newer release; otherwise `None`.
pub(crate) fn event_of_newer_release(error: &sqlx::Error) -> Option<StreamVersion> {
    let sqlx::Error::Decode(inner) = error else { return None };
    match inner.downcast_ref()? {
        Undecodable { recorded, source: DecodeError::Newer { .. } } => {
            Some(StreamVersion { stream_id: recorded.stream_id, version: recorded.version })
        }
        Undecodable { .. } => None,
    }
}

/// The error for events or checkpoints that contradict each other.
pub(crate) fn cannot_apply(reason: String) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}

/// Whether the database did not answer within a time limit.
pub(crate) fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}
