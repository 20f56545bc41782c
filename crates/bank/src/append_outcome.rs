//! The outcomes of one attempt to append a batch. The executor decides from the outcome whether it answers, retries or splits the
//! batch.

use super::{
    decide_batch::{Decided, HeadsByPartition},
    pending::CommandResults,
    storage_error::{Kind, StorageError},
};
use passbook_event_store::{
    log,
    unknown_outcome::{EventRef, FirstRow, KeyRef},
};

/// The outcome of one attempt to append a batch.
pub(super) enum AppendOutcome {
    /// All results are final, and the events are durable.
    Committed(CommittedBatch),
    /// Postgres rejected the data of the batch. Nothing was written.
    RefusedByDatabase(StorageError),
    /// The log contains an event of a newer release. Nothing was written.
    UnsupportedEvent(StorageError),
    /// The clock of this instance differs too much from the database's. Nothing was written.
    ClockSkewed(StorageError),
    /// The database failed. Nothing was written.
    Unavailable(StorageError),
    /// The append was sent, but Postgres did not answer.
    OutcomeUnknown(StorageError, UnknownAppend),
}

/// A committed batch.
pub(super) struct CommittedBatch {
    /// One result for each command, in the order of the batch.
    pub results: CommandResults,
    /// How many events this attempt appended.
    pub events: usize,
}

/// An append whose outcome is unknown.
pub(super) struct UnknownAppend {
    /// The first row of each partition that is stored if the append has committed.
    pub first_rows: Vec<FirstRow>,
    /// The results to return in that case. `None` after the callers got [`OutcomeUnknown`](super::Error::OutcomeUnknown).
    pub results: Option<CommandResults>,
}

impl AppendOutcome {
    /// The outcome of an append or a COMMIT that failed. Without an answer it may have committed, unless it had no rows.
    pub(super) fn of_failed_commit(error: StorageError, decided: Decided, heads: &HeadsByPartition) -> Self {
        let first_row = |(partition, append): (&i16, &log::Batch)| {
            let (partition, head) = (*partition, heads.get(partition)?);
            match (append.events.first(), append.keys.first()) {
                (Some(event), _) => {
                    Some(FirstRow::Event(EventRef { partition, position: head.position + 1, id: event.id }))
                }
                (None, Some(key)) => {
                    Some(FirstRow::Key(KeyRef { partition, id: key.id.clone(), recorded_at: append.recorded_at }))
                }
                (None, None) => None,
            }
        };
        let first_rows: Vec<FirstRow> = decided.appends.iter().filter_map(first_row).collect();
        match error.kind {
            Kind::UnknownOutcome if !first_rows.is_empty() => {
                Self::OutcomeUnknown(error, UnknownAppend { first_rows, results: Some(decided.results) })
            }
            Kind::Rejected | Kind::Unavailable | Kind::UnsupportedEvent | Kind::ClockSkewed | Kind::UnknownOutcome => {
                error.into()
            }
        }
    }

    /// The reason of an outage for the readiness check; `None` if the database works.
    pub(super) fn outage(&self) -> Option<&'static str> {
        match self {
            Self::Committed(_) | Self::RefusedByDatabase(_) => None,
            Self::UnsupportedEvent(error)
            | Self::ClockSkewed(error)
            | Self::Unavailable(error)
            | Self::OutcomeUnknown(error, _) => Some(error.outage),
        }
    }
}

impl From<StorageError> for AppendOutcome {
    /// The outcome if a call failed that writes nothing to the log. A lost answer is then no unknown outcome.
    fn from(error: StorageError) -> Self {
        match error.kind {
            Kind::Rejected => Self::RefusedByDatabase(error),
            Kind::UnsupportedEvent => Self::UnsupportedEvent(error),
            Kind::ClockSkewed => Self::ClockSkewed(error),
            Kind::Unavailable | Kind::UnknownOutcome => Self::Unavailable(error),
        }
    }
}
