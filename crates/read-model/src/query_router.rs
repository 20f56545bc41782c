//! Chooses the server for each query: the replica while it answers and its lag is small, otherwise the primary.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, Result, query};
use tokio::time::interval;
use tokio_util::task::AbortOnDropHandle;

use passbook_event_store::{Partitions, StorageFailure, in_words, sqlstate, with_timeout};
use passbook_telemetry::{metrics::METRICS, supervision};

/// Limit of the replica's lag in milliseconds, above which queries use the primary.
const REPLICA_LAG_MS_MAX: i64 = 5_000;
/// Interval at which the lag is measured.
const MONITOR_MS: u64 = 500;
/// Time limit of a query at the replica. It is short, because the primary can answer instead.
const REPLICA_QUERY_MS_MAX: u64 = 1_000;
/// Time limit of the query at the primary that measures the lag.
const PRIMARY_LAG_MS_MAX: u64 = 2_000;
/// Time limit of a query at the primary.
pub(crate) const QUERY_MS_MAX: u64 = 5_000;
/// Limit of the time that a query waits for the replica to reach a position. After it, the query uses the primary.
pub(crate) const REPLICA_WAIT_MS_MAX: u64 = 100;

/// The pools of primary and replica, cheap to clone.
#[derive(Clone)]
pub struct QueryRouter {
    primary: PgPool,
    replica: Option<Replica>,
    /// Whether queries use only the primary, even if a replica is configured.
    is_primary_only: bool,
}

/// The server that a query is sent to.
pub(crate) struct Target<'a> {
    pub(crate) pool: &'a PgPool,
    pub(crate) is_replica: bool,
}

impl Target<'_> {
    /// Time limit of one query.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(if self.is_replica { REPLICA_QUERY_MS_MAX } else { QUERY_MS_MAX })
    }
}

#[derive(Clone)]
struct Replica {
    pool: PgPool,
    /// `true` while the replica answers and its lag is within the limit.
    is_usable: Arc<AtomicBool>,
    /// The task that sets `is_usable`. It ends with the last clone of the router.
    monitor: Arc<AbortOnDropHandle<()>>,
}

impl Replica {
    fn is_usable(&self) -> bool {
        self.is_usable.load(Ordering::Relaxed) && !self.monitor.is_finished()
    }
}

impl QueryRouter {
    /// A router that starts a task to monitor the replica, if there is one. Until its first measurement queries use the primary.
    pub fn new(primary: PgPool, replica: Option<PgPool>, partitions: Partitions) -> Self {
        let replica = replica.map(|pool| {
            let is_usable = Arc::new(AtomicBool::new(false));
            let monitor = monitor_replica(pool.clone(), primary.clone(), partitions, Arc::clone(&is_usable));
            let monitor = supervision::spawn("replica monitor", monitor);
            Replica { pool, is_usable, monitor: Arc::new(AbortOnDropHandle::new(monitor)) }
        });
        Self { primary, replica, is_primary_only: false }
    }

    /// The pool of the primary.
    pub(crate) fn primary(&self) -> &PgPool {
        &self.primary
    }

    /// The same router without the replica.
    pub(crate) fn at_primary(&self) -> Self {
        Self { is_primary_only: true, ..self.clone() }
    }

    /// Whether a query for one account may join the shared batch. It may not if the batch could go to the replica and this query
    /// needs the primary, or may need it because it `wants_position`.
    pub(crate) fn can_share(&self, wants_position: bool) -> bool {
        self.replica.is_none() || !wants_position && !self.is_primary_only
    }

    /// The server for one query. Counts a fallback if the replica cannot be used.
    pub(crate) fn target(&self) -> Target<'_> {
        let target = self.shared_target();
        match self.replica.is_some() && !self.is_primary_only && !target.is_replica {
            true => self.fall_back("away"),
            false => target,
        }
    }

    /// The server for a batch of queries, each of which counts its own fallback.
    pub(crate) fn shared_target(&self) -> Target<'_> {
        match &self.replica {
            Some(replica) if !self.is_primary_only && replica.is_usable() => {
                Target { pool: &replica.pool, is_replica: true }
            }
            Some(_) | None => Target { pool: &self.primary, is_replica: false },
        }
    }

    /// The primary instead of the replica. The reason is a metric label.
    pub(crate) fn fall_back(&self, reason: &str) -> Target<'_> {
        METRICS.replica_fallbacks.with_label_values(&[reason]).inc();
        Target { pool: &self.primary, is_replica: false }
    }

    /// The primary, because the replica failed a query. After an error other than a timeout, no query uses the replica until it
    /// has been measured again. A timeout changes nothing, because the next query may be fast.
    pub(crate) fn fall_back_after(&self, error: &sqlx::Error) -> Target<'_> {
        if !is_timeout(error)
            && let Some(replica) = &self.replica
            && replica.is_usable.swap(false, Ordering::Relaxed)
        {
            let (failure, sqlstate, text) = (StorageFailure::of(error).as_str(), sqlstate(error), error.to_string());
            let error = in_words(&text);
            tracing::warn!(failure, sqlstate = &*sqlstate, error, "replica query failed; queries use the primary");
        }
        self.fall_back("away")
    }
}

/// Measures the replica's lag at intervals.
async fn monitor_replica(replica: PgPool, primary: PgPool, partitions: Partitions, is_usable: Arc<AtomicBool>) {
    let partitions: Vec<i16> = partitions.all().collect();
    let mut ticks = interval(Duration::from_millis(MONITOR_MS));
    let mut last_lag = None;
    loop {
        ticks.tick().await;
        let heads = with_timeout(Duration::from_millis(REPLICA_QUERY_MS_MAX), heads(&replica, &partitions)).await;
        let failure = heads.as_ref().err().map(StorageFailure::of);
        let lag = match heads {
            Ok(heads) => {
                let lag = with_timeout(Duration::from_millis(PRIMARY_LAG_MS_MAX), lag_ms(&primary, &heads)).await;
                // The replica answers and the primary does not: the last measurement remains valid.
                lag.unwrap_or(last_lag)
            }
            Err(_) => None,
        };
        last_lag = lag;
        let usable = lag.is_some_and(|lag| lag <= REPLICA_LAG_MS_MAX);
        METRICS.set_replica(usable, lag);
        if is_usable.swap(usable, Ordering::Relaxed) != usable {
            match usable {
                true => tracing::info!(lag_ms = lag, "queries use the replica"),
                false => {
                    let reason = match (failure, lag) {
                        (Some(failure), _) => failure.as_str(),
                        (None, Some(_)) => "behind",
                        (None, None) => "other_history",
                    };
                    tracing::warn!(reason, lag_ms = lag, "replica is not used; queries use the primary");
                }
            }
        }
    }
}

/// The head of each partition.
#[derive(Default)]
struct Heads {
    partitions: Vec<i16>,
    positions: Vec<i64>,
    hashes: Vec<Vec<u8>>,
}

/// Reads the heads from the replica.
async fn heads(replica: &PgPool, partitions: &[i16]) -> Result<Heads> {
    let rows = query!("SELECT partition, position, hash FROM log_head WHERE partition = ANY($1)", partitions);
    let mut heads = Heads::default();
    for row in rows.fetch_all(replica).await? {
        heads.partitions.push(row.partition);
        heads.positions.push(row.position);
        heads.hashes.push(row.hash);
    }
    Ok(heads)
}

/// The age in milliseconds of the oldest event that the replica does not have; 0 if it has all. `None` if the replica has events
/// that the primary does not have, as after a failover to another standby.
async fn lag_ms(primary: &PgPool, heads: &Heads) -> Result<Option<i64>> {
    let lag = query!(
        r#"SELECT
               coalesce(bool_and(seen.position = 0 OR coalesce(last.hash = seen.hash, false)), true) AS "is_ours!",
               coalesce(extract(epoch FROM now() - min(next.recorded_at)) * 1000, 0)::bigint AS "ms!"
           FROM unnest($1::smallint[], $2::bigint[], $3::bytea[]) AS seen(partition, position, hash)
           LEFT JOIN event AS last ON last.partition = seen.partition AND last.position = seen.position
           LEFT JOIN event AS next ON next.partition = seen.partition AND next.position = seen.position + 1"#,
        &heads.partitions,
        &heads.positions,
        &heads.hashes
    );
    let lag = lag.fetch_one(primary).await?;
    Ok(lag.is_ours.then_some(lag.ms.max(0)))
}

/// Whether the database did not answer within a time limit.
pub(crate) fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}
