//! The background task that brings the views up to the log: events after the checkpoint, rows and checkpoint in one
//! transaction, so that an event counts exactly once whatever dies when.
//!
//! Nothing is elected and nothing expires: whoever gets the checkpoints' row locks projects the next batch.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection, Result, postgres::PgConnectOptions, query, query_scalar};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    ahead::Ahead,
    projection::{Applicable, Place, Projection, cannot_apply, decode, newer, projections},
    timed_out,
};
use crate::event_store::{StreamVersion, feed};

/// How many events one transaction takes. An account that changes often in them is written once.
const BATCH_EVENTS_MAX: i64 = 20_000;
/// The poll behind the wake-up, backing off while nothing happens.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 250;
/// Rest after a batch that reached the head, unless a reader waits: many events share a transaction, and each costs less.
const REST_MS: u64 = 5;
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
    connect: PgConnectOptions,
    followers: Vec<Follower>,
    ahead: Ahead,
    projected: Arc<watch::Sender<i64>>,
    /// Told when a reader waits for a position.
    awaited: Arc<Notify>,
    /// Told of an event that only a newer release can read.
    newer: Arc<watch::Sender<Option<StreamVersion>>>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// There was nothing to do, or another instance does it.
    Idle,
    /// The views moved, up to the head as it was.
    CaughtUp,
    /// The views moved, and there is more.
    Behind,
}

struct Follower {
    projection: Box<dyn Projection>,
    /// The checkpoint that this process wrote last, and where: only then are rows held in memory current.
    written: Option<(i16, i64)>,
}

/// A checkpoint that is locked for this transaction.
struct Checkpoint {
    name: String,
    generation: i16,
    position: i64,
    /// The row is to be written even if there is no event: it says that the view is building, or why it stood still.
    unsettled: bool,
}

impl Projector {
    /// A projector that tells `projected` how far it has come, and does not rest while a reader has `awaited` it. An event
    /// that only a newer release can read it tells to `newer`.
    pub fn new(
        partition: i16,
        connect: PgConnectOptions,
        projected: Arc<watch::Sender<i64>>,
        awaited: Arc<Notify>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> Self {
        let followers = projections().into_iter().map(|projection| Follower { projection, written: None }).collect();
        let ahead = Ahead::new(partition, connect.clone());
        Self { partition, connect, followers, ahead, projected, awaited, newer }
    }

    /// Runs until the sender of `appended` is gone, then once more up to the head.
    pub async fn run(mut self, mut appended: watch::Receiver<i64>) {
        let mut connection = None;
        let mut poll = POLL_MS_MIN;
        let mut patience = STEP_S_MIN;
        loop {
            let stopping = appended.has_changed().is_err();
            let head = *appended.borrow_and_update();
            let step = timeout(Duration::from_secs(patience), self.step(&mut connection, head)).await;
            patience = if step.is_ok() { STEP_S_MIN } else { (patience * 2).min(STEP_S_MAX) };
            match step.unwrap_or_else(|_| Err(timed_out())) {
                Ok(Step::Behind) => poll = POLL_MS_MIN,
                Ok(Step::CaughtUp) if stopping => {}
                Ok(Step::CaughtUp) => {
                    poll = POLL_MS_MIN;
                    // Rested or awaited, it goes on.
                    let _ = timeout(Duration::from_millis(REST_MS), self.awaited.notified()).await;
                }
                Ok(Step::Idle) if stopping => return,
                Ok(Step::Idle) => {
                    // A wake-up may be lost; the poll is not.
                    if timeout(Duration::from_millis(poll), appended.changed()).await.is_err() {
                        poll = (poll * 2).min(POLL_MS_MAX);
                    }
                }
                Err(_) if stopping => return,
                Err(error) => {
                    connection = None;
                    // Whether the last transaction stands is not known.
                    self.followers.iter_mut().for_each(|follower| follower.written = None);
                    self.ahead.forget();
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
    async fn step(&mut self, connection: &mut Option<PgConnection>, head: i64) -> Result<Step> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let connecting = timeout(Duration::from_secs(CONNECT_S_MAX), PgConnection::connect_with(&self.connect));
                let fresh = connection.insert(connecting.await.map_err(|_| timed_out())??);
                self.register(fresh).await?;
                fresh
            }
        };
        let behind = self.written().is_some_and(|written| written < head) || self.is_behind(connection).await?;
        match behind {
            true => self.project(connection).await,
            false => Ok(Step::Idle),
        }
    }

    /// A view that is new to this log starts at position 0.
    async fn register(&self, connection: &mut PgConnection) -> Result<()> {
        for follower in &self.followers {
            query!(
                "INSERT INTO projection (partition, name, generation, schema_version, state, position)
                 SELECT $1::smallint, $2::text, 1, $3::smallint, 'building', 0
                 WHERE NOT EXISTS (SELECT FROM projection WHERE partition = $1::smallint AND name = $2::text)
                 ON CONFLICT DO NOTHING",
                self.partition,
                follower.projection.name(),
                follower.projection.schema_version()
            )
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }

    /// A look without a lock, so that an idle bank writes nothing.
    async fn is_behind(&self, connection: &mut PgConnection) -> Result<bool> {
        query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM projection
                   WHERE projection.partition = $1
                     AND (state = 'building' OR failure IS NOT NULL
                          OR position < (SELECT position FROM log_head WHERE partition = $1))
               ) AS "behind!""#,
            self.partition
        )
        .fetch_one(connection)
        .await
    }

    /// One transaction: checkpoints, events, rows, checkpoints.
    async fn project(&mut self, connection: &mut PgConnection) -> Result<Step> {
        let mut transaction = connection.begin().await?;
        let checkpoints = self.claim(&mut transaction).await?;
        let mut step = Step::Idle;
        // Views that stand at the same position share one reading of the log.
        for at_one_position in checkpoints.chunk_by(|a, b| a.position == b.position) {
            step = step.max(self.advance(&mut transaction, at_one_position).await?);
        }
        if step == Step::Idle {
            return Ok(step);
        }
        transaction.commit().await?;
        if let Some(least) = self.written() {
            self.projected.send_replace(least);
        }
        Ok(step)
    }

    /// How far this process has brought every view, where it has.
    fn written(&self) -> Option<i64> {
        self.followers.iter().filter_map(|follower| Some(follower.written?.1)).min()
    }

    /// Locks the checkpoints that no other instance has locked, in the order of their positions.
    async fn claim(&self, connection: &mut PgConnection) -> Result<Vec<Checkpoint>> {
        let mut claimed = query!(
            r#"SELECT name, generation, position, (state = 'building' OR failure IS NOT NULL) AS "unsettled!"
               FROM projection
               WHERE partition = $1
               FOR UPDATE SKIP LOCKED"#,
            self.partition
        )
        .map(|row| Checkpoint {
            name: row.name,
            generation: row.generation,
            position: row.position,
            unsettled: row.unsettled,
        })
        .fetch_all(connection)
        .await?;
        claimed.sort_unstable_by_key(|checkpoint| checkpoint.position);
        Ok(claimed)
    }

    /// Brings views that stand at the same position one batch further.
    async fn advance(&mut self, connection: &mut PgConnection, checkpoints: &[Checkpoint]) -> Result<Step> {
        let Some(Checkpoint { position: from, .. }) = checkpoints.first() else { return Ok(Step::Idle) };
        let events = match self.ahead.take(*from) {
            Some(events) => events,
            None => read(connection, self.partition, *from).await?,
        };
        let to = from + events.len() as i64;
        if (events.len() as i64) < BATCH_EVENTS_MAX {
            self.ahead.forget();
            let moved = write(&mut self.followers, connection, self.partition, checkpoints, &events, true).await?;
            return Ok(if moved { Step::CaughtUp } else { Step::Idle });
        }
        let writing = write(&mut self.followers, connection, self.partition, checkpoints, &events, false);
        let (moved, ()) = tokio::join!(writing, self.ahead.read(to));
        Ok(if moved? { Step::Behind } else { Step::Idle })
    }

    /// Says in `GET /v1/projections` why the views stand still.
    async fn note_failure(&self, reason: &str) {
        let Ok(mut connection) = PgConnection::connect_with(&self.connect).await else { return };
        let noted = query!("UPDATE projection SET failure = $2 WHERE partition = $1", self.partition, reason)
            .execute(&mut connection)
            .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "the projection's failure could not be noted");
        }
    }
}

/// The next batch of events after `position`.
pub(super) async fn read(connection: &mut PgConnection, partition: i16, position: i64) -> Result<Vec<Applicable>> {
    decode(feed::read(connection, partition, position, BATCH_EVENTS_MAX).await?, position)
}

/// Writes the rows of `events` and moves the checkpoints; false where there was nothing to write.
async fn write(
    followers: &mut [Follower],
    connection: &mut PgConnection,
    partition: i16,
    checkpoints: &[Checkpoint],
    events: &[Applicable],
    caught_up: bool,
) -> Result<bool> {
    let mut moved = false;
    for checkpoint in checkpoints {
        let Some(follower) = followers.iter_mut().find(|f| f.projection.name() == checkpoint.name) else {
            continue;
        };
        if events.is_empty() && !checkpoint.unsettled {
            continue;
        }
        if follower.written != Some((checkpoint.generation, checkpoint.position)) {
            follower.projection.forget();
        }
        let to = checkpoint.position + events.len() as i64;
        let place = Place { partition, generation: checkpoint.generation };
        follower.projection.apply(connection, place, events).await?;
        move_checkpoint(connection, place, checkpoint, to, caught_up).await?;
        follower.written = Some((checkpoint.generation, to));
        moved = true;
    }
    Ok(moved)
}

/// Moves the checkpoint if it still stands where it was read; a view that has caught up goes live.
async fn move_checkpoint(
    connection: &mut PgConnection,
    place: Place,
    checkpoint: &Checkpoint,
    to: i64,
    caught_up: bool,
) -> Result<()> {
    let updated = query!(
        "UPDATE projection
         SET position = $5, failure = NULL, state = CASE WHEN $6 THEN 'live' ELSE state END
         WHERE partition = $1 AND name = $2 AND generation = $3 AND position = $4",
        place.partition,
        checkpoint.name,
        place.generation,
        checkpoint.position,
        to,
        caught_up
    )
    .execute(connection)
    .await?;
    match updated.rows_affected() {
        1 => Ok(()),
        _ => Err(cannot_apply(format!("the checkpoint of {} is not where it was", checkpoint.name))),
    }
}
