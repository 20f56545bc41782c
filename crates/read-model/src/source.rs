//! Where queries are asked: at the replica while it is there and near, and at the primary otherwise.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, Result, query};
use tokio::time::{interval, timeout};

use super::QUERY_MS_MAX;
use passbook_event_store::Partitions;
use passbook_telemetry::metrics::METRICS;

/// A replica that is further behind than this is not asked, in milliseconds.
const REPLICA_LAG_MS_MAX: i64 = 5_000;
/// How often it is looked after.
const LOOK_MS: u64 = 500;
/// How long it may take to answer: whoever asks has another to turn to.
const REPLICA_MS_MAX: u64 = 1_000;
/// How long the primary may take to say what the replica lacks.
const PRIMARY_MS_MAX: u64 = 2_000;
/// For so long a reader who wants a position waits for the replica, then asks the primary.
pub(super) const REPLICA_WAIT_MS_MAX: u64 = 100;

/// The pools, cheap to clone.
#[derive(Clone)]
pub struct Source {
    primary: PgPool,
    replica: Option<Replica>,
    /// Whether the replica is passed over.
    is_at_primary: bool,
}

/// Who is asked.
pub(super) struct Asked<'a> {
    pub pool: &'a PgPool,
    pub is_replica: bool,
}

impl Asked<'_> {
    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(if self.is_replica { REPLICA_MS_MAX } else { QUERY_MS_MAX })
    }
}

#[derive(Clone)]
struct Replica {
    pool: PgPool,
    is_near: Arc<AtomicBool>,
}

impl Source {
    /// Asks the primary alone, or the replica as long as it is near.
    pub fn new(primary: PgPool, replica: Option<PgPool>, partitions: Partitions) -> Self {
        let replica = replica.map(|pool| Replica { pool, is_near: Arc::new(AtomicBool::new(false)) });
        if let Some(replica) = &replica {
            tokio::spawn(look_after(
                replica.pool.clone(),
                primary.clone(),
                partitions,
                Arc::downgrade(&replica.is_near),
            ));
        }
        Self { primary, replica, is_at_primary: false }
    }

    /// The primary.
    pub(super) fn primary(&self) -> &PgPool {
        &self.primary
    }

    /// The same without the replica.
    pub(super) fn at_primary(&self) -> Self {
        Self { is_at_primary: true, ..self.clone() }
    }

    /// Whether those who ask together may be asked for: not where they turn to the replica, and this one does not.
    pub(super) fn shares(&self, wants_position: bool) -> bool {
        self.replica.is_none() || !wants_position && !self.is_at_primary
    }

    /// Whoever is asked now, by one query.
    pub(super) fn asked(&self) -> Asked<'_> {
        let asked = self.asked_together();
        match self.replica.is_some() && !self.is_at_primary && !asked.is_replica {
            true => self.fall_back("away"),
            false => asked,
        }
    }

    /// The same, by several whose own falling back counts.
    pub(super) fn asked_together(&self) -> Asked<'_> {
        match &self.replica {
            Some(replica) if !self.is_at_primary && replica.is_near.load(Ordering::Relaxed) => {
                Asked { pool: &replica.pool, is_replica: true }
            }
            Some(_) | None => Asked { pool: &self.primary, is_replica: false },
        }
    }

    /// The primary, in place of the replica.
    pub(super) fn fall_back(&self, reason: &str) -> Asked<'_> {
        METRICS.replica_fallbacks.with_label_values(&[reason]).inc();
        Asked { pool: &self.primary, is_replica: false }
    }

    /// The replica failed a query: it is not asked again before it was looked after.
    pub(super) fn avoid_replica(&self, error: &sqlx::Error) {
        let was_near = self.replica.as_ref().is_some_and(|replica| replica.is_near.swap(false, Ordering::Relaxed));
        if was_near {
            tracing::warn!(%error, "the replica fails: queries go to the primary");
        }
    }
}

/// Runs until nobody asks any more.
async fn look_after(replica: PgPool, primary: PgPool, partitions: Partitions, is_near: Weak<AtomicBool>) {
    let partitions: Vec<i16> = partitions.all().collect();
    let mut looks = interval(Duration::from_millis(LOOK_MS));
    let mut known = None;
    loop {
        looks.tick().await;
        let seen = timeout(Duration::from_millis(REPLICA_MS_MAX), ends(&replica, &partitions)).await;
        let lag = match seen {
            Ok(Ok(seen)) => {
                let lacking = timeout(Duration::from_millis(PRIMARY_MS_MAX), lag_ms(&primary, &seen)).await;
                // Where it is the primary that does not answer, nothing is known anew of the replica, which does.
                lacking.ok().and_then(Result::ok).unwrap_or(known)
            }
            Ok(Err(_)) | Err(_) => None,
        };
        known = lag;
        let Some(is_near) = is_near.upgrade() else { return };
        let near = lag.is_some_and(|lag| lag <= REPLICA_LAG_MS_MAX);
        METRICS.tell_replica(near, lag);
        if is_near.swap(near, Ordering::Relaxed) != near {
            match near {
                true => tracing::info!(lag_ms = lag, "the replica answers queries"),
                false => tracing::warn!(
                    lag_ms = lag,
                    "the replica is away, far behind or of another history: queries go to the primary"
                ),
            }
        }
    }
}

/// Where each partition ends.
#[derive(Default)]
struct Ends {
    partitions: Vec<i16>,
    positions: Vec<i64>,
    hashes: Vec<Vec<u8>>,
}

/// Where each partition ends as the replica knows it.
async fn ends(replica: &PgPool, partitions: &[i16]) -> Result<Ends> {
    let heads = query!("SELECT partition, position, hash FROM log_head WHERE partition = ANY($1)", partitions);
    let mut ends = Ends::default();
    for head in heads.fetch_all(replica).await? {
        ends.partitions.push(head.partition);
        ends.positions.push(head.position);
        ends.hashes.push(head.hash);
    }
    Ok(ends)
}

/// For how long the oldest event has been waiting that the replica lacks, in milliseconds. `None`: it knows events that the
/// primary does not, as after a failover to another standby.
async fn lag_ms(primary: &PgPool, ends: &Ends) -> Result<Option<i64>> {
    let lag = query!(
        r#"SELECT
               coalesce(bool_and(seen.position = 0 OR coalesce(last.hash = seen.hash, false)), true) AS "is_ours!",
               coalesce(extract(epoch FROM now() - min(next.recorded_at)) * 1000, 0)::bigint AS "ms!"
           FROM unnest($1::smallint[], $2::bigint[], $3::bytea[]) AS seen(partition, position, hash)
           LEFT JOIN event AS last ON last.partition = seen.partition AND last.position = seen.position
           LEFT JOIN event AS next ON next.partition = seen.partition AND next.position = seen.position + 1"#,
        &ends.partitions,
        &ends.positions,
        &ends.hashes
    );
    let lag = lag.fetch_one(primary).await?;
    Ok(lag.is_ours.then_some(lag.ms.max(0)))
}
