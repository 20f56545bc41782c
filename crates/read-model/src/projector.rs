//! The background task that brings the views up to the log: events after the checkpoint, rows and checkpoint in one
//! transaction, so that an event counts exactly once whatever dies when.
//!
//! Nothing is elected and nothing expires: whoever gets the checkpoints' row locks projects the next batch. Of several
//! instances one goes on with the rows that it holds in memory, and the others look on for as long as the views move.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection, Result, query, query_scalar};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    followers::{Followers, Step},
    generation,
    projection::{known, newer},
    timed_out,
};
use passbook_event_store::timestamp;
use passbook_event_store::{Primary, StreamVersion};
use passbook_telemetry::metrics::METRICS;

/// The poll behind the wake-up, backing off while nothing happens.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 250;
/// Rest after a batch that reached the head, unless a reader waits: many events share a transaction, and each costs less.
const REST_MS: u64 = 5;
/// How long another instance may take to move the views further, backing off while it does.
const ELSEWHERE_MS_MIN: u64 = 20;
/// Pause after a failure.
const RETRY_MS: u64 = 250;
/// How long the database may take to open a connection.
const CONNECT_S_MAX: u64 = 2;
/// How long one step may take before its connection is given up as lost: an answer that got lost on its way never comes.
/// Twice as long after each that took longer, so that a slow database is not taken for one that is away for ever.
const STEP_S_MIN: u64 = 3;
const STEP_S_MAX: u64 = 60;

/// One partition's projector.
pub struct Projector {
    partition: i16,
    connect: Primary,
    followers: Followers,
    projected: Arc<watch::Sender<i64>>,
    /// Told when a reader waits for a position.
    awaited: Arc<Notify>,
    /// Told of an event that only a newer release can read.
    newer: Arc<watch::Sender<Option<StreamVersion>>>,
    /// How far the views were at the last look, where another instance moves them.
    elsewhere: Option<i64>,
}

impl Projector {
    /// A projector that tells `projected` how far it has come, and does not rest while a reader has `awaited` it. An event
    /// that only a newer release can read it tells to `newer`.
    pub fn new(
        partition: i16,
        connect: Primary,
        projected: Arc<watch::Sender<i64>>,
        awaited: Arc<Notify>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> Self {
        let followers = Followers::new(partition, connect.clone());
        Self { partition, connect, followers, projected, awaited, newer, elsewhere: None }
    }

    /// Runs until the sender of `appended` is gone, then once more up to the head.
    pub async fn run(mut self, mut appended: watch::Receiver<i64>) {
        let heartbeat = METRICS.projector_heartbeat.with_label_values(&[&self.partition.to_string()]);
        let mut connection = None;
        let mut moves = self.connect.moves();
        let mut poll = POLL_MS_MIN;
        let mut patience = STEP_S_MIN;
        loop {
            heartbeat.set(timestamp::now().timestamp_micros() as f64 / 1e6);
            if moves.moved() {
                connection = None;
                self.followers.forget();
            }
            let stopping = appended.has_changed().is_err();
            let head = *appended.borrow_and_update();
            if stopping {
                self.elsewhere = None;
            }
            let step = timeout(Duration::from_secs(patience), self.step(&mut connection, head, stopping)).await;
            patience = match &step {
                // Where the views are held by somebody else, it may be by what was given up here.
                Ok(Ok(Step::Idle)) if self.elsewhere.is_some() => patience,
                Ok(Ok(_)) => STEP_S_MIN,
                Ok(Err(_)) => patience,
                Err(_) => (patience * 2).min(STEP_S_MAX),
            };
            match step.unwrap_or_else(|_| Err(timed_out())) {
                Ok(Step::Behind) => poll = POLL_MS_MIN,
                // What this process appended was there before the sender was gone; what others append is theirs.
                Ok(Step::CaughtUp | Step::Idle) if stopping => return,
                Ok(Step::CaughtUp) => {
                    poll = POLL_MS_MIN;
                    // Rested or awaited, it goes on.
                    let _ = timeout(Duration::from_millis(REST_MS), self.awaited.notified()).await;
                }
                Ok(Step::Idle) if self.elsewhere.is_some() => {
                    poll = (poll * 2).clamp(ELSEWHERE_MS_MIN, POLL_MS_MAX);
                    let ending = async { while appended.changed().await.is_ok() {} };
                    let _ = timeout(Duration::from_millis(poll), ending).await;
                }
                Ok(Step::Idle) => {
                    // A wake-up may be lost; the poll is not.
                    poll = match timeout(Duration::from_millis(poll), appended.changed()).await {
                        Ok(_) => POLL_MS_MIN,
                        Err(_) => (poll * 2).min(POLL_MS_MAX),
                    };
                }
                Err(_) if stopping => return,
                Err(error) => {
                    connection = None;
                    self.followers.forget();
                    tracing::error!(%error, "the projection does not move");
                    if let Some(met) = newer(&error) {
                        self.newer.send_replace(Some(met));
                    }
                    // Best effort: the log line says it too.
                    let _ = timeout(Duration::from_secs(STEP_S_MIN), self.note_failure(&error.to_string())).await;
                    sleep(Duration::from_millis(RETRY_MS)).await;
                }
            }
        }
    }

    /// One batch, if there is anything to do: `head` is what this process has appended up to, and others may have more.
    async fn step(&mut self, connection: &mut Option<PgConnection>, head: i64, stopping: bool) -> Result<Step> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let connecting = timeout(Duration::from_secs(CONNECT_S_MAX), self.connect.connect());
                let fresh = connection.insert(connecting.await.map_err(|_| timed_out())??);
                generation::register(fresh, self.partition).await?;
                fresh
            }
        };
        let seen = self.elsewhere.take();
        if let Some(seen) = seen {
            let position = self.position(connection).await?;
            if position != seen {
                self.elsewhere = Some(position);
                return Ok(Step::Idle);
            }
        }
        let is_known = seen.is_none() && self.followers.written().is_some_and(|written| written < head);
        if is_known || self.is_behind(connection).await? {
            // Nobody else may be there any more to do what this one leaves.
            return self.project(connection, stopping || seen.is_some()).await;
        }
        if seen.is_some() {
            // They stand at the head: whoever writes next goes on from there.
            self.followers.forget();
        }
        Ok(Step::Idle)
    }

    /// How far every view is that this release can write.
    async fn position(&self, connection: &mut PgConnection) -> Result<i64> {
        let least = query_scalar!(
            "SELECT min(position)
             FROM projection
             JOIN unnest($2::text[], $3::smallint[]) AS known(name, schema_version)
               ON known.name = projection.name AND known.schema_version >= projection.schema_version
             WHERE projection.partition = $1 AND state = 'live'",
            self.partition,
            &known().names,
            &known().schema_versions
        );
        Ok(least.fetch_one(connection).await?.unwrap_or_default())
    }

    /// A look without a lock, so that an idle bank writes nothing.
    async fn is_behind(&self, connection: &mut PgConnection) -> Result<bool> {
        query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM projection
                   JOIN unnest($2::text[], $3::smallint[]) AS known(name, schema_version)
                     ON known.name = projection.name AND known.schema_version >= projection.schema_version
                   WHERE projection.partition = $1 AND state = 'live'
                     AND (failure IS NOT NULL OR position < (SELECT position FROM log_head WHERE partition = $1))
               ) AS "behind!""#,
            self.partition,
            &known().names,
            &known().schema_versions
        )
        .fetch_one(connection)
        .await
    }

    /// One transaction: checkpoints, events, rows, checkpoints. Where another instance has moved the views, it is left to
    /// that one, unless this one `takes_over`.
    async fn project(&mut self, connection: &mut PgConnection, takes_over: bool) -> Result<Step> {
        let _batch = METRICS.projection_duration.start_timer();
        let mut transaction = connection.begin().await?;
        let checkpoints = generation::claim(&mut transaction, self.partition, "live").await?;
        if checkpoints.is_empty() || self.followers.were_overtaken(&checkpoints) && !takes_over {
            transaction.rollback().await?;
            let seen = checkpoints.first().map(|least| least.position).or_else(|| self.followers.written());
            self.elsewhere = Some(seen.unwrap_or_default());
            return Ok(Step::Idle);
        }
        let mut step = Step::Idle;
        // Views that stand at the same position share one reading of the log.
        for at_one_position in checkpoints.chunk_by(|a, b| a.position == b.position) {
            step = step.max(self.followers.advance(&mut transaction, at_one_position).await?);
        }
        if step == Step::Idle {
            // Said, and not left to the next use of the connection: the locks end here.
            transaction.rollback().await?;
            return Ok(step);
        }
        transaction.commit().await?;
        if let Some(least) = self.followers.written() {
            self.projected.send_replace(least);
        }
        Ok(step)
    }

    /// Says in `GET /v1/projections` why the views stand still.
    async fn note_failure(&self, reason: &str) {
        let Ok(mut connection) = self.connect.connect().await else { return };
        let noted = query!(
            "UPDATE projection SET failure = $2 WHERE partition = $1 AND state = 'live'",
            self.partition,
            reason
        )
        .execute(&mut connection)
        .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "the projection's failure could not be noted");
        }
    }
}
