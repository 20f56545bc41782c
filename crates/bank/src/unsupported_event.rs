//! An event that only a newer release can read. Whoever meets one, the executor or the projector, tells it here, and
//! nothing is partitions_of_batch before it can be read.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::watch;
use uuid::Uuid;

use super::storage_error::{StorageError, STATEMENT_MAX, within};
use passbook_domain::{Event, event::DecodeError};
use passbook_event_store::{Partitions, StreamVersion, whole};

/// The last such event met, shared with all executors and projectors.
pub(super) struct UnsupportedEventGate {
    pub met: Arc<watch::Sender<Option<StreamVersion>>>,
    pub partitions: Partitions,
}

impl UnsupportedEventGate {
    /// Waits until somebody meets one.
    pub(super) async fn tripped(&self) {
        // The sender is at hand: it cannot be gone.
        let _ = self.met.subscribe().wait_for(Option::is_some).await;
    }

    /// The event at `version` of a stream, unless this is one.
    pub(super) fn read(
        &self,
        stream_id: Uuid,
        version: i64,
        event: Result<Event, DecodeError>,
    ) -> Result<Result<Event, DecodeError>, StorageError> {
        match event {
            Err(error @ DecodeError::Newer { .. }) => {
                self.met.send_replace(Some(StreamVersion { stream_id, version }));
                Err(StorageError::newer(&error))
            }
            event => Ok(event),
        }
    }

    /// Refuses to go on as long as the event that was met cannot be read.
    pub(super) async fn recheck(&self, connection: &mut PgConnection) -> Result<(), StorageError> {
        let met = *self.met.borrow();
        let Some(StreamVersion { stream_id, version }) = met else { return Ok(()) };
        let partition = self.partitions.of(stream_id);
        let from_there = whole::links(connection, partition, stream_id, version - 1, 1);
        for (linked, _) in within(STATEMENT_MAX, from_there).await? {
            let event = Event::decode(&linked.event.event_type, linked.event.schema_version, &linked.event.data);
            // Other flaws are judged where the event is needed.
            let _ = self.read(stream_id, linked.event.version, event)?;
        }
        self.met.send_replace(None);
        Ok(())
    }
}
