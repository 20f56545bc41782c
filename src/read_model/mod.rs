//! The tables that queries read: each view, its projection, its check and its queries share a folder, and [`projector`] keeps
//! them all behind the log.

pub mod accounts;
mod ahead;
pub mod bank_totals;
pub mod builder;
mod check;
pub mod daily_balances;
mod followers;
mod generation;
pub mod projection;
pub mod projector;
pub mod rebuild;
pub mod status;
mod sum;
mod tally;
pub mod transactions;

use std::{future::Future, io, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::event_store::Position;

pub use sum::Sum;

/// How long a query waits for a view to reach the position that it asks for.
pub const PROJECTION_WAIT_MS_MAX: u64 = 2_000;
/// How long one query may take before its server is taken for frozen.
const QUERY_MS_MAX: u64 = 5_000;
/// Another instance may do the projecting: look again after so long, whoever wakes us, and later and later.
const LOOK_AGAIN_MS_MIN: u64 = 5;
const LOOK_AGAIN_MS_MAX: u64 = 100;
/// How many pages of statements are read at once: fewer than there are connections.
const STATEMENT_PAGES_AT_ONCE_MAX: usize = 4;

/// The handle to the read tables, cheap to clone.
#[derive(Clone)]
pub struct ReadModel {
    pool: PgPool,
    partition: i16,
    projected: watch::Receiver<i64>,
    awaited: Arc<Notify>,
    lookups: accounts::Lookups,
    statement_pages: Arc<Semaphore>,
}

/// What a query saw, and how far the view behind it had read.
#[derive(Clone, Debug)]
pub struct Seen<T> {
    /// The answer.
    pub value: T,
    /// The view's checkpoint, read in the same statement.
    pub position: Position,
    /// Which generation of the view answered, from 1.
    pub generation: i16,
}

impl<T> Seen<T> {
    /// The same seeing, told otherwise.
    pub fn map<U>(self, tell: impl FnOnce(T) -> U) -> Seen<U> {
        Seen { value: tell(self.value), position: self.position, generation: self.generation }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view has not reached the position asked for in time, or has never caught up.
    #[error("the view is behind the log")]
    Behind,
    /// The rows of the view contradict each other.
    #[error("the view does not add up: {0}")]
    Broken(String),
    /// The database does not answer.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

/// Makes sure that each view is one that the log knows, before the first command: a view of an empty log is live at once.
pub async fn register(connect: &PgConnectOptions, partition: i16) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect_with(connect).await?;
    generation::register(&mut connection, partition).await?;
    connection.close().await
}

impl ReadModel {
    /// Queries through `pool`; `projected` tells when the projector in this process has moved, and `awaited` tells it
    /// that a reader waits.
    pub fn new(pool: PgPool, partition: i16, projected: watch::Receiver<i64>, awaited: Arc<Notify>) -> Self {
        let lookups = accounts::Lookups::start(pool.clone(), partition);
        let statement_pages = Arc::new(Semaphore::new(STATEMENT_PAGES_AT_ONCE_MAX));
        Self { pool, partition, projected, awaited, lookups, statement_pages }
    }

    /// Whether this process still projects.
    pub fn is_projecting(&self) -> bool {
        self.projected.has_changed().is_ok()
    }

    /// Asks until the view has read up to `min_position`, at most [`PROJECTION_WAIT_MS_MAX`]. `query` answers `None`
    /// while no generation of the view has caught up.
    async fn at_least<T, F>(&self, min_position: Option<Position>, query: impl Fn() -> F) -> Result<Seen<T>, Error>
    where
        F: Future<Output = sqlx::Result<Option<Seen<T>>>>,
    {
        let wanted = min_position.unwrap_or_default();
        let deadline = Instant::now() + Duration::from_millis(PROJECTION_WAIT_MS_MAX);
        let mut projected = self.projected.clone();
        let mut pause = LOOK_AGAIN_MS_MIN;
        loop {
            projected.mark_unchanged();
            let answered = timeout(Duration::from_millis(QUERY_MS_MAX), query()).await;
            match answered.unwrap_or_else(|_| Err(timed_out())) {
                Ok(Some(seen)) if seen.position >= wanted => return Ok(seen),
                Ok(_) if Instant::now() < deadline => {}
                Ok(_) => return Err(Error::Behind),
                Err(error) => return Err(error.into()),
            }
            self.awaited.notify_one();
            let look_again = Instant::now() + Duration::from_millis(pause);
            pause = (pause * 2).min(LOOK_AGAIN_MS_MAX);
            // Woken or not, the next look tells.
            let _ = timeout_at(look_again.min(deadline), projected.changed()).await;
        }
    }
}

/// The database did not answer in time.
fn timed_out() -> sqlx::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// The first `limit` rows of a query for one more, and whether there are more.
fn page<T>(mut rows: Vec<T>, limit: i64) -> (Vec<T>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    (rows, more)
}
