//! Reads and verifies the event log.
//!
//! [`EventReader`] returns pages of recorded events, and [`feed`] streams events as they are recorded. [`verification`] checks
//! the whole log and everything derived from it. [`Audit`] checks single accounts while the service runs.

mod event_log;
pub mod verification;

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::Semaphore;
use uuid::Uuid;

use passbook_event_store::{Partitions, log};

pub use event_log::{
    Cursor, CursorParam, Error, EventFilter, EventReader, EventRecord, InvalidCursor, InvalidCursorPosition, LogHead,
    LogPage, feed,
};
pub use verification::Verification;

/// How many accounts are verified at the same time. Each verification may use a connection for seconds.
const VERIFICATIONS_MAX: usize = 3;

/// Reads the heads of the log and verifies accounts. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    pool: PgPool,
    partitions: Partitions,
    verifications: Arc<Semaphore>,
}

impl Audit {
    /// Reads through `pool`.
    pub fn new(pool: PgPool, partitions: Partitions) -> Self {
        Self { pool, partitions, verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)) }
    }

    /// The head of each partition.
    ///
    /// # Errors
    /// The database failed.
    pub async fn heads(&self) -> Result<Vec<LogHead>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut heads = Vec::new();
        for partition in self.partitions.all() {
            heads.push(LogHead::new(self.partitions, partition, &log::head(&mut connection, partition).await?));
        }
        Ok(heads)
    }

    /// Verifies one account: its hashes in the hash chain, and its view. `None` if the account does not exist.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many accounts are being verified, or the database failed.
    pub async fn verify_account(&self, account_id: Uuid) -> Result<Option<Verification>, Error> {
        let _permit = self.verifications.try_acquire().map_err(|_| Error::Busy)?;
        let mut connection = self.pool.acquire().await?;
        Ok(verification::verify_account(&mut connection, self.partitions, account_id).await?)
    }
}
