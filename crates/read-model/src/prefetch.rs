//! Reads the next batch on a connection of its own while the projector writes the current one. It is used only while the views
//! are far behind, because then reading and decoding take no extra time.

use sqlx::{PgConnection, Result};

use crate::decoded_event::{DecodedEvent, read_batch};
use passbook_event_store::PrimaryConnector;

/// The prefetched batch of one partition.
pub(crate) struct Prefetcher {
    partition: i16,
    primary: PrimaryConnector,
    connection: Option<PgConnection>,
    /// The events and the position before the first one.
    batch: Option<(i64, Vec<DecodedEvent>)>,
}

impl Prefetcher {
    pub(crate) fn new(partition: i16, primary: PrimaryConnector) -> Self {
        Self { partition, primary, connection: None, batch: None }
    }

    /// Takes the batch after `position`, if it was prefetched.
    pub(crate) fn take(&mut self, position: i64) -> Option<Vec<DecodedEvent>> {
        self.batch.take().filter(|(after, _)| *after == position).map(|(_, events)| events)
    }

    /// Prefetches the batch after `position`. Best effort: after a failure the projector reads the batch itself.
    pub(crate) async fn read(&mut self, position: i64) {
        match self.try_read(position).await {
            Ok(events) => self.batch = Some((position, events)),
            Err(error) => {
                tracing::debug!(%error, partition = self.partition, "prefetch of the next batch failed");
                self.reset();
            }
        }
    }

    /// Drops the batch and closes the connection, because the views are near the head or the primary may have changed.
    pub(crate) fn reset(&mut self) {
        self.batch = None;
        self.connection = None;
    }

    async fn try_read(&mut self, position: i64) -> Result<Vec<DecodedEvent>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.primary.connect().await?),
        };
        read_batch(connection, self.partition, position).await
    }
}
