//! The projections of one partition with their caches. Views move only here: a batch of events is folded into rows, and rows and
//! checkpoint are written in one transaction.

use std::time::Duration;

use sqlx::{PgConnection, Result};
use tracing::{Instrument, Span};

use crate::{
    decoded_event::{BATCH_EVENTS_MAX, DecodedEvent, read_batch},
    generation::{self, Checkpoint},
    prefetch::Prefetcher,
    projection::Projection,
    views::projections,
};
use passbook_event_store::{PrimaryConnector, with_timeout};
use passbook_telemetry::metrics::METRICS;
use passbook_telemetry::trace::{self, TARGET};

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
struct ProjectionState {
    projection: Box<dyn Projection>,
    /// Generation and position of the checkpoint that this process wrote last. The cache is valid only at this checkpoint.
    written: Option<(i16, i64)>,
}

/// All projections of one partition.
pub(crate) struct Projections {
    partition: i16,
    states: Vec<ProjectionState>,
    prefetcher: Prefetcher,
}

impl Projections {
    pub(crate) fn new(partition: i16, primary: PrimaryConnector) -> Self {
        let states =
            projections().into_iter().map(|projection| ProjectionState { projection, written: None }).collect();
        Self { partition, states, prefetcher: Prefetcher::new(partition, primary) }
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

    /// Marks all caches as invalid: whether the last transaction was committed is unknown, or the database is another one.
    pub(crate) fn invalidate_caches(&mut self) {
        self.states.iter_mut().for_each(|state| state.written = None);
        self.prefetcher.reset();
    }

    /// Moves views that are at the same position by one batch. They share one read of the log.
    pub(crate) async fn advance(
        &mut self,
        connection: &mut PgConnection,
        checkpoints: &[Checkpoint],
    ) -> Result<BatchOutcome> {
        let Some(Checkpoint { position: from, .. }) = checkpoints.first() else { return Ok(BatchOutcome::Idle) };
        let events = match self.prefetcher.take(*from) {
            Some(events) => events,
            None => read_batch(connection, self.partition, *from).await?,
        };
        let to = from + events.len() as i64;
        METRICS.projected_events.observe(events.len() as f64);
        let writing = write(&mut self.states, connection, checkpoints, &events);
        let writing = writing.instrument(batch_span(self.partition, *from, to));
        if (events.len() as i64) < BATCH_EVENTS_MAX {
            self.prefetcher.reset();
            let moved = writing.await?;
            return Ok(if moved { BatchOutcome::CaughtUp } else { BatchOutcome::Idle });
        }
        let (moved, ()) = tokio::join!(writing, self.prefetcher.read(to));
        Ok(if moved? { BatchOutcome::Behind } else { BatchOutcome::Idle })
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

/// Writes the rows that follow from `events` and moves the checkpoints. Returns `false` if there was nothing to write.
async fn write(
    states: &mut [ProjectionState],
    connection: &mut PgConnection,
    checkpoints: &[Checkpoint],
    events: &[DecodedEvent],
) -> Result<bool> {
    let mut moved = false;
    for checkpoint in checkpoints {
        let Some(state) = states.iter_mut().find(|state| state.projection.name() == checkpoint.name) else {
            continue;
        };
        if events.is_empty() && !checkpoint.has_failure {
            continue;
        }
        let generation = checkpoint.view.generation;
        if state.written != Some((generation, checkpoint.position)) {
            state.projection.clear_cache();
        }
        if !events.is_empty() {
            state.projection.apply(connection, checkpoint.view, events).await?;
        }
        let to = checkpoint.position + events.len() as i64;
        generation::advance_checkpoint(connection, checkpoint, to).await?;
        state.written = Some((generation, to));
        moved = true;
    }
    Ok(moved)
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
