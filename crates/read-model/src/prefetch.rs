//! Reads the next batch in a task with a connection of its own, while the projector writes the current one. It is used only while
//! the views are far behind, because then reading and decoding take no extra time.

use sqlx::{PgConnection, Result};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::decoded_event::{DecodedBatch, read_batch};
use passbook_event_store::PrimaryConnector;
use passbook_telemetry::supervision;

/// The prefetched batch of one partition.
pub(crate) struct Prefetcher {
    partition: i16,
    /// The most events of a batch.
    batch_events: i64,
    primary: PrimaryConnector,
    connection: Option<PgConnection>,
    running: Option<Running>,
}

/// A read in progress, or its result.
struct Running {
    /// The position before the first event.
    after: i64,
    result: oneshot::Receiver<Result<(PgConnection, DecodedBatch)>>,
    _task: AbortOnDropHandle<()>,
}

impl Prefetcher {
    pub(crate) fn new(partition: i16, primary: PrimaryConnector, batch_events: i64) -> Self {
        Self { partition, batch_events, primary, connection: None, running: None }
    }

    /// Starts to read the batch after `position`.
    pub(crate) fn start(&mut self, position: i64) {
        let (partition, batch_events) = (self.partition, self.batch_events);
        let (primary, connection) = (self.primary.clone(), self.connection.take());
        let (sender, result) = oneshot::channel();
        let task = supervision::spawn("prefetch", async move {
            // Sending fails if the projector no longer needs the batch.
            let _ = sender.send(read(connection, &primary, partition, position, batch_events).await);
        });
        self.running = Some(Running { after: position, result, _task: AbortOnDropHandle::new(task) });
    }

    /// Takes the batch after `position`, if its read was started. The caller must not be in a transaction, because it may have to
    /// wait. Best effort: `None` after a failure, and the projector reads the batch itself.
    pub(crate) async fn take(&mut self, position: i64) -> Option<DecodedBatch> {
        let running = self.running.take().filter(|running| running.after == position)?;
        match running.result.await {
            Ok(Ok((connection, read))) => {
                self.connection = Some(connection);
                Some(read)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, partition = self.partition, "prefetch of the next batch failed");
                None
            }
            Err(_) => None,
        }
    }

    /// Drops the batch and closes the connection, because the views are near the head or the primary may have changed.
    pub(crate) fn reset(&mut self) {
        self.running = None;
        self.connection = None;
    }
}

async fn read(
    connection: Option<PgConnection>,
    primary: &PrimaryConnector,
    partition: i16,
    position: i64,
    batch_events: i64,
) -> Result<(PgConnection, DecodedBatch)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => primary.connect().await?,
    };
    let read = read_batch(&mut connection, partition, position, batch_events).await?;
    Ok((connection, read))
}
