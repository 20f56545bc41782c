//! Projects the views of the new log while events are copied into it, so that they are current when the service starts.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use passbook_event_store::{Partitions, PrimaryConnector};
use passbook_read_model::{self as read_model, Projector};
use passbook_telemetry::supervision;

/// One projector for each partition of the new log.
pub struct ProjectorSet {
    /// Ends the projectors when it is dropped.
    shutdown: DropGuard,
    projectors: Vec<JoinHandle<()>>,
}

impl ProjectorSet {
    /// Registers the views of the new log, and starts its projectors.
    ///
    /// # Errors
    /// The database failed while the views were registered.
    pub async fn start(database: &PrimaryConnector, partitions: Partitions) -> sqlx::Result<Self> {
        read_model::register(database, partitions).await?;
        let shutdown = CancellationToken::new();
        let start = |partition| {
            // The copy does not wake the projectors, so they poll the head of the log.
            let appended = watch::channel(0).1;
            let unsupported_event = Arc::new(watch::Sender::new(None));
            let (projector, _) = Projector::new(partitions, partition, database, appended, unsupported_event);
            supervision::spawn("projector", projector.run(shutdown.clone()))
        };
        let projectors = partitions.all().map(start).collect();
        Ok(Self { shutdown: shutdown.drop_guard(), projectors })
    }

    /// Waits until the projectors have read the log up to its head, and ends them.
    pub async fn finish(self) {
        drop(self.shutdown);
        for projector in self.projectors {
            if let Err(error) = projector.await {
                tracing::error!(%error, "projector task failed");
            }
        }
    }
}
