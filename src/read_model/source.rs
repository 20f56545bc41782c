//! Where queries are asked: at the replica while it is there and near, and at the primary otherwise.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Result, query_scalar};
use tokio::time::{interval, timeout};

use crate::{event_store::Partitions, metrics::METRICS};

/// A replica that is further behind than this is not asked, in milliseconds.
const REPLICA_LAG_MS_MAX: i64 = 5_000;
/// How often it is looked after.
const LOOK_MS: u64 = 500;
/// How long it may take to say how far it is.
const ANSWER_MS_MAX: u64 = 2_000;
/// For so long a reader who wants a position waits for the replica, then asks the primary.
pub(super) const REPLICA_WAIT_MS_MAX: u64 = 100;

/// The pools, cheap to clone.
#[derive(Clone)]
pub struct Source {
    primary: PgPool,
    replica: Option<Replica>,
}

/// Who is asked.
pub(super) struct Asked<'a> {
    pub pool: &'a PgPool,
    pub is_replica: bool,
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
        Self { primary, replica }
    }

    /// The primary.
    pub(super) fn primary(&self) -> &PgPool {
        &self.primary
    }

    /// Whether a replica is configured.
    pub(super) fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// Whoever is asked now.
    pub(super) fn asked(&self) -> Asked<'_> {
        match &self.replica {
            Some(replica) if replica.is_near.load(Ordering::Relaxed) => Asked { pool: &replica.pool, is_replica: true },
            Some(_) | None => self.asked_primary(),
        }
    }

    /// The primary, whether or not the replica is near.
    pub(super) fn asked_primary(&self) -> Asked<'_> {
        Asked { pool: &self.primary, is_replica: false }
    }

    /// The replica failed a query: it is not asked again before it was looked after.
    pub(super) fn avoid_replica(&self, error: &sqlx::Error) {
        let was_near = self.replica.as_ref().is_some_and(|replica| replica.is_near.swap(false, Ordering::Relaxed));
        if was_near {
            tracing::warn!(%error, "the replica fails: queries go to the primary");
        }
        METRICS.replica_fallbacks.with_label_values(&["away"]).inc();
    }
}

/// Runs until nobody asks any more.
async fn look_after(replica: PgPool, primary: PgPool, partitions: Partitions, is_near: Weak<AtomicBool>) {
    let partitions: Vec<i16> = partitions.all().collect();
    let mut looks = interval(Duration::from_millis(LOOK_MS));
    loop {
        looks.tick().await;
        let lag = timeout(Duration::from_millis(ANSWER_MS_MAX), lag_ms(&replica, &primary, &partitions)).await;
        let lag = lag.ok().and_then(Result::ok);
        let Some(is_near) = is_near.upgrade() else { return };
        let near = lag.is_some_and(|lag| lag <= REPLICA_LAG_MS_MAX);
        METRICS.replica_near.set(i64::from(near));
        if let Some(lag) = lag {
            METRICS.replica_lag.set(lag as f64 / 1e3);
        }
        if is_near.swap(near, Ordering::Relaxed) != near {
            match near {
                true => tracing::info!(lag_ms = lag, "the replica answers queries"),
                false => tracing::warn!(lag_ms = lag, "the replica is away or far behind: queries go to the primary"),
            }
        }
    }
}

/// How much older the last event is that the replica knows, in milliseconds.
async fn lag_ms(replica: &PgPool, primary: &PgPool, partitions: &[i16]) -> Result<i64> {
    let (theirs, ours) = tokio::try_join!(last_event(replica, partitions), last_event(primary, partitions))?;
    Ok((ours - theirs).num_milliseconds().max(0))
}

async fn last_event(pool: &PgPool, partitions: &[i16]) -> Result<DateTime<Utc>> {
    query_scalar!(r#"SELECT max(recorded_at) AS "recorded_at!" FROM log_head WHERE partition = ANY($1)"#, partitions)
        .fetch_one(pool)
        .await
}
