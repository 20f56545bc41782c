//! The background task that brings the live views of one partition up to the head of the log. It reads the events after the
//! checkpoint and writes rows and checkpoint in one transaction, so that each event counts exactly once after any crash.
//!
//! There is no leader election and no lease: the instance that locks the checkpoints projects the next batch. Of several instances
//! one continues with the rows in its cache, and the others only watch while the views move.

use std::{future::pending, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection, Result, query, query_scalar};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    decoded_event::event_of_newer_release,
    generation,
    projections::{BatchOutcome, EventBatch, Projections, StepTimeout},
    read_model::Progress,
    views::{account_cache::Purpose, known_views},
};
use passbook_event_store::{
    FailoverWatch, Partitions, PrimaryConnector, StorageFailure, StreamVersion, log_if_unreachable, sqlstate,
    timestamp, with_timeout,
};
use passbook_telemetry::metrics::METRICS;

/// Interval of the poll in case a wake-up is lost. It doubles while there is nothing to do.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 250;
/// Pause after a batch that reached the head, unless a query waits. Because of the pause, more events share a transaction, and a row
/// that changes often is written once. The pause grows with the batch, so it is long only with some 10 000 events/s. It also grows with
/// the number of partitions, because each of them has a projector: their transactions together cost as much as those of one.
const PAUSE_US_PER_EVENT: u64 = 100;
const PAUSE_MS_MIN: u64 = 5;
const PAUSE_MS_MAX: u64 = 100;
/// The same on the nodes of a Citus cluster, where each statement is planned twice, by the coordinator and by the node: a batch
/// costs some 20 ms of CPU time even if it has a single event.
const DISTRIBUTED_PAUSE_MS_MIN: u64 = 100;
const DISTRIBUTED_PAUSE_MS_MAX: u64 = 800;
/// Interval at which the projector checks whether another instance still moves the views. It is longer than a batch of the other
/// instance and its pause, else both would take over from each other.
const WATCH_MS: u64 = 300;
const DISTRIBUTED_WATCH_MS: u64 = 2_000;
/// Pause after a failure.
const RETRY_MS: u64 = 250;
/// Time limit for opening a connection.
const CONNECT_S_MAX: u64 = 2;
/// Time limit of a step, after which its connection is considered lost. It doubles after each step that exceeds it.
const STEP_S_MIN: u64 = 3;
const STEP_S_MAX: u64 = 60;

/// The projector of one partition.
pub struct Projector {
    partition: i16,
    primary: PrimaryConnector,
    connection: Option<PgConnection>,
    failover: FailoverWatch,
    projections: Projections,
    /// The last position that this process appended.
    appended: watch::Receiver<i64>,
    projected: watch::Sender<i64>,
    reader_waiting: Arc<Notify>,
    newer_event: Arc<watch::Sender<Option<StreamVersion>>>,
    /// The progress of the views at the last step, while another instance moves them.
    watched: Option<i64>,
    partitions: Partitions,
    poll_ms: u64,
    /// The pause after the last batch.
    pause: Duration,
}

impl Projector {
    /// The projector of one of `partitions`, and its progress for the queries. `appended` is the last position that this process
    /// appended and wakes the projector up. An event that only a newer release can decode is reported through `newer_event`.
    ///
    /// Its connections show only events that the standbys have, so that no view shows an event that a failover would lose.
    pub fn new(
        partitions: Partitions,
        partition: i16,
        primary: &PrimaryConnector,
        appended: watch::Receiver<i64>,
        newer_event: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> (Self, Progress) {
        let primary = primary.confirmed(partition..partition + 1);
        let (sender, projected) = watch::channel(0);
        let reader_waiting = Arc::new(Notify::new());
        let progress = Progress { projected, reader_waiting: Arc::clone(&reader_waiting) };
        let projector = Self {
            partition,
            connection: None,
            failover: primary.failover_watch(),
            projections: Projections::new(partition, primary.clone(), Purpose::Live),
            primary,
            appended,
            projected: sender,
            reader_waiting,
            newer_event,
            watched: None,
            partitions,
            poll_ms: POLL_MS_MIN,
            pause: Duration::ZERO,
        };
        (projector, progress)
    }

    /// Runs until `shutdown` is cancelled and the views have then reached the head of the log, or a step has failed. Cancel it
    /// after the last append of this process, so that everything this process appended is projected.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let heartbeat = METRICS.projector_heartbeat.with_label_values(&[&self.partition.to_string()]);
        let mut limit = StepTimeout::new(STEP_S_MIN, STEP_S_MAX);
        loop {
            heartbeat.set(timestamp::now().timestamp_micros() as f64 / 1e6);
            if self.failover.has_failed_over() {
                self.connection = None;
                self.projections.invalidate_caches();
            }
            let is_stopping = shutdown.is_cancelled();
            if is_stopping {
                self.watched = None;
            }
            match limit.run(self.step(is_stopping)).await {
                Ok(outcome) => {
                    // While the checkpoints are locked, the lock may belong to the backend of a step that timed out here.
                    if outcome != BatchOutcome::Idle || self.watched.is_none() {
                        limit.reset();
                    }
                    if is_stopping && outcome != BatchOutcome::Behind {
                        return;
                    }
                    self.pause(outcome, &shutdown).await;
                }
                Err(_) if is_stopping => return,
                Err(error) => {
                    self.report_failure(&error).await;
                    let _ = timeout(Duration::from_millis(RETRY_MS), shutdown.cancelled()).await;
                }
            }
        }
    }

    /// Waits until the next step is due. Shutdown ends long waits.
    async fn pause(&mut self, outcome: BatchOutcome, shutdown: &CancellationToken) {
        match outcome {
            BatchOutcome::Behind => self.poll_ms = POLL_MS_MIN,
            BatchOutcome::CaughtUp => {
                self.poll_ms = POLL_MS_MIN;
                let woken = async {
                    tokio::select! {
                        () = self.reader_waiting.notified() => {}
                        () = shutdown.cancelled() => {}
                    }
                };
                let _ = timeout(self.pause, woken).await;
            }
            BatchOutcome::Idle if self.watched.is_some() => {
                let watch_ms = if self.primary.is_distributed() { DISTRIBUTED_WATCH_MS } else { WATCH_MS };
                let _ = timeout(Duration::from_millis(watch_ms), shutdown.cancelled()).await;
            }
            BatchOutcome::Idle => {
                let woken = async {
                    tokio::select! {
                        () = next_append(&mut self.appended) => {}
                        () = shutdown.cancelled() => {}
                    }
                };
                self.poll_ms = match timeout(Duration::from_millis(self.poll_ms), woken).await {
                    Ok(()) => POLL_MS_MIN,
                    Err(_) => (self.poll_ms * 2).min(POLL_MS_MAX),
                };
            }
        }
    }

    /// Logs the failure of a step and stores it in the checkpoints.
    async fn report_failure(&mut self, error: &sqlx::Error) {
        self.projections.invalidate_caches();
        let (failure, sqlstate) = (StorageFailure::of(error), sqlstate(error));
        if !log_if_unreachable(failure, error) {
            let failure = failure.as_str();
            tracing::error!(failure, sqlstate = &*sqlstate, %error, partition = self.partition, "projector batch failed; retrying");
        }
        if let Some(event) = event_of_newer_release(error) {
            self.newer_event.send_replace(Some(event));
        }
        // Best effort: the reason is in the log, too.
        let stored = with_timeout(Duration::from_secs(STEP_S_MIN), self.store_failure(&error.to_string())).await;
        if let Err(error) = stored {
            tracing::debug!(%error, partition = self.partition, "projector failure could not be stored");
        }
    }

    /// Projects one batch if there is anything to do. After an error or a timeout the connection is dropped.
    async fn step(&mut self, is_stopping: bool) -> Result<BatchOutcome> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let outcome = self.project_if_behind(&mut connection, is_stopping).await?;
        self.connection = Some(connection);
        Ok(outcome)
    }

    async fn connect(&self) -> Result<PgConnection> {
        let mut connection = with_timeout(Duration::from_secs(CONNECT_S_MAX), self.primary.connect()).await?;
        generation::register_views(&mut connection, self.partition).await?;
        Ok(connection)
    }

    async fn project_if_behind(&mut self, connection: &mut PgConnection, is_stopping: bool) -> Result<BatchOutcome> {
        let appended = *self.appended.borrow_and_update();
        let watched = self.watched.take();
        if let Some(watched) = watched {
            let progress = self.live_progress(connection).await?;
            if progress != watched {
                self.watched = Some(progress);
                return Ok(BatchOutcome::Idle);
            }
        }
        let is_own_append_missing =
            watched.is_none() && self.projections.written().is_some_and(|written| written < appended);
        if is_own_append_missing || self.is_behind(connection).await? {
            // The other instance no longer moves the views, or it may have ended: this one takes over.
            return self.project(connection, is_stopping || watched.is_some()).await;
        }
        if watched.is_some() {
            // The views are at the head. The instance that writes next continues with a cache of its own.
            self.projections.invalidate_caches();
        }
        Ok(BatchOutcome::Idle)
    }

    /// The sum of the checkpoints of the live views that this release can write. It changes whenever one of them moves, even if
    /// another view has stopped.
    async fn live_progress(&self, connection: &mut PgConnection) -> Result<i64> {
        let sum = query_scalar!(
            "SELECT sum(position)::bigint
             FROM projection
             JOIN unnest($2::text[], $3::smallint[]) AS known(name, schema_version)
               ON known.name = projection.name AND known.schema_version >= projection.schema_version
             WHERE projection.partition = $1 AND state = 'live'",
            self.partition,
            &known_views().names,
            &known_views().schema_versions
        );
        Ok(sum.fetch_one(connection).await?.unwrap_or_default())
    }

    /// Whether a live view is behind the log or has failed. Takes no lock, so an idle bank writes nothing.
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
            &known_views().names,
            &known_views().schema_versions
        )
        .fetch_one(connection)
        .await
    }

    /// Projects one batch: reads events, and then, in one transaction, locks the checkpoints and writes rows and checkpoints. If
    /// another instance has moved the views, this one only watches from then on, unless it `takes_over`.
    async fn project(&mut self, connection: &mut PgConnection, takes_over: bool) -> Result<BatchOutcome> {
        let _timer = METRICS.projection_duration.start_timer();
        let mut batches = self.read_batches(connection).await?;
        let events = batches.iter().map(EventBatch::count).max().unwrap_or_default();
        self.pause = pause_after(events, self.partitions, self.primary.is_distributed());
        let mut transaction = connection.begin().await?;
        let checkpoints = generation::claim(&mut transaction, self.partition, "live").await?;
        if checkpoints.is_empty() || self.projections.moved_by_other_instance(&checkpoints) && !takes_over {
            transaction.rollback().await?;
            self.watched = Some(self.live_progress(connection).await?);
            return Ok(BatchOutcome::Idle);
        }
        let (mut outcome, mut failures) = (BatchOutcome::Idle, vec![]);
        let mut has_moved_meanwhile = false;
        for at_one_position in checkpoints.chunk_by(|a, b| a.position == b.position) {
            let position = at_one_position[0].position;
            let Some(batch) = batches.iter_mut().find(|batch| batch.after == position) else {
                has_moved_meanwhile |= !at_one_position.iter().all(|checkpoint| self.projections.is_paused(checkpoint));
                continue;
            };
            let advanced = self.projections.advance(&mut transaction, at_one_position, batch).await?;
            outcome = outcome.max(advanced.outcome);
            failures.extend(advanced.failures);
        }
        if let Some(event) = failures.iter().find_map(event_of_newer_release) {
            self.newer_event.send_replace(Some(event));
        }
        if outcome == BatchOutcome::Idle && failures.is_empty() {
            // An explicit rollback releases the locks now; a dropped transaction would release them at the next statement.
            transaction.rollback().await?;
            return Ok(if has_moved_meanwhile { BatchOutcome::Behind } else { outcome });
        }
        transaction.commit().await?;
        if let Some(least) = self.projections.written() {
            self.projected.send_replace(least);
        }
        Ok(if has_moved_meanwhile { BatchOutcome::Behind } else { outcome })
    }

    /// Reads the next batch of each position at which a live view is, and what the views need for it. Views usually are at one position.
    async fn read_batches(&mut self, connection: &mut PgConnection) -> Result<Vec<EventBatch>> {
        let mut checkpoints = generation::read_checkpoints(connection, self.partition, "live").await?;
        checkpoints.retain(|checkpoint| !self.projections.is_paused(checkpoint));
        let mut batches = Vec::new();
        for at_one_position in checkpoints.chunk_by(|a, b| a.position == b.position) {
            batches.push(self.projections.read(connection, at_one_position[0].position).await?);
        }
        self.projections.prefetch_after(&batches);
        for batch in &batches {
            self.projections.preload(connection, &checkpoints, batch).await?;
        }
        Ok(batches)
    }

    /// Stores the reason of a failure, which `GET /v1/projections` shows.
    async fn store_failure(&self, reason: &str) -> Result<()> {
        let mut connection = self.primary.connect().await?;
        query!("UPDATE projection SET failure = $2 WHERE partition = $1 AND state = 'live'", self.partition, reason)
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}

/// The pause after a batch of so many events.
fn pause_after(events: i64, partitions: Partitions, is_distributed: bool) -> Duration {
    let (min, max) = match is_distributed {
        true => (DISTRIBUTED_PAUSE_MS_MIN, DISTRIBUTED_PAUSE_MS_MAX),
        false => (PAUSE_MS_MIN, PAUSE_MS_MAX),
    };
    let partitions = u32::from(partitions.count().unsigned_abs());
    let of_one = Duration::from_micros(PAUSE_US_PER_EVENT * events.unsigned_abs()).max(Duration::from_millis(min));
    (of_one * partitions).min(Duration::from_millis(max))
}

/// Completes at the next append of this process. Never completes after the executors have ended.
async fn next_append(appended: &mut watch::Receiver<i64>) {
    if appended.changed().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_grows_with_the_batch_between_its_limits() {
        let pauses = [0, 50, 600, 1_000, 20_000].map(|events| pause_after(events, Partitions::ONE, false).as_millis());
        assert_eq!(pauses, [5, 5, 60, 100, 100]);
    }

    #[test]
    fn pause_grows_with_the_number_of_partitions() {
        let of_16 = Partitions::new(16).expect("a valid count");
        assert_eq!([0, 20_000].map(|events| pause_after(events, of_16, false).as_millis()), [80, 100]);
        assert_eq!([0, 20_000].map(|events| pause_after(events, of_16, true).as_millis()), [800, 800]);
    }
}
