//! The log for those who read and check it: [`Trail`] pages of what was recorded and [`feed`](feed) of what is being
//! recorded, the whole of it by [`verify`](verify::verify), one account while the bank runs, and where it ends.

mod account;
mod books;
mod cursor;
pub mod feed;
mod filter;
mod receipts;
mod record;
mod report;
mod trail;
mod transfers;
pub mod verify;
mod witness;

use std::sync::Arc;

use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use passbook_event_store::{Partitions, log};

pub use account::Verification;
pub use cursor::{Bookmark, Cursor, InvalidCursor};
pub use filter::Filter;
pub use record::EventRecord;
pub use report::{Finding, Money, Report};
pub use trail::{LogPage, Misplaced, Trail};
pub use witness::{InvalidWitness, Witness};

/// How many accounts are verified at once; each may keep a connection for seconds.
const VERIFICATIONS_MAX: usize = 3;

/// The handle to the log for readers, cheap to clone.
#[derive(Clone)]
pub struct Audit {
    pool: PgPool,
    partitions: Partitions,
    verifications: Arc<Semaphore>,
}

/// Where a partition's log ends.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogHead {
    /// The partition.
    #[schema(example = 0)]
    pub partition: i16,
    /// The last event's position; 0 in an empty log.
    #[schema(example = 42, minimum = 0)]
    pub position: i64,
    /// The last event's hash, which covers every event before it; zeros in an empty log.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

/// Why a question about the log has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// So many are looking already.
    #[error("too many are looking at the log")]
    Busy,
    /// A cursor leads nowhere.
    #[error(transparent)]
    Misplaced(#[from] trail::Misplaced),
    /// The database does not answer.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

impl Audit {
    /// Reads through `pool`.
    pub fn new(pool: PgPool, partitions: Partitions) -> Self {
        Self { pool, partitions, verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)) }
    }

    /// Where each partition's log ends.
    pub async fn heads(&self) -> Result<Vec<LogHead>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut heads = Vec::new();
        for partition in self.partitions.all() {
            let head = log::head(&mut connection, partition).await?;
            heads.push(LogHead { partition, position: head.position, hash: hex::encode(head.hash) });
        }
        Ok(heads)
    }
}
