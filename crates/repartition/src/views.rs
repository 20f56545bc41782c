//! The views of the new log, kept behind it while it grows: once it is served, nobody waits for them.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use passbook_event_store::{Partitions, Primary};
use passbook_read_model::{self as read_model, Projector};

/// One projector a partition.
pub struct Views {
    shutdown: DropGuard,
    projectors: Vec<JoinHandle<()>>,
}

impl Views {
    /// Registers the views of a log that is empty, or is a copy already, and begins to keep them.
    pub async fn keep(connect: &Primary, partitions: Partitions) -> sqlx::Result<Self> {
        read_model::register(connect, partitions).await?;
        let shutdown = CancellationToken::new();
        let projector = |partition| {
            // The copy appends in the same process and does not wake the projectors: they poll the head of the log.
            let appended = watch::channel(0).1;
            let newer = Arc::new(watch::Sender::new(None));
            let (projector, _) = Projector::new(partition, connect.clone(), appended, newer);
            tokio::spawn(projector.run(shutdown.clone()))
        };
        let projectors = partitions.all().map(projector).collect();
        Ok(Self { shutdown: shutdown.drop_guard(), projectors })
    }

    /// Waits until they have read the whole log.
    pub async fn finish(self) {
        drop(self.shutdown);
        for projector in self.projectors {
            if let Err(error) = projector.await {
                tracing::error!(%error, "a projector did not end as it should");
            }
        }
    }
}
