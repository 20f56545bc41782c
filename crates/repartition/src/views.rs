//! The views of the new log, kept behind it while it grows: once it is served, nobody waits for them.

use std::sync::Arc;

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use passbook_event_store::{Partitions, Primary};
use passbook_read_model::{self as read_model, projector::Projector};

/// One projector a partition.
pub struct Views {
    running: watch::Sender<i64>,
    projectors: Vec<JoinHandle<()>>,
}

impl Views {
    /// Registers the views of a log that is empty, or is a copy already, and begins to keep them.
    pub async fn keep(connect: &Primary, partitions: Partitions) -> sqlx::Result<Self> {
        read_model::register(connect, partitions).await?;
        let running = watch::Sender::new(0);
        let projector = |partition| {
            let projected = Arc::new(watch::Sender::new(0));
            let newer = Arc::new(watch::Sender::new(None));
            let projector = Projector::new(partition, connect.clone(), projected, Arc::new(Notify::new()), newer);
            tokio::spawn(projector.run(running.subscribe()))
        };
        let projectors = partitions.all().map(projector).collect();
        Ok(Self { running, projectors })
    }

    /// Waits until they have read the whole log.
    pub async fn finish(self) {
        drop(self.running);
        for projector in self.projectors {
            if let Err(error) = projector.await {
                tracing::error!(%error, "a projector did not end as it should");
            }
        }
    }
}
