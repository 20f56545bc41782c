//! Builds the next generation of a view beside the live one, from position 0, while reads and writes go on: caught up,
//! checked, and made live in one short transaction. What it replaces is deleted in slices after.
//!
//! A view that is new to this log comes the same way. Whoever gets the row's lock builds; another process goes on where
//! it stopped.

use std::{collections::HashMap, time::Duration};

use sqlx::{Connection, PgConnection, Postgres, Result, Transaction, query, query_scalar};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    check,
    followers::{Followers, Step},
    generation::{self, Checkpoint},
    timed_out,
};
use passbook_event_store::{Moves, Primary};

/// How many rows of a retired generation one transaction deletes.
const SLICE_ROWS_MAX: i64 = 5_000;
/// Pause between slices, which nobody waits for.
const SLICE_PAUSE_MS: u64 = 20;
/// How often it looks whether there is something to build or to delete.
const POLL_MS: u64 = 250;
/// Pause after a failure.
const RETRY_MS: u64 = 1_000;
/// How long a step may take before its connection is given up as lost; twice as long after each that took longer.
const STEP_S_MIN: u64 = 10;
const STEP_S_MAX: u64 = 300;
/// How often it is made sure that the server still works on a check, which may take hours, and how long that may take.
const ATTEND_S: u64 = 30;
const ATTEND_S_MAX: u64 = 10;

/// One partition's builder.
pub struct Builder {
    partition: i16,
    connect: Primary,
    followers: Followers,
    /// Generations that were found in order up to a position, and are to go live.
    checked: HashMap<(String, i16), i64>,
    /// How long the next step may take, in seconds.
    step_s: u64,
}

/// Lets the builders of all partitions take turns on one connection until the sender of `running` is gone.
pub async fn run(mut builders: Vec<Builder>, mut running: watch::Receiver<i64>) {
    let mut connection = None;
    let mut moves = builders.first().map(|builder| builder.connect.moves());
    while running.has_changed().is_ok() {
        if moves.as_mut().is_some_and(Moves::moved) {
            connection = None;
            builders.iter_mut().for_each(Builder::forget);
        }
        let (mut pause, mut failed) = (POLL_MS, false);
        for builder in &mut builders {
            // Appends go on meanwhile; only the end of the sender is news. A step that is given up is rolled back.
            let step = tokio::select! {
                step = builder.step(&mut connection) => step,
                () = ended(&mut running) => return,
            };
            match step {
                Ok(Work::Built) => pause = 0,
                Ok(Work::Discarded) => pause = pause.min(SLICE_PAUSE_MS),
                Ok(Work::Nothing) => {}
                Err(error) => {
                    connection = None;
                    failed = true;
                    builder.give_up(&error).await;
                }
            }
        }
        let pause = if failed { RETRY_MS } else { pause };
        if pause > 0 {
            let _ = timeout(Duration::from_millis(pause), ended(&mut running)).await;
        }
    }
}

/// What there was to do.
pub(super) enum Work {
    Nothing,
    /// More of the same follows at once.
    Built,
    /// A slice is gone.
    Discarded,
}

impl Builder {
    /// A builder with connections of its own.
    pub fn new(partition: i16, connect: Primary) -> Self {
        let followers = Followers::new(partition, connect.clone());
        Self { partition, connect, followers, checked: HashMap::new(), step_s: STEP_S_MIN }
    }

    /// Nothing is known any more: whether the last step stands, or which server holds it.
    pub(super) fn forget(&mut self) {
        self.followers.forget();
        self.checked.clear();
    }

    async fn give_up(&mut self, error: &sqlx::Error) {
        self.forget();
        tracing::warn!(%error, "the rebuild of a view pauses");
        // Best effort: the log line says it too.
        let _ = timeout(Duration::from_millis(RETRY_MS), self.note_failure(&error.to_string())).await;
    }

    /// Says in `GET /v1/projections` why nothing is built.
    async fn note_failure(&self, reason: &str) -> Result<()> {
        let mut connection = self.connect.connect().await?;
        query!(
            "UPDATE projection SET failure = $2 WHERE partition = $1 AND state = 'building'",
            self.partition,
            reason
        )
        .execute(&mut connection)
        .await?;
        connection.close().await
    }

    /// A batch, a check, a change of generations or a slice: whatever comes next.
    pub(super) async fn step(&mut self, connection: &mut Option<PgConnection>) -> Result<Work> {
        let mut built = Vec::new();
        let patience = Duration::from_secs(self.step_s);
        let work = timeout(patience, self.work(connection, &mut built)).await.map_err(|_| {
            self.step_s = (self.step_s * 2).min(STEP_S_MAX);
            timed_out()
        })??;
        self.step_s = STEP_S_MIN;
        for built in built {
            self.check(built).await?;
        }
        Ok(work)
    }

    /// The same without the checks: what is `built` has to be checked.
    async fn work(&mut self, connection: &mut Option<PgConnection>, built: &mut Vec<Checkpoint>) -> Result<Work> {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(self.connect.connect().await?),
        };
        if !generation::is_work(connection, self.partition).await? {
            return Ok(Work::Nothing);
        }
        let mut transaction = connection.begin().await?;
        let mut building = generation::claim(&mut transaction, self.partition, "building").await?;
        if let Some(at) = building.iter().position(|checkpoint| self.is_checked(checkpoint)) {
            let next = building.swap_remove(at);
            // What was appended during the check, before the live generation is held up.
            let step = self.followers.advance(&mut transaction, std::slice::from_ref(&next)).await?;
            if step == Step::Behind {
                transaction.commit().await?;
                return Ok(Work::Built);
            }
            let next = generation::read(&mut transaction, &next.name, next.place).await?;
            return self.go_live(transaction, next).await;
        }
        let Some(first) = building.first().map(|checkpoint| checkpoint.position) else {
            return self.discard(transaction).await;
        };
        // Views that stand at the same position share one reading of the log.
        building.retain(|checkpoint| checkpoint.position == first);
        let step = self.followers.advance(&mut transaction, &building).await?;
        transaction.commit().await?;
        if step != Step::Behind {
            *built = building;
        }
        Ok(Work::Built)
    }

    fn is_checked(&self, checkpoint: &Checkpoint) -> bool {
        self.checked.get(&checkpoint.generation()).is_some_and(|position| checkpoint.position >= *position)
    }

    /// Compares what was built with the log, at one moment, while others go on. What is not in order never goes live.
    async fn check(&mut self, built: Checkpoint) -> Result<()> {
        let Some(projection) = self.followers.projection(&built) else { return Ok(()) };
        // Planned for the values at hand: all rows, or a few accounts'.
        let options = [("plan_cache_mode", "force_custom_plan"), ("idle_in_transaction_session_timeout", "60s")];
        let mut connection = self.connect.shaped(|connect| connect.options(options)).connect().await?;
        let backend: i32 = query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let flaw = tokio::select! {
            flaw = check::compare(&mut snapshot, &built, projection) => flaw?,
            lost = lost(&self.connect, backend) => return Err(lost),
        };
        snapshot.commit().await?;
        match flaw {
            None => drop(self.checked.insert(built.generation(), built.position)),
            Some(flaw) => {
                tracing::error!(view = built.name, flaw, "what was built is not in order and does not go live");
                generation::fail(&mut connection, &built.name, built.place, &flaw).await?;
            }
        }
        Ok(())
    }

    /// The short transaction: what was built is brought to where the live generation stands, and takes its place. Both rows
    /// are locked, so no reader sees a position step back.
    async fn go_live(&mut self, mut transaction: Transaction<'_, Postgres>, mut next: Checkpoint) -> Result<Work> {
        let live = generation::lock_live(&mut transaction, self.partition, &next.name).await?;
        let target = live.as_ref().map_or(next.position, |live| live.position);
        while next.position < target {
            match self.followers.advance(&mut transaction, std::slice::from_ref(&next)).await? {
                Step::Behind => {}
                // The live generation was somewhere that the log does not reach.
                Step::CaughtUp | Step::Idle => break,
            }
            next = generation::read(&mut transaction, &next.name, next.place).await?;
        }
        if let Some(live) = live {
            generation::turn(&mut transaction, &live.name, live.place, "retired").await?;
        }
        generation::turn(&mut transaction, &next.name, next.place, "live").await?;
        transaction.commit().await?;
        self.checked.remove(&next.generation());
        tracing::info!(view = next.name, generation = next.place.generation, "a rebuilt view is live");
        Ok(Work::Built)
    }

    /// Deletes a slice of what nobody reads any more.
    async fn discard(&self, mut transaction: Transaction<'_, Postgres>) -> Result<Work> {
        let retired = generation::claim(&mut transaction, self.partition, "retired").await?;
        let next = retired.first().and_then(|old| Some((old, self.followers.projection(old)?)));
        let Some((old, projection)) = next else {
            // Said, and not left to the next use of the connection: the locks end here.
            transaction.rollback().await?;
            return Ok(Work::Nothing);
        };
        let deleted = projection.discard(&mut transaction, old.place, SLICE_ROWS_MAX).await?;
        if deleted == 0 {
            generation::remove(&mut transaction, &old.name, old.place).await?;
        }
        transaction.commit().await?;
        Ok(Work::Discarded)
    }
}

/// Comes when no server that takes writes has this backend any more, or none answers.
async fn lost(connect: &Primary, backend: i32) -> sqlx::Error {
    loop {
        sleep(Duration::from_secs(ATTEND_S)).await;
        let looking = async {
            let mut connection = connect.connect().await?;
            let is_there = query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)").bind(backend);
            let is_there: bool = is_there.fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok(is_there)
        };
        match timeout(Duration::from_secs(ATTEND_S_MAX), looking).await {
            Ok(Ok(true)) => {}
            Ok(Err(error)) => return error,
            Ok(Ok(false)) | Err(_) => return timed_out(),
        }
    }
}

async fn ended(running: &mut watch::Receiver<i64>) {
    while running.changed().await.is_ok() {}
}
