//! The errors of a copy. Each message is a sentence for the operator, with the remedy.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use passbook_domain::DecodeError;
use passbook_event_store::Position;

/// Why a copy ended before it was finished.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message describes it")]
pub enum Error {
    #[error(
        "the new number of partitions must be a multiple of {from}, at most 64, and {to} is not: each new partition takes the \
         events of exactly one old partition"
    )]
    NotAMultiple { from: i16, to: i16 },
    #[error("the target database contains a log that is not a copy: use a database that was never served")]
    NotEmpty,
    #[error(
        "the copy in the target database was finished at {0}, and later events of the old log cannot be added: copy into an \
         empty database"
    )]
    Finished(DateTime<Utc>),
    #[error(
        "the target database contains a copy of a log with {expected} partitions, and the old log has {found}: use the same \
         old log, or copy into an empty database"
    )]
    OtherSource { expected: i16, found: i16 },
    #[error(
        "the copy was started with {expected} partitions, and not with {requested}: continue with {expected}, or copy into an \
         empty database"
    )]
    OtherPartitionCount { expected: i16, requested: i16 },
    #[error("the old log is an incomplete copy itself: finish the copy into it first")]
    SourceIncomplete,
    #[error(
        "the hash chain of the old log is broken at position {0}: `passbook verify` shows the details. No event of this page \
         was copied"
    )]
    BrokenHashChain(Position),
    #[error(
        "the old log no longer contains the event that was copied from position {0}: a failover lost it. Copy into an empty \
         database"
    )]
    LostEvent(Position),
    #[error(
        "the copy of the event at position {0} of the old log differs from it or is in another order: do not serve the new \
         log, and copy into an empty database"
    )]
    CopyDiffers(Position),
    #[error(
        "the reversal at version {version} of account {account_id} cannot be read: {error}. Use the release that serves the old log"
    )]
    UnreadableReversal { account_id: Uuid, version: i64, error: DecodeError },
    #[error("the receipt of the idempotency key {key:?} of caller {caller:?} cannot be copied: {reason}")]
    Receipt { caller: String, key: String, reason: &'static str },
    #[error("another process copies into the same target database: run only one copy at a time")]
    ConcurrentCopy,
    #[error("a service is still connected to the old log: stop it, and run this command again")]
    SourceInUse,
    #[error("the old log has {source_events} events, and the new log has {target_events}: do not serve the new log")]
    EventCountMismatch { source_events: i64, target_events: i64 },
    #[error("one of the two databases failed: {0}")]
    Storage(#[from] sqlx::Error),
}
