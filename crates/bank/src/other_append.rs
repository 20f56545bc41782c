//! Appends events of other aggregates than accounts, each with the rows that belong to it, in one transaction. There are few, so they do
//! not pass through the executors: the executors see the events as those of another instance.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection, PgConnection, Postgres, Transaction, query_scalar};
use uuid::Uuid;

use super::{
    command::{CommandContext, Error},
    storage_error::{Kind, STATEMENT_TIMEOUT, StorageError},
};
use passbook_domain::{OtherEvent, account::STATE_VERSION};
use passbook_event_store::{
    NewEvent, StreamVersion,
    log::{self, Head, Outcome},
    with_timeout,
};
use passbook_telemetry::metrics::METRICS;

/// A transaction that holds the log-head lock of one partition. Dropped, it is rolled back.
pub struct OtherAppend<'c> {
    transaction: Transaction<'c, Postgres>,
    partition: i16,
    head: Head,
    /// The database's time after the lock was taken.
    now: DateTime<Utc>,
}

impl<'c> OtherAppend<'c> {
    /// Begins the transaction, and waits for the log-head lock of `partition`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin(connection: &'c mut PgConnection, partition: i16) -> Result<Self, Error> {
        let beginning = async {
            let mut transaction = connection.begin().await?;
            // Not `lock_head`: on Citus the node of the partition takes the lock, as for an append.
            let (head, _) = log::lock_head_and_read_since(&mut transaction, partition, None, 0).await?;
            let now = query_scalar("SELECT clock_timestamp()").fetch_one(&mut *transaction).await?;
            Ok(Self { transaction, partition, head, now })
        };
        with_timeout(STATEMENT_TIMEOUT, beginning).await.map_err(unwritten)
    }

    /// The connection, for the rows that belong to the event.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// The time of the next event.
    pub fn now(&self) -> DateTime<Utc> {
        self.now.max(self.head.recorded_at + TimeDelta::microseconds(1))
    }

    /// Appends an event. Its stream must belong to the partition, and have no event of this version.
    ///
    /// # Errors
    /// The database fails.
    pub async fn append(
        &mut self,
        at: StreamVersion,
        event: &OtherEvent,
        context: &CommandContext,
    ) -> Result<(), Error> {
        let new = NewEvent {
            id: Uuid::now_v7(),
            stream_id: at.stream_id,
            version: at.version,
            event_type: event.event_type().name(),
            schema_version: event.schema_version(),
            data: serde_json::to_string(event).map_err(|_| Error::Internal)?,
            metadata: context.metadata().map_err(|_| Error::Internal)?,
        };
        let event_type = new.event_type;
        let (recorded_at, state_version) = (self.now(), STATE_VERSION);
        let batch = log::Batch { recorded_at, events: vec![new], state_version, ..log::Batch::default() };
        let appending = log::append(&mut self.transaction, self.partition, &self.head, &batch);
        match with_timeout(STATEMENT_TIMEOUT, appending).await.map_err(unwritten)? {
            Outcome::Done(head) => self.head = head,
            Outcome::HeadMoved | Outcome::KeysRecorded(_) => {
                return Err(unwritten_error(&StorageError::head_moved_under_lock()));
            }
        }
        METRICS.appended_events.with_label_values(&[event_type]).inc();
        Ok(())
    }

    /// Commits, and returns the position of the partition's head.
    ///
    /// # Errors
    /// The database fails. After [`Error::OutcomeUnknown`] the event may be recorded.
    pub async fn commit(self) -> Result<i64, Error> {
        let position = self.head.position;
        let committed = with_timeout(STATEMENT_TIMEOUT, self.transaction.commit()).await;
        committed.map(|()| position).map_err(|error| {
            let error = StorageError::from(error);
            tracing::warn!(error = error.reason, "commit of an event failed");
            match error.kind {
                Kind::UnknownOutcome => Error::OutcomeUnknown,
                Kind::Rejected | Kind::Unavailable | Kind::UnsupportedEvent | Kind::ClockSkewed => {
                    unwritten_error(&error)
                }
            }
        })
    }
}

/// The error of a statement before the commit.
fn unwritten(error: sqlx::Error) -> Error {
    let error = StorageError::from(error);
    tracing::warn!(error = error.reason, "an event could not be appended");
    unwritten_error(&error)
}

fn unwritten_error(error: &StorageError) -> Error {
    match error.kind {
        Kind::Rejected => Error::Internal,
        Kind::Unavailable | Kind::UnsupportedEvent | Kind::ClockSkewed | Kind::UnknownOutcome => {
            Error::StorageUnavailable { reason: error.outage }
        }
    }
}
