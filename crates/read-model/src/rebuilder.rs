//! Builds the next generation of a view beside the live one, from position 0, while reads and writes continue. A generation that
//! has caught up is checked and set to `live` in one short transaction. The rows that it replaces are then deleted in slices.
//!
//! A view that is new to the log is built in the same way. The instance that locks the checkpoint builds; if it ends, another one
//! continues.

use std::{collections::HashMap, slice, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection, Postgres, Result, Transaction, query, query_scalar, raw_sql};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    consistency,
    generation::{self, Checkpoint},
    projection::RowKey,
    projections::{Advanced, BatchOutcome, EventBatch, Projections, StepTimeout},
    view_builder::ViewBuilders,
    views::account_cache::Purpose,
};
use passbook_event_store::{Partitions, PrimaryConnector, StorageFailure, log_if_unreachable, sqlstate, with_timeout};

/// Limit of rows of a retired generation that one transaction deletes.
const SLICE_ROWS_MAX: i64 = 5_000;
/// Limit of events that are projected while the live generation is locked.
const LOCKED_EVENTS_MAX: i64 = 5_000;
/// Pause between slices, so that deletion does not compete with commands.
const SLICE_PAUSE_MS: u64 = 20;
/// Interval at which the rebuilder checks whether a generation must be built or deleted.
const POLL_MS: u64 = 250;
/// Pause after a failure, and the time limit for storing its reason.
const RETRY_MS: u64 = 1_000;
/// Time limit of a step, after which its connection is considered lost. It doubles after each step that exceeds it.
const STEP_S_MIN: u64 = 30;
const STEP_S_MAX: u64 = 300;
/// How many generations are checked at the same time.
const CHECKS_MAX: usize = 2;
/// The interval between two log lines about the progress.
const PROGRESS_S: u64 = 10;
/// A check can take hours. At this interval another connection verifies that its backend still exists, within this time limit.
const BACKEND_POLL_S: u64 = 30;
const BACKEND_POLL_S_MAX: u64 = 10;

/// The rebuilder of all partitions, which share one connection.
pub struct Rebuilder {
    primary: PrimaryConnector,
    partitions: Vec<PartitionRebuilder>,
}

impl Rebuilder {
    /// A rebuilder that has not connected yet.
    pub fn new(primary: PrimaryConnector, partitions: Partitions) -> Self {
        let builders = ViewBuilders::new(&primary);
        let rebuilder = |partition| PartitionRebuilder {
            builders: builders.clone(),
            ..PartitionRebuilder::new(partition, partitions, primary.clone())
        };
        Self { partitions: partitions.all().map(rebuilder).collect(), primary }
    }

    /// Runs until `shutdown` is cancelled. A step in progress is then rolled back; the next process repeats it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut connection = None;
        let mut failover = self.primary.failover_watch();
        while !shutdown.is_cancelled() {
            if failover.has_failed_over() {
                connection = None;
                self.partitions.iter_mut().for_each(PartitionRebuilder::reset);
            }
            let Some(pause_ms) = shutdown.run_until_cancelled(self.step(&mut connection)).await else { return };
            if pause_ms > 0 {
                let _ = timeout(Duration::from_millis(pause_ms), shutdown.cancelled()).await;
            }
        }
    }

    /// One step of each partition. Returns the pause before the next one in milliseconds.
    async fn step(&mut self, connection: &mut Option<PgConnection>) -> u64 {
        let mut pause_ms = POLL_MS;
        let mut has_failed = false;
        for partition in &mut self.partitions {
            match partition.step(connection).await {
                Ok(StepOutcome::Built) => pause_ms = 0,
                Ok(StepOutcome::Discarded) => pause_ms = pause_ms.min(SLICE_PAUSE_MS),
                Ok(StepOutcome::Idle) => {}
                Err(error) => {
                    has_failed = true;
                    partition.reset_after_error(&error).await;
                }
            }
        }
        if has_failed { RETRY_MS } else { pause_ms }
    }
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    /// There was nothing to do.
    Idle,
    /// A batch was projected or a generation went live. The next step is due at once.
    Built,
    /// A slice of a retired generation was deleted.
    Discarded,
}

/// The rebuilder of one partition.
pub(crate) struct PartitionRebuilder {
    partition: i16,
    partitions: Partitions,
    primary: PrimaryConnector,
    projections: Projections,
    builders: ViewBuilders,
    progress: Option<Progress>,
    /// Generations that passed their check, with the position up to which they were checked. They go live next.
    checked: HashMap<(String, i16), i64>,
    /// The last deleted row of each retired generation.
    discarded: HashMap<(String, i16), RowKey>,
    limit: StepTimeout,
}

impl PartitionRebuilder {
    /// The connection on which the rebuilder writes is shared by all `partitions`.
    pub(crate) fn new(partition: i16, partitions: Partitions, primary: PrimaryConnector) -> Self {
        let confirmed = primary.confirmed(partition..partition + 1);
        let purpose = Purpose::Rebuild { partitions: partitions.all().count() };
        Self {
            partition,
            partitions,
            projections: Projections::new(partition, confirmed, purpose),
            builders: ViewBuilders::new(&primary),
            primary,
            progress: None,
            checked: HashMap::new(),
            discarded: HashMap::new(),
            limit: StepTimeout::new(STEP_S_MIN, STEP_S_MAX),
        }
    }

    pub(crate) fn partition(&self) -> i16 {
        self.partition
    }

    /// Drops all cached state: whether the last transaction was committed is unknown, or the primary is another server.
    pub(crate) fn reset(&mut self) {
        self.projections.invalidate_caches();
        self.builders.reset();
        self.checked.clear();
        self.discarded.clear();
    }

    async fn reset_after_error(&mut self, error: &sqlx::Error) {
        self.reset();
        let (failure, sqlstate) = (StorageFailure::of(error), sqlstate(error));
        if !log_if_unreachable(failure, error) {
            let failure = failure.as_str();
            tracing::warn!(failure, sqlstate = &*sqlstate, %error, partition = self.partition, "rebuild step failed; retrying");
        }
        // Best effort: the reason is in the log, too.
        let _ = with_timeout(Duration::from_millis(RETRY_MS), self.store_failure(&error.to_string())).await;
    }

    /// Stores the reason of a failure, which `GET /v1/projections` shows.
    async fn store_failure(&self, reason: &str) -> Result<()> {
        let mut connection = self.primary.connect().await?;
        query!(
            "UPDATE projection SET failure = $2 WHERE partition = $1 AND state = 'building'",
            self.partition,
            reason
        )
        .execute(&mut connection)
        .await?;
        connection.close().await
    }

    /// Does what is due next: a batch and the check after the last one, the change of generations, or a slice of deletions. After
    /// an error or a timeout the connection is dropped.
    pub(crate) async fn step(&mut self, connection: &mut Option<PgConnection>) -> Result<StepOutcome> {
        let mut limit = self.limit;
        let result = limit.run(self.write_step(connection)).await;
        self.limit = limit;
        let (outcome, to_check) = result?;
        self.limit.reset();
        if let Err(error) = self.check_all(to_check).await {
            *connection = None;
            return Err(error);
        }
        Ok(outcome)
    }

    /// The part of a step that writes. Also returns the generations that have caught up and are to be checked.
    async fn write_step(&mut self, connection: &mut Option<PgConnection>) -> Result<(StepOutcome, Vec<Checkpoint>)> {
        let mut open = match connection.take() {
            Some(open) => open,
            // A generation that goes live must show only events that the standbys have.
            None => self.primary.confirmed(0..self.partitions.count()).connect().await?,
        };
        let done = self.build_or_discard(&mut open).await?;
        *connection = Some(open);
        Ok(done)
    }

    async fn build_or_discard(&mut self, connection: &mut PgConnection) -> Result<(StepOutcome, Vec<Checkpoint>)> {
        if !generation::has_pending_work(connection, self.partition).await? {
            self.projections.drop_caches();
            self.builders.reset();
            return Ok((StepOutcome::Idle, vec![]));
        }
        let mut building = generation::read_checkpoints(connection, self.partition, "building").await?;
        // A generation that failed a moment ago does not hold up the others.
        building.retain(|checkpoint| !self.projections.is_paused(checkpoint));
        let checked = building.iter().find(|checkpoint| self.is_checked(checkpoint)).map(Checkpoint::key);
        let Some(from) = building.iter().find(|next| checked.as_ref().is_none_or(|key| next.key() == *key)) else {
            return Ok((self.discard(connection).await?, vec![]));
        };
        let mut probe = connection.begin().await?;
        let is_free = !generation::claim(&mut probe, self.partition, "building").await?.is_empty();
        probe.rollback().await?;
        if !is_free {
            // Another instance builds. Events that this one reads would be dropped.
            return Ok((self.discard(connection).await?, vec![]));
        }
        let mut batch = self.projections.read(connection, from.position).await?;
        self.projections.prefetch_after(slice::from_ref(&batch));
        if checked.is_none() && batch.can_be_applied() {
            building.retain(|next| next.position == batch.after);
            return self.build(connection, building, batch).await;
        }
        let mut transaction = connection.begin().await?;
        let mut claimed = generation::claim(&mut transaction, self.partition, "building").await?;
        claimed.retain(|next| next.position == batch.after && !self.projections.is_paused(next));
        if let Some(key) = checked {
            let Some(next) = claimed.into_iter().find(|next| next.key() == key) else {
                transaction.rollback().await?;
                return Ok((StepOutcome::Idle, vec![]));
            };
            // Projects what was appended during the check, before the live generation is locked.
            let advanced = self.projections.advance(&mut transaction, slice::from_ref(&next), &mut batch).await?;
            if advanced.outcome == BatchOutcome::Behind || !advanced.failures.is_empty() {
                transaction.commit().await?;
                return Ok((StepOutcome::Built, vec![]));
            }
            let next = generation::read_checkpoint(&mut transaction, &next.name, next.view).await?;
            return Ok((self.go_live(transaction, next).await?, vec![]));
        }
        if claimed.is_empty() {
            // Another instance builds.
            transaction.rollback().await?;
            return Ok((self.discard(connection).await?, vec![]));
        }
        let Advanced { outcome, .. } = self.projections.advance(&mut transaction, &claimed, &mut batch).await?;
        transaction.commit().await?;
        claimed.retain(|checkpoint| !self.projections.is_paused(checkpoint));
        let to_check = if outcome == BatchOutcome::Behind { vec![] } else { claimed };
        Ok((StepOutcome::Built, to_check))
    }

    /// Moves these generations by a batch. They are to be checked if the batch was the last one.
    async fn build(
        &mut self,
        connection: &mut PgConnection,
        building: Vec<Checkpoint>,
        batch: EventBatch,
    ) -> Result<(StepOutcome, Vec<Checkpoint>)> {
        let (from, events, is_last) = (batch.after, batch.count(), batch.is_last);
        let keys: Vec<_> = building.iter().map(Checkpoint::key).collect();
        if !self.builders.advance(&mut self.projections, building, batch).await? {
            return Ok((self.discard(connection).await?, vec![]));
        }
        Progress::log(&mut self.progress, self.partition, from, from + events);
        if !is_last {
            return Ok((StepOutcome::Built, vec![]));
        }
        let mut built = generation::read_checkpoints(connection, self.partition, "building").await?;
        built.retain(|next| next.position == from + events && keys.contains(&next.key()));
        Ok((StepOutcome::Built, built))
    }

    fn is_checked(&self, checkpoint: &Checkpoint) -> bool {
        self.checked.get(&checkpoint.key()).is_some_and(|position| checkpoint.position >= *position)
    }

    /// Compares generations with the log, while others write. A generation that fails never goes live.
    async fn check_all(&mut self, built: Vec<Checkpoint>) -> Result<()> {
        let checks: Vec<_> = built.iter().map(|built| self.check(built).boxed()).collect();
        let passed: Vec<bool> = stream::iter(checks).buffered(CHECKS_MAX).try_collect().await?;
        let passed = built.into_iter().zip(passed).filter(|(_, passed)| *passed);
        self.checked.extend(passed.map(|(built, _)| (built.key(), built.position)));
        Ok(())
    }

    /// Compares a generation with the log in one snapshot, and returns whether it passed.
    async fn check(&self, built: &Checkpoint) -> Result<bool> {
        let Some(projection) = self.projections.projection(built) else { return Ok(false) };
        // Custom plans: the same statements read all rows or those of a few accounts.
        let options = [("plan_cache_mode", "force_custom_plan")];
        let mut connection = self.primary.with_options(|connect| connect.options(options)).connect().await?;
        let backend: i32 = query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        raw_sql("SET LOCAL idle_in_transaction_session_timeout = '1min'").execute(&mut *snapshot).await?;
        let mismatch = tokio::select! {
            mismatch = consistency::compare(&mut snapshot, built, projection) => mismatch?,
            error = backend_disappeared(&self.primary, backend) => return Err(error),
        };
        snapshot.commit().await?;
        match mismatch {
            None => Ok(true),
            Some(flaw) => {
                tracing::error!(view = built.name, flaw, "rebuilt view failed its check and does not go live");
                generation::mark_failed(&mut connection, &built.name, built.view, &flaw).await?;
                Ok(false)
            }
        }
    }

    /// Brings a checked generation to the position of the live one and replaces it, in one short transaction. Both checkpoints
    /// are locked, so no reader sees the position of the view decrease.
    async fn go_live(
        &mut self,
        mut transaction: Transaction<'_, Postgres>,
        mut next: Checkpoint,
    ) -> Result<StepOutcome> {
        let live = generation::lock_live(&mut transaction, self.partition, &next.name).await?;
        let target = live.as_ref().map_or(next.position, |live| live.position);
        if target - next.position > LOCKED_EVENTS_MAX {
            // The next step reads so many events before the live generation is locked.
            transaction.commit().await?;
            return Ok(StepOutcome::Built);
        }
        while next.position < target {
            let mut batch = self.projections.read_locked(&mut transaction, next.position).await?;
            let advanced = self.projections.advance(&mut transaction, slice::from_ref(&next), &mut batch).await?;
            if !advanced.failures.is_empty() {
                transaction.commit().await?;
                return Ok(StepOutcome::Built);
            }
            match advanced.outcome {
                BatchOutcome::Behind => {}
                // The log ends before the position of the live generation.
                BatchOutcome::CaughtUp | BatchOutcome::Idle => break,
            }
            next = generation::read_checkpoint(&mut transaction, &next.name, next.view).await?;
        }
        if let Some(live) = live {
            generation::set_state(&mut transaction, &live.name, live.view, "retired").await?;
        }
        generation::set_state(&mut transaction, &next.name, next.view, "live").await?;
        transaction.commit().await?;
        self.checked.remove(&next.key());
        tracing::info!(view = next.name, generation = next.view.generation, "rebuilt view is live");
        Ok(StepOutcome::Built)
    }

    /// Deletes a slice of a retired generation. The next slice begins behind this one, so that no scan passes rows that are
    /// deleted but not yet removed by vacuum: beside a long snapshot they stay for hours.
    async fn discard(&mut self, connection: &mut PgConnection) -> Result<StepOutcome> {
        let mut transaction = connection.begin().await?;
        let retired = generation::claim(&mut transaction, self.partition, "retired").await?;
        let next = retired.first().and_then(|retired| Some((retired, self.projections.projection(retired)?)));
        let Some((retired, projection)) = next else {
            // An explicit rollback releases the locks now; a dropped transaction would release them at the next statement.
            transaction.rollback().await?;
            return Ok(StepOutcome::Idle);
        };
        let after = self.discarded.get(&retired.key()).copied().unwrap_or_default();
        let last = projection.discard(&mut transaction, retired.view, after, SLICE_ROWS_MAX).await?;
        if last.is_none() {
            generation::delete_generation(&mut transaction, &retired.name, retired.view).await?;
        }
        transaction.commit().await?;
        match last {
            Some(last) => drop(self.discarded.insert(retired.key(), last)),
            None => drop(self.discarded.remove(&retired.key())),
        }
        Ok(StepOutcome::Discarded)
    }
}

/// The progress since the last log line.
struct Progress {
    logged_at: Instant,
    /// The position at that time.
    position: i64,
}

impl Progress {
    /// Logs how fast the batch up to `to` and those before it were projected, at intervals. `from` is the position before the batch.
    fn log(progress: &mut Option<Self>, partition: i16, from: i64, to: i64) {
        // Another rebuild begins at a lower position.
        let last = progress.get_or_insert_with(|| Self { logged_at: Instant::now(), position: from });
        if from < last.position {
            *last = Self { logged_at: Instant::now(), position: from };
        }
        let elapsed = last.logged_at.elapsed();
        if elapsed >= Duration::from_secs(PROGRESS_S) {
            let events_per_second = ((to - last.position) as f64 / elapsed.as_secs_f64()).round();
            tracing::info!(partition, position = to, events_per_second, "rebuild in progress");
            *last = Self { logged_at: Instant::now(), position: to };
        }
    }
}

/// Completes with an error when the primary no longer has this backend, or does not answer.
async fn backend_disappeared(primary: &PrimaryConnector, backend: i32) -> sqlx::Error {
    loop {
        sleep(Duration::from_secs(BACKEND_POLL_S)).await;
        let poll = async {
            let mut connection = primary.connect().await?;
            let exists = query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)").bind(backend);
            let exists: bool = exists.fetch_one(&mut connection).await?;
            connection.close().await?;
            match exists {
                true => Ok(()),
                false => Err(sqlx::Error::Io(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    "the backend of the check no longer exists",
                ))),
            }
        };
        if let Err(error) = with_timeout(Duration::from_secs(BACKEND_POLL_S_MAX), poll).await {
            return error;
        }
    }
}
