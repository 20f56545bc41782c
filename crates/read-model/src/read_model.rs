//! The handle to the read tables. It sends queries to the replica or the primary and repeats them until the view has reached the
//! position that the client asks for.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::PgPool;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, timeout_at},
};

use crate::{
    journal::Journal,
    positioned::Positioned,
    query_router::{QueryRouter, REPLICA_WAIT_MS_MAX},
    status::LastReadiness,
    views::accounts::batch_loader::AccountLoader,
};
use passbook_event_store::{Partitions, Position, with_timeout};

/// Limit of the time that a query waits for a view to reach a position.
pub const PROJECTION_WAIT_MS_MAX: u64 = 2_000;
/// Interval at which a waiting query reads again without a signal of the projector, because another instance may move the view.
/// It doubles with each read.
const REREAD_MS_MIN: u64 = 5;
const REREAD_MS_MAX: u64 = 100;
/// Limit of pages of statements that are read at the same time. It is smaller than the pool, so other queries get a connection.
const STATEMENT_PAGES_AT_ONCE_MAX: usize = 4;
/// Limit of partitions that one query reads at the same time. It is smaller than the pool.
const PARTITIONS_AT_ONCE_MAX: usize = 4;

/// The handle to the read tables, cheap to clone.
#[derive(Clone)]
pub struct ReadModel {
    pub(crate) router: QueryRouter,
    pub(crate) partitions: Partitions,
    handles: Arc<[PartitionHandle]>,
    pub(crate) statement_pages: Arc<Semaphore>,
    pub(crate) journal: Journal,
    pub(crate) last_readiness: Arc<LastReadiness>,
}

/// The connection between the queries and the projector of one partition in this process.
pub struct Progress {
    /// The lowest checkpoint that the projector wrote. Closed when the projector has ended.
    pub projected: watch::Receiver<i64>,
    /// Wakes the projector because a query waits.
    pub reader_waiting: Arc<Notify>,
}

pub(crate) struct PartitionHandle {
    progress: Progress,
    pub(crate) accounts: AccountLoader,
}

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view did not reach the requested position in time, or no generation of it is live.
    #[error("The view is behind the log.")]
    Lagging {
        /// How far the view has read; 0 if no generation of it is live.
        reached: Position,
    },
    /// The requested position belongs to a log with other partitions. The text describes the positions of this log.
    #[error("min_position is not a position of this log, which has {0}.")]
    ForeignPosition(String),
    /// The rows of the view contradict each other. The text says how.
    #[error("The rows of the view contradict each other: {0}")]
    Inconsistent(String),
    /// The database failed or did not answer in time.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

impl ReadModel {
    /// Sends queries through `router`. `progress` has one entry per partition, in order.
    pub fn new(router: QueryRouter, partitions: Partitions, progress: Vec<Progress>) -> Self {
        let loaders = AccountLoader::start_all(&router, partitions);
        let handles = loaders.into_iter().zip(progress);
        let handles = handles.map(|(accounts, progress)| PartitionHandle { progress, accounts }).collect();
        let statement_pages = Arc::new(Semaphore::new(STATEMENT_PAGES_AT_ONCE_MAX));
        let journal = Journal::new(router.primary().clone(), partitions);
        Self { router, partitions, handles, statement_pages, journal, last_readiness: Arc::default() }
    }

    /// Whether the projectors of all partitions are running.
    pub fn is_projecting(&self) -> bool {
        self.handles.iter().all(|handle| handle.progress.projected.has_changed().is_ok())
    }

    /// The same read model, which queries only the primary.
    pub fn at_primary(&self) -> Self {
        Self { router: self.router.at_primary(), ..self.clone() }
    }

    pub(crate) fn partition(&self, partition: i16) -> Result<&PartitionHandle, Error> {
        let handle = usize::try_from(partition).ok().and_then(|index| self.handles.get(index));
        handle.ok_or_else(|| Error::Lagging { reached: self.partitions.position_in(partition, 0) })
    }

    /// Fails if `min_position` cannot be a position of this log.
    pub(crate) fn check_position(&self, min_position: Option<&Position>) -> Result<(), Error> {
        match min_position {
            Some(position) if !self.partitions.covers(position) => Err(Error::ForeignPosition(self.position_format())),
            Some(_) | None => Ok(()),
        }
    }

    /// Queries every partition, in order, once each has reached `min_position`.
    pub(crate) async fn query_all_partitions<T, F>(
        &self,
        min_position: Option<&Position>,
        query: impl Fn(i16, PgPool) -> F,
    ) -> Result<Positioned<Vec<T>>, Error>
    where
        F: Future<Output = sqlx::Result<Option<Positioned<T>>>>,
    {
        let query = &query;
        let queries = self
            .partitions
            .all()
            .map(|partition| self.query_at_least(partition, min_position, move |pool| query(partition, pool)));
        let results: Vec<Positioned<T>> = stream::iter(queries).buffered(PARTITIONS_AT_ONCE_MAX).try_collect().await?;
        Ok(Positioned::merge(results))
    }

    /// Repeats a query of one partition until the view has reached `min_position` there, for at most
    /// [`PROJECTION_WAIT_MS_MAX`]. Other partitions of the position are ignored. `query` returns `None` while no generation of
    /// the view is live.
    pub(crate) async fn query_at_least<T, F>(
        &self,
        partition: i16,
        min_position: Option<&Position>,
        query: impl Fn(PgPool) -> F,
    ) -> Result<Positioned<T>, Error>
    where
        F: Future<Output = sqlx::Result<Option<Positioned<T>>>>,
    {
        self.check_position(min_position)?;
        let wanted = min_position.map_or(0, |position| position.in_partition(partition));
        let Progress { projected, reader_waiting } = &self.partition(partition)?.progress;
        let mut reached = self.partitions.position_in(partition, 0);
        let started = Instant::now();
        let deadline = started + Duration::from_millis(PROJECTION_WAIT_MS_MAX);
        let replica_deadline = started + Duration::from_millis(REPLICA_WAIT_MS_MAX);
        let mut projected = projected.clone();
        let mut target = self.router.target();
        let mut pause_ms = REREAD_MS_MIN;
        loop {
            projected.mark_unchanged();
            if target.is_replica && Instant::now() >= replica_deadline {
                target = self.router.fall_back("position");
            }
            match with_timeout(target.timeout(), query(target.pool.clone())).await {
                Ok(Some(result)) if result.position.in_partition(partition) >= wanted => return Ok(result),
                Ok(result) => {
                    reached = result.map_or(reached, |result| result.position);
                    if Instant::now() >= deadline {
                        return Err(Error::Lagging { reached });
                    }
                }
                Err(error) if target.is_replica => {
                    target = self.router.fall_back_after(&error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            reader_waiting.notify_one();
            let reread = Instant::now() + Duration::from_millis(pause_ms);
            pause_ms = (pause_ms * 2).min(REREAD_MS_MAX);
            // With or without a signal of the projector, the query reads again.
            let _ = timeout_at(reread.min(deadline), projected.changed()).await;
        }
    }

    /// Describes the positions of this log for a client.
    fn position_format(&self) -> String {
        match self.partitions.count() {
            1 => "one partition and positions such as 42".to_owned(),
            count => format!("{count} partitions and positions such as 0:42,1:17"),
        }
    }
}
