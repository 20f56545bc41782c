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
mod source;
pub mod status;
mod sum;
mod tally;
pub mod transactions;

use std::{future::Future, io, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};

use sqlx::{Connection, PgPool};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};

use passbook_event_store::{Partitions, Position, Primary};

use self::source::REPLICA_WAIT_MS_MAX;
pub use source::Source;
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
/// Of how many partitions one query reads at once: fewer than there are connections.
const PARTITIONS_AT_ONCE_MAX: usize = 4;

/// The handle to the read tables, cheap to clone.
#[derive(Clone)]
pub struct ReadModel {
    source: Source,
    partitions: Partitions,
    /// Of each partition.
    lanes: Arc<[Lane]>,
    statement_pages: Arc<Semaphore>,
    last_probe: Arc<status::LastProbe>,
}

/// One partition's views: how far this process has brought them, and the way to say that somebody waits.
pub struct Progress {
    /// Told by the projector when it has moved.
    pub projected: watch::Receiver<i64>,
    /// Told that a reader waits.
    pub awaited: Arc<Notify>,
}

struct Lane {
    progress: Progress,
    lookups: accounts::Lookups,
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

impl<T> Seen<Vec<T>> {
    /// What was seen in several partitions, in their order.
    fn of_all(seen: Vec<Seen<T>>) -> Self {
        let mut all = Seen { value: Vec::with_capacity(seen.len()), position: Position::default(), generation: 1 };
        for Seen { value, position, generation } in seen {
            all.position = if all.value.is_empty() { position } else { all.position.and(position) };
            all.generation = all.generation.max(generation);
            all.value.push(value);
        }
        all
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view has not reached the position asked for in time, or has never caught up.
    #[error("the view is behind the log")]
    Behind,
    /// The position asked for is of a log with other partitions.
    #[error("min_position is of another log: this one has {0}")]
    Elsewhere(String),
    /// The rows of the view contradict each other.
    #[error("the view does not add up: {0}")]
    Broken(String),
    /// The database does not answer.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

/// Makes sure that each view is one that the log knows, before the first command: a view of an empty log is live at once.
pub async fn register(connect: &Primary, partitions: Partitions) -> sqlx::Result<()> {
    let mut connection = connect.connect().await?;
    for partition in partitions.all() {
        generation::register(&mut connection, partition).await?;
    }
    connection.close().await
}

impl ReadModel {
    /// Queries from `source`; `progress` is that of each partition's projector in this process.
    pub fn new(source: Source, partitions: Partitions, progress: Vec<Progress>) -> Self {
        let lane = |(partition, progress)| Lane {
            progress,
            lookups: accounts::Lookups::start(source.clone(), partitions, partition),
        };
        let lanes = partitions.all().zip(progress).map(lane).collect();
        let statement_pages = Arc::new(Semaphore::new(STATEMENT_PAGES_AT_ONCE_MAX));
        Self { source, partitions, lanes, statement_pages, last_probe: Arc::default() }
    }

    /// Whether this process still projects every partition.
    pub fn is_projecting(&self) -> bool {
        self.lanes.iter().all(|lane| lane.progress.projected.has_changed().is_ok())
    }

    /// The same, asked at the primary alone.
    pub fn at_primary(&self) -> Self {
        Self { source: self.source.at_primary(), ..self.clone() }
    }

    fn lane(&self, partition: i16) -> Option<&Lane> {
        self.lanes.get(usize::try_from(partition).ok()?)
    }

    /// What every partition's view says, in their order, once each has read up to `min_position`.
    async fn of_all<T, F>(
        &self,
        min_position: Option<&Position>,
        query: impl Fn(i16, PgPool) -> F,
    ) -> Result<Seen<Vec<T>>, Error>
    where
        F: Future<Output = sqlx::Result<Option<Seen<T>>>>,
    {
        let query = &query;
        let asked = self
            .partitions
            .all()
            .map(|partition| self.at_least(partition, min_position, move |pool| query(partition, pool)));
        let seen: Vec<Seen<T>> = stream::iter(asked).buffered(PARTITIONS_AT_ONCE_MAX).try_collect().await?;
        Ok(Seen::of_all(seen))
    }

    /// Asks one partition's view until it has read up to `min_position` there, at most [`PROJECTION_WAIT_MS_MAX`]. What the
    /// position says of other partitions is not waited for. `query` answers `None` while no generation of the view has
    /// caught up.
    async fn at_least<T, F>(
        &self,
        partition: i16,
        min_position: Option<&Position>,
        query: impl Fn(PgPool) -> F,
    ) -> Result<Seen<T>, Error>
    where
        F: Future<Output = sqlx::Result<Option<Seen<T>>>>,
    {
        if min_position.is_some_and(|position| !self.partitions.hold(position)) {
            return Err(Error::Elsewhere(self.form()));
        }
        let wanted = min_position.map_or(0, |position| position.at(partition));
        let Some(Lane { progress: Progress { projected, awaited }, .. }) = self.lane(partition) else {
            return Err(Error::Behind);
        };
        let deadline = Instant::now() + Duration::from_millis(PROJECTION_WAIT_MS_MAX);
        let mut projected = projected.clone();
        let replica_until = Instant::now() + Duration::from_millis(REPLICA_WAIT_MS_MAX);
        let mut asked = self.source.asked();
        let mut pause = LOOK_AGAIN_MS_MIN;
        loop {
            projected.mark_unchanged();
            if asked.is_replica && Instant::now() >= replica_until {
                asked = self.source.fall_back("position");
            }
            let answered = timeout(asked.patience(), query(asked.pool.clone())).await;
            match answered.unwrap_or_else(|_| Err(timed_out())) {
                Ok(Some(seen)) if seen.position.at(partition) >= wanted => return Ok(seen),
                Err(error) if asked.is_replica => {
                    // A slow answer is no sign that the next one is slow, too.
                    if !is_timed_out(&error) {
                        self.source.avoid_replica(&error);
                    }
                    asked = self.source.fall_back("away");
                    continue;
                }
                Ok(_) if Instant::now() < deadline => {}
                Ok(_) => return Err(Error::Behind),
                Err(error) => return Err(error.into()),
            }
            awaited.notify_one();
            let look_again = Instant::now() + Duration::from_millis(pause);
            pause = (pause * 2).min(LOOK_AGAIN_MS_MAX);
            // Woken or not, the next look tells.
            let _ = timeout_at(look_again.min(deadline), projected.changed()).await;
        }
    }

    /// How this log's positions are written.
    fn form(&self) -> String {
        match self.partitions.count() {
            1 => "one partition, and positions such as 42".to_owned(),
            count => format!("{count} partitions, and positions such as 0:42,1:17"),
        }
    }
}

/// The database did not answer in time.
fn timed_out() -> sqlx::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

fn is_timed_out(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// The first `limit` rows of a query for one more, and whether there are more.
fn page<T>(mut rows: Vec<T>, limit: i64) -> (Vec<T>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    (rows, more)
}
