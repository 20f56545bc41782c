//! Stops an instance that finds an event of a newer release. Any executor or projector can trip the gate; the bank then
//! executes no command until this release can decode the event.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::watch;
use uuid::Uuid;

use super::storage_error::{STATEMENT_TIMEOUT, StorageError};
use passbook_domain::{DecodeError, Event};
use passbook_event_store::{Partitions, StreamVersion, scan, with_timeout};

/// The gate, shared by all executors and projectors of the process.
#[derive(Clone)]
pub(super) struct UnsupportedEventGate {
    /// The event that tripped the gate; `None` while it is open.
    event: Arc<watch::Sender<Option<StreamVersion>>>,
    partitions: Partitions,
}

impl UnsupportedEventGate {
    pub(super) fn new(event: Arc<watch::Sender<Option<StreamVersion>>>, partitions: Partitions) -> Self {
        Self { event, partitions }
    }

    /// Waits until the gate is tripped.
    pub(super) async fn tripped(&self) {
        // An error means that all senders were dropped, but `self` owns one.
        let _ = self.event.subscribe().wait_for(Option::is_some).await;
    }

    /// Trips the gate if `decoded` is an event of a newer release: of a newer schema version, or of a type that this release does not
    /// know. Passes every other result on.
    ///
    /// # Errors
    /// The event is of a newer release.
    pub(super) fn check(
        &self,
        stream_id: Uuid,
        version: i64,
        decoded: Result<Event, DecodeError>,
    ) -> Result<Result<Event, DecodeError>, StorageError> {
        match decoded {
            Err(error) if error.is_of_newer_release() => {
                self.event.send_replace(Some(StreamVersion { stream_id, version }));
                Err(StorageError::unsupported_event(&error))
            }
            decoded => Ok(decoded),
        }
    }

    /// Opens the gate if the event that tripped it can be decoded now.
    ///
    /// # Errors
    /// The event cannot be read, or is still of a newer release.
    pub(super) async fn recheck(&self, connection: &mut PgConnection) -> Result<(), StorageError> {
        let event = *self.event.borrow();
        let Some(StreamVersion { stream_id, version }) = event else { return Ok(()) };
        let partition = self.partitions.partition_of(stream_id);
        let read = scan::events_with_previous_hash(connection, partition, stream_id, version - 1, 1);
        for (linked, _) in with_timeout(STATEMENT_TIMEOUT, read).await? {
            let decoded = Event::decode(&linked.event.event_type, linked.event.schema_version, &linked.event.data);
            // Other decode errors fail the commands of that account only.
            let _ = self.check(stream_id, linked.event.version, decoded)?;
        }
        self.event.send_replace(None);
        Ok(())
    }
}
