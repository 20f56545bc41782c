//! The projections of one partition with their caches. Views move only here: a batch of events is read, then folded into rows, and
//! rows and checkpoint are written in one transaction. The read precedes the transaction, because a large read would keep the
//! checkpoints locked without a time limit if this process froze in the middle of it.
//!
//! Each view has a savepoint of its own, so a view that cannot apply the batch does not stop the others.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, Result,
    postgres::{PgDatabaseError, PgSeverity},
};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{
    decoded_event::{BATCH_EVENTS_MAX, DecodedBatch, read_batch, read_locked_batch, rebuild_events},
    generation::{self, Checkpoint},
    prefetch::Prefetcher,
    projection::{Projection, ViewGeneration},
    views::{RowWrites, account_cache::Purpose, projections},
};
use passbook_event_store::{PrimaryConnector, StorageFailure, sqlstate, with_timeout};
use passbook_telemetry::metrics::METRICS;
use passbook_telemetry::trace::{self, TARGET};

/// Pause of a view that cannot apply its next batch. It doubles with each failure.
const VIEW_RETRY_MS_MIN: u64 = 250;
const VIEW_RETRY_MS_MAX: u64 = 5_000;

/// The result of moving views by one batch.
#[derive(Debug)]
pub(crate) struct Advanced {
    pub(crate) outcome: BatchOutcome,
    /// Why views could not apply the batch. The reasons are stored in their checkpoints, and the caller must commit.
    pub(crate) failures: Vec<sqlx::Error>,
}

/// The events after a position, read before the checkpoints are locked.
pub(crate) struct EventBatch {
    /// The position before the first event.
    pub(crate) after: i64,
    pub(crate) read: DecodedBatch,
    /// Set if the next event cannot be decoded.
    failure: Option<sqlx::Error>,
    /// Whether the log had no more events.
    pub(crate) is_last: bool,
}

impl EventBatch {
    /// Whether the batch has events, and all of them can be decoded.
    pub(crate) fn can_be_applied(&self) -> bool {
        self.read.count > 0 && self.failure.is_none()
    }

    /// The number of events in the log.
    pub(crate) fn count(&self) -> i64 {
        self.read.count
    }

    /// The position of the last event.
    fn to(&self) -> i64 {
        self.after + self.read.count
    }
}

/// The result of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BatchOutcome {
    /// No view moved: there was nothing to do, or another instance does it.
    Idle,
    /// The views moved up to the head as it was.
    CaughtUp,
    /// The views moved, and the log has more events.
    Behind,
}

/// One projection. It works on one generation at a time.
pub(crate) struct ProjectionState {
    projection: Box<dyn Projection>,
    /// Generation and position of the checkpoint at which the cache is valid.
    cached: Option<(i16, i64)>,
    /// Generation and position of the checkpoint that this process wrote last.
    written: Option<(i16, i64)>,
    /// Set while the view cannot apply its next batch.
    failure: Option<ViewFailure>,
}

/// A view that cannot apply its next batch is left out until its pause is over.
#[derive(Clone, Copy, Debug)]
struct ViewFailure {
    generation: i16,
    retry_at: Instant,
    pause_ms: u64,
}

impl ProjectionState {
    fn new(projection: Box<dyn Projection>) -> Self {
        Self { projection, cached: None, written: None, failure: None }
    }

    /// Reads what the batch needs and the cache does not have, in a few large statements. A failure of the view itself is left to the
    /// fold, which meets it again and stores it. Returns whether all was read: otherwise the caller rolls its savepoint back.
    pub(crate) async fn preload(
        &mut self,
        connection: &mut PgConnection,
        view: ViewGeneration,
        batch: &EventBatch,
    ) -> Result<bool> {
        let checkpoint = Some((view.generation, batch.after));
        if self.cached != checkpoint {
            self.projection.clear_cache();
        }
        self.cached = None;
        match self.projection.preload(connection, view, &batch.read.events).await {
            Ok(()) => self.cached = checkpoint,
            Err(error) if is_of_view(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self.cached.is_some())
    }

    /// Drops the cache, and pauses the view.
    fn pause_after_failure(&mut self, generation: i16) {
        (self.cached, self.written) = (None, None);
        let before = self.failure.filter(|failure| failure.generation == generation);
        let pause_ms = before.map_or(VIEW_RETRY_MS_MIN, |failure| (failure.pause_ms * 2).min(VIEW_RETRY_MS_MAX));
        let retry_at = Instant::now() + Duration::from_millis(pause_ms);
        self.failure = Some(ViewFailure { generation, retry_at, pause_ms });
    }

    fn is_paused(&self, generation: i16) -> bool {
        self.failure.is_some_and(|failure| failure.generation == generation && Instant::now() < failure.retry_at)
    }
}

/// All projections of one partition.
pub(crate) struct Projections {
    partition: i16,
    purpose: Purpose,
    writes: RowWrites,
    /// The most events of a batch.
    batch_events: i64,
    states: Vec<ProjectionState>,
    prefetcher: Prefetcher,
}

impl Projections {
    pub(crate) fn new(partition: i16, primary: PrimaryConnector, purpose: Purpose) -> Self {
        let batch_events = match purpose {
            Purpose::Live => BATCH_EVENTS_MAX,
            Purpose::Rebuild { partitions } => rebuild_events(partitions),
        };
        let writes = RowWrites::of(&primary);
        let states = projections(purpose, writes).into_iter().map(ProjectionState::new).collect();
        let prefetcher = Prefetcher::new(partition, primary, batch_events);
        Self { partition, purpose, writes, batch_events, states, prefetcher }
    }

    /// Takes the state of a view, to move it in a task of its own. [`Self::put_back`] returns it; otherwise the cache is lost.
    pub(crate) fn take(&mut self, name: &str) -> Option<ProjectionState> {
        let place = self.states.iter().position(|state| state.projection.name() == name);
        match place {
            Some(place) => Some(self.states.swap_remove(place)),
            None => {
                let mut projections = projections(self.purpose, self.writes).into_iter();
                projections.find(|projection| projection.name() == name).map(ProjectionState::new)
            }
        }
    }

    /// Returns a state that was taken.
    pub(crate) fn put_back(&mut self, state: ProjectionState) {
        self.states.push(state);
    }

    /// The projection of a checkpoint.
    pub(crate) fn projection(&self, checkpoint: &Checkpoint) -> Option<&dyn Projection> {
        let mut projections = self.states.iter().map(|state| state.projection.as_ref());
        projections.find(|projection| projection.name() == checkpoint.name)
    }

    /// The lowest checkpoint that this process wrote; `None` if it wrote none.
    pub(crate) fn written(&self) -> Option<i64> {
        self.states.iter().filter_map(|state| Some(state.written?.1)).min()
    }

    /// Whether another instance has moved a view since this process wrote it.
    pub(crate) fn moved_by_other_instance(&self, checkpoints: &[Checkpoint]) -> bool {
        checkpoints.iter().any(|checkpoint| {
            let state = self.states.iter().find(|state| state.projection.name() == checkpoint.name);
            state.and_then(|state| state.written).is_some_and(|(generation, position)| {
                generation == checkpoint.view.generation && position < checkpoint.position
            })
        })
    }

    /// Whether the view of a checkpoint failed a moment ago and is left out.
    pub(crate) fn is_paused(&self, checkpoint: &Checkpoint) -> bool {
        let state = self.states.iter().find(|state| state.projection.name() == checkpoint.name);
        state.is_some_and(|state| state.is_paused(checkpoint.view.generation))
    }

    /// Marks all caches as invalid: whether the last transaction was committed is unknown, or the database is another one.
    pub(crate) fn invalidate_caches(&mut self) {
        let mut new = projections(self.purpose, self.writes);
        // A task that moved a view may not have returned its state.
        new.retain(|projection| self.states.iter().all(|state| state.projection.name() != projection.name()));
        self.states.extend(new.into_iter().map(ProjectionState::new));
        self.states.iter_mut().for_each(|state| (state.cached, state.written) = (None, None));
        self.prefetcher.reset();
    }

    /// Drops the caches and their memory, because nothing is being built.
    pub(crate) fn drop_caches(&mut self) {
        for state in self.states.iter_mut().filter(|state| state.cached.is_some()) {
            state.projection.clear_cache();
            state.cached = None;
        }
        self.prefetcher.reset();
    }

    /// Reads what the views at the position of a batch need, before their checkpoints are locked.
    pub(crate) async fn preload(
        &mut self,
        connection: &mut PgConnection,
        checkpoints: &[Checkpoint],
        batch: &EventBatch,
    ) -> Result<()> {
        for checkpoint in checkpoints.iter().filter(|checkpoint| checkpoint.position == batch.after) {
            let state = self.states.iter_mut().find(|state| state.projection.name() == checkpoint.name);
            if let Some(state) = state.filter(|state| !state.is_paused(checkpoint.view.generation)) {
                state.preload(connection, checkpoint.view, batch).await?;
            }
        }
        Ok(())
    }

    /// Reads the batch after `position`, outside of any transaction.
    pub(crate) async fn read(&mut self, connection: &mut PgConnection, position: i64) -> Result<EventBatch> {
        let read = match self.prefetcher.take(position).await {
            Some(read) => Ok(read),
            None => read_batch(connection, self.partition, position, self.batch_events).await,
        };
        let (read, failure) = match read {
            Ok(read) => (read, None),
            Err(error @ sqlx::Error::Decode(_)) => (DecodedBatch::default(), Some(error)),
            Err(error) => return Err(error),
        };
        // A batch ends early, behind a whole part, if its events are large.
        let is_last = read.count == 0 || read.count % BATCH_EVENTS_MAX != 0;
        Ok(EventBatch { after: position, read, failure, is_last })
    }

    /// Starts to read the batch after this one, if more events follow. Views at several positions have no next batch in common.
    pub(crate) fn prefetch_after(&mut self, batches: &[EventBatch]) {
        match batches {
            [batch] if !batch.is_last => self.prefetcher.start(batch.to()),
            _ => self.prefetcher.reset(),
        }
    }

    /// Reads the first events after `position` in a transaction that holds locks: a few, so that they fit into the buffers of a
    /// socket.
    pub(crate) async fn read_locked(&self, connection: &mut PgConnection, position: i64) -> Result<EventBatch> {
        let (read, failure) = match read_locked_batch(connection, self.partition, position).await {
            Ok(read) => (read, None),
            Err(error @ sqlx::Error::Decode(_)) => (DecodedBatch::default(), Some(error)),
            Err(error) => return Err(error),
        };
        let is_last = read.count == 0;
        Ok(EventBatch { after: position, read, failure, is_last })
    }

    /// Moves views that are at the position of the batch. A view that cannot apply the batch stays where it is, with the reason in
    /// its checkpoint, and is left out for a while.
    pub(crate) async fn advance(
        &mut self,
        connection: &mut PgConnection,
        checkpoints: &[Checkpoint],
        batch: &mut EventBatch,
    ) -> Result<Advanced> {
        let due: Vec<&Checkpoint> = checkpoints.iter().filter(|checkpoint| !self.is_paused(checkpoint)).collect();
        if due.is_empty() {
            return Ok(Advanced { outcome: BatchOutcome::Idle, failures: vec![] });
        }
        debug_assert!(due.iter().all(|checkpoint| checkpoint.position == batch.after), "the batch follows the views");
        if let Some(failure) = batch.failure.take() {
            return self.fail_all(connection, &due, failure).await;
        }
        METRICS.projected_events.observe(batch.read.events.len() as f64);
        let writing = write(&mut self.states, connection, &due, &batch.read);
        let (moved, failures) = writing.instrument(batch_span(self.partition, batch.after, batch.to())).await?;
        let outcome = match (moved, batch.is_last) {
            (false, _) => BatchOutcome::Idle,
            (true, true) => BatchOutcome::CaughtUp,
            (true, false) => BatchOutcome::Behind,
        };
        Ok(Advanced { outcome, failures })
    }

    /// Records that none of these views can apply the next event, because it cannot be decoded.
    async fn fail_all(
        &mut self,
        connection: &mut PgConnection,
        checkpoints: &[&Checkpoint],
        error: sqlx::Error,
    ) -> Result<Advanced> {
        for checkpoint in checkpoints {
            let state = self.states.iter_mut().find(|state| state.projection.name() == checkpoint.name);
            if let Some(state) = state {
                record_failure(state, connection, checkpoint, &error).await?;
            }
        }
        Ok(Advanced { outcome: BatchOutcome::Idle, failures: vec![error] })
    }
}

/// The span of a batch, linked to the traces of the appends that it projects; disabled if none of them is traced.
fn batch_span(partition: i16, from: i64, to: i64) -> Span {
    let batches = trace::batches(partition, from, to);
    let span = match batches.is_empty() {
        true => Span::none(),
        false => tracing::info_span!(target: TARGET, parent: None, "project", from, to),
    };
    trace::link_projection(&span, batches);
    span
}

/// Writes the rows that follow from the events and moves the checkpoints, each view in a savepoint of its own. Returns whether a view
/// has moved, and the errors of the views that could not.
pub(crate) async fn write(
    states: &mut [ProjectionState],
    connection: &mut PgConnection,
    checkpoints: &[&Checkpoint],
    read: &DecodedBatch,
) -> Result<(bool, Vec<sqlx::Error>)> {
    let (mut moved, mut failures) = (false, vec![]);
    for checkpoint in checkpoints {
        let Some(state) = states.iter_mut().find(|state| state.projection.name() == checkpoint.name) else {
            continue;
        };
        if read.count == 0 && !checkpoint.has_failure {
            continue;
        }
        let mut savepoint = connection.begin().await?;
        match write_view(state, &mut savepoint, checkpoint, read).await {
            Ok(to) => {
                savepoint.commit().await?;
                state.written = Some((checkpoint.view.generation, to));
                state.cached = state.written;
                state.failure = None;
                moved = true;
            }
            Err(error) if is_of_view(&error) => {
                savepoint.rollback().await?;
                record_failure(state, connection, checkpoint, &error).await?;
                failures.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((moved, failures))
}

/// Writes the rows and the checkpoint of one view, and returns the new position.
async fn write_view(
    state: &mut ProjectionState,
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
    DecodedBatch { events, count }: &DecodedBatch,
) -> Result<i64> {
    if state.cached != Some((checkpoint.view.generation, checkpoint.position)) {
        state.projection.clear_cache();
    }
    // Until the rows are written, the cache may be ahead of them.
    state.cached = None;
    if !events.is_empty() {
        state.projection.apply(connection, checkpoint.view, events).await?;
    }
    let to = checkpoint.position + count;
    generation::advance_checkpoint(connection, checkpoint, to).await?;
    Ok(to)
}

/// Pauses a view, and stores the reason in its checkpoint.
async fn record_failure(
    state: &mut ProjectionState,
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
    error: &sqlx::Error,
) -> Result<()> {
    state.pause_after_failure(checkpoint.view.generation);
    let (partition, view, position) = (checkpoint.view.partition, &checkpoint.name, checkpoint.position);
    let (failure, sqlstate) = (StorageFailure::of(error).as_str(), sqlstate(error));
    tracing::error!(
        failure, sqlstate = &*sqlstate, %error, partition, view, position,
        "view cannot apply its next batch; retrying"
    );
    generation::store_failure(connection, checkpoint, &error.to_string()).await
}

/// Whether an error belongs to the rows or events of a view. The connection works, and other views may go on.
fn is_of_view(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| error.severity() == PgSeverity::Error)
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => true,
        _ => false,
    }
}

/// The time limit of a step. It doubles after each step that exceeds it, so that a slow database does not count as a lost
/// connection for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepTimeout {
    current: Duration,
    min: Duration,
    max: Duration,
}

impl StepTimeout {
    /// Limits in seconds.
    pub(crate) fn new(min_s: u64, max_s: u64) -> Self {
        let min = Duration::from_secs(min_s);
        Self { current: min, min, max: Duration::from_secs(max_s) }
    }

    /// Runs a step. If it exceeds the limit, it is cancelled and the next limit is twice as long.
    pub(crate) async fn run<T>(&mut self, step: impl Future<Output = Result<T>>) -> Result<T> {
        let mut has_ended = false;
        let result = with_timeout(self.current, async {
            let result = step.await;
            has_ended = true;
            result
        });
        let result = result.await;
        if !has_ended {
            self.current = (self.current * 2).min(self.max);
        }
        result
    }

    /// Returns to the shortest limit.
    pub(crate) fn reset(&mut self) {
        self.current = self.min;
    }
}
