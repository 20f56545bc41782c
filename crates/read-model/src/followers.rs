//! Every view with what this process holds of its rows between batches, and the one way in which views move: a batch of
//! events, rows and checkpoint in one transaction.

use sqlx::{PgConnection, Result};
use tracing::{Instrument, Span};

use super::{
    ahead::Ahead,
    generation::{self, Checkpoint},
    projection::{Applicable, Projection, decode, projections},
};
use passbook_event_store::{Primary, feed};
use passbook_telemetry::metrics::METRICS;
use passbook_telemetry::trace::{self, TARGET};

/// How many events one transaction takes. An account that changes often in them is written once.
const BATCH_EVENTS_MAX: i64 = 20_000;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// There was nothing to do, or another instance does it.
    Idle,
    /// The views moved, up to the head as it was.
    CaughtUp,
    /// The views moved, and there is more.
    Behind,
}

/// One view, one generation at a time.
struct Follower {
    projection: Box<dyn Projection>,
    /// The checkpoint that this process wrote last, and of which generation: only then are rows held in memory current.
    written: Option<(i16, i64)>,
}

/// All views of one partition.
pub(super) struct Followers {
    partition: i16,
    followers: Vec<Follower>,
    ahead: Ahead,
}

impl Followers {
    pub(super) fn new(partition: i16, connect: Primary) -> Self {
        let followers = projections().into_iter().map(|projection| Follower { projection, written: None }).collect();
        Self { partition, followers, ahead: Ahead::new(partition, connect) }
    }

    /// The view of a checkpoint.
    pub(super) fn projection(&self, checkpoint: &Checkpoint) -> Option<&dyn Projection> {
        let mut projections = self.followers.iter().map(|follower| follower.projection.as_ref());
        projections.find(|projection| projection.name() == checkpoint.name)
    }

    /// How far this process has brought every view, where it has.
    pub(super) fn written(&self) -> Option<i64> {
        self.followers.iter().filter_map(|follower| Some(follower.written?.1)).min()
    }

    /// Whether another instance has moved a view on from where this one left it.
    pub(super) fn were_overtaken(&self, checkpoints: &[Checkpoint]) -> bool {
        checkpoints.iter().any(|checkpoint| {
            let left = self.followers.iter().find(|follower| follower.projection.name() == checkpoint.name);
            left.and_then(|follower| follower.written).is_some_and(|(generation, position)| {
                generation == checkpoint.place.generation && position < checkpoint.position
            })
        })
    }

    /// Whether the last transaction stands is not known.
    pub(super) fn forget(&mut self) {
        self.followers.iter_mut().for_each(|follower| follower.written = None);
        self.ahead.forget();
    }

    /// Brings views that stand at the same position one batch further.
    pub(super) async fn advance(&mut self, connection: &mut PgConnection, checkpoints: &[Checkpoint]) -> Result<Step> {
        let Some(Checkpoint { position: from, .. }) = checkpoints.first() else { return Ok(Step::Idle) };
        let events = match self.ahead.take(*from) {
            Some(events) => events,
            None => read(connection, self.partition, *from).await?,
        };
        let to = from + events.len() as i64;
        METRICS.projected_events.observe(events.len() as f64);
        let batches = trace::batches(self.partition, *from, to);
        let span = match batches.is_empty() {
            true => Span::none(),
            false => tracing::info_span!(target: TARGET, parent: None, "project", from, to),
        };
        trace::projected(&span, batches);
        if (events.len() as i64) < BATCH_EVENTS_MAX {
            self.ahead.forget();
            let moved = write(&mut self.followers, connection, checkpoints, &events).instrument(span).await?;
            return Ok(if moved { Step::CaughtUp } else { Step::Idle });
        }
        let writing = write(&mut self.followers, connection, checkpoints, &events).instrument(span);
        let (moved, ()) = tokio::join!(writing, self.ahead.read(to));
        Ok(if moved? { Step::Behind } else { Step::Idle })
    }
}

/// The next batch of events after `position`.
pub(super) async fn read(connection: &mut PgConnection, partition: i16, position: i64) -> Result<Vec<Applicable>> {
    decode(feed::read(connection, partition, position, BATCH_EVENTS_MAX).await?, position)
}

/// Writes the rows that follow from `events` and moves the checkpoints; false where there was nothing to write.
async fn write(
    followers: &mut [Follower],
    connection: &mut PgConnection,
    checkpoints: &[Checkpoint],
    events: &[Applicable],
) -> Result<bool> {
    let mut moved = false;
    for checkpoint in checkpoints {
        let Some(follower) = followers.iter_mut().find(|f| f.projection.name() == checkpoint.name) else {
            continue;
        };
        if events.is_empty() && !checkpoint.failed {
            continue;
        }
        let generation = checkpoint.place.generation;
        if follower.written != Some((generation, checkpoint.position)) {
            follower.projection.forget();
        }
        let to = checkpoint.position + events.len() as i64;
        follower.projection.apply(connection, checkpoint.place, events).await?;
        generation::advance(connection, checkpoint, to).await?;
        follower.written = Some((generation, to));
        moved = true;
    }
    Ok(moved)
}
