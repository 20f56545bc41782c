//! The batch after the one that the projector is writing, read meanwhile on a connection of its own. Only while the views
//! are far behind: then reading and decoding cost no time beside the writing.

use sqlx::{PgConnection, Result};

use super::{followers, projection::Applicable};
use passbook_event_store::Primary;

/// What was read ahead in one partition.
pub(super) struct Ahead {
    partition: i16,
    connect: Primary,
    connection: Option<PgConnection>,
    /// Events, and the position that they follow.
    batch: Option<(i64, Vec<Applicable>)>,
}

impl Ahead {
    pub(super) fn new(partition: i16, connect: Primary) -> Self {
        Self { partition, connect, connection: None, batch: None }
    }

    /// The events after `position`, if they are what was read.
    pub(super) fn take(&mut self, position: i64) -> Option<Vec<Applicable>> {
        self.batch.take().filter(|(after, _)| *after == position).map(|(_, events)| events)
    }

    /// Reads the batch after `position`. Best effort: what was not read here is read when its turn comes.
    pub(super) async fn read(&mut self, position: i64) {
        match self.try_read(position).await {
            Ok(events) => self.batch = Some((position, events)),
            Err(error) => {
                tracing::debug!(%error, "the next batch could not be read ahead");
                self.forget();
            }
        }
    }

    /// Drops what was read, and the connection: nothing is far behind, or the database may be another one now.
    pub(super) fn forget(&mut self) {
        self.batch = None;
        self.connection = None;
    }

    async fn try_read(&mut self, position: i64) -> Result<Vec<Applicable>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.connect.connect().await?),
        };
        followers::read(connection, self.partition, position).await
    }
}
