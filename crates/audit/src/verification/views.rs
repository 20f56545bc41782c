//! Compares the rows of the views with a fold of the same events. Each generation is compared at the position of its checkpoint,
//! so views may lag behind the log.
//!
//! Each view has a task with a connection of its own, because the folds of two views have nothing in common. The tasks follow the
//! verification of the log, so a mismatch is reported exactly as if all were compared in one pass.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{PgConnection, query};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    checked_events::{Chunk, Content, joined},
    log_fold::LogFold,
    report::{Error, Finding},
    snapshot::Snapshot,
};
use passbook_event_store::reader;
use passbook_read_model::{
    projection::{Check, Detail, Mismatch, ViewGeneration},
    views::checks,
};

/// How many chunks of verified events wait for the fold of a view.
const CHUNKS_WAITING_MAX: usize = 8;
/// How many events one statement reads to find the account of a mismatch.
const REREAD_EVENTS_MAX: i64 = 10_000;

/// The checks of the views of one partition.
pub(super) struct ViewChecks {
    tasks: Vec<(mpsc::Sender<Verified>, AbortOnDropHandle<sqlx::Result<Compared>>)>,
    /// Views in a shape that this release cannot compare.
    other_shapes: Vec<PendingView>,
    /// Set when a task has failed or has found a mismatch.
    has_ended_early: Arc<AtomicBool>,
}

/// Events that are verified, up to this number.
struct Verified {
    chunk: Arc<Chunk>,
    events: usize,
}

/// The result of one view.
enum Compared {
    /// The rows at this checkpoint do not match the events.
    Mismatch { checkpoint: i64, mismatch: Mismatch },
    /// The generations that match, and those whose checkpoint is beyond the events.
    Matches { left: VecDeque<PendingView> },
}

struct PendingView {
    name: String,
    /// The position of the checkpoint.
    position: i64,
    view: ViewGeneration,
}

impl ViewChecks {
    /// Reads the checkpoints of all live and building generations, and starts a task for each view.
    pub(super) async fn start(snapshot: &mut Snapshot, partition: i16) -> sqlx::Result<Self> {
        let mut other_shapes = pending_views(&mut snapshot.lookups, partition).await?;
        let mut tasks = Vec::new();
        let has_ended_early = Arc::new(AtomicBool::new(false));
        for ((name, schema_version), check) in checks(Detail::Total) {
            let is_of_check =
                |pending: &mut PendingView| pending.name == name && pending.view.schema_version == schema_version;
            let pending: VecDeque<PendingView> = other_shapes.extract_if(.., is_of_check).collect();
            if pending.is_empty() {
                continue;
            }
            let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
            let task = ViewTask { name, check, pending, connection: snapshot.join().await? };
            let has_ended_early = Arc::clone(&has_ended_early);
            let run = async move {
                let result = task.run(receiver).await;
                let is_early = !matches!(result, Ok(Compared::Matches { .. }));
                has_ended_early.fetch_or(is_early, Ordering::Relaxed);
                result
            };
            tasks.push((sender, AbortOnDropHandle::new(tokio::spawn(run))));
        }
        Ok(Self { tasks, other_shapes, has_ended_early })
    }

    /// Folds the first `events` of a chunk, which are verified. Returns `false` if [`Self::finish`] has an error, so that later events
    /// need no verification.
    pub(super) async fn fold(&self, chunk: &Arc<Chunk>, events: usize) -> bool {
        for (sender, _) in &self.tasks {
            // Sending fails after the last checkpoint of the view.
            let _ = sender.send(Verified { chunk: Arc::clone(chunk), events }).await;
        }
        !self.has_ended_early.load(Ordering::Relaxed)
    }

    /// Waits until the views are compared up to the last verified event. Fails with the first mismatch, or returns the first checkpoint
    /// that is beyond the log.
    pub(super) async fn finish(self, fold: &LogFold) -> Result<Option<Finding>, Error> {
        let mut left = self.other_shapes;
        left.retain(|pending| pending.position > fold.position());
        let mut first: Option<(i64, Mismatch)> = None;
        for (sender, task) in self.tasks {
            drop(sender);
            match joined(task).await? {
                Compared::Mismatch { checkpoint, mismatch } => {
                    if first.as_ref().is_none_or(|(earlier, _)| checkpoint < *earlier) {
                        first = Some((checkpoint, mismatch));
                    }
                }
                Compared::Matches { left: of_view } => left.extend(of_view),
            }
        }
        if let Some((_, mismatch)) = first {
            return Err(fold.finding(mismatch.position, mismatch.message).into());
        }
        Ok(left.iter().min_by_key(|pending| pending.position).map(|PendingView { name, position, .. }| {
            let message = format!("the checkpoint of the view {name} is here, but the log ends before");
            fold.finding(*position, message)
        }))
    }
}

/// The check of one view.
struct ViewTask {
    name: &'static str,
    check: Box<dyn Check>,
    /// The generations that are not compared yet, in the order of their checkpoints.
    pending: VecDeque<PendingView>,
    connection: PgConnection,
}

impl ViewTask {
    async fn run(mut self, mut verified: mpsc::Receiver<Verified>) -> sqlx::Result<Compared> {
        if let Some(mismatch) = self.compare_at(0).await? {
            return Ok(mismatch);
        }
        while !self.pending.is_empty()
            && let Some(Verified { chunk, events }) = verified.recv().await
        {
            for checked in &chunk.events[..events] {
                if let Content::Account(decoded) = &checked.content {
                    self.check.fold(decoded);
                }
                if let Some(mismatch) = self.compare_at(checked.recorded().position).await? {
                    return Ok(mismatch);
                }
            }
        }
        Ok(Compared::Matches { left: self.pending })
    }

    /// Compares the generations whose checkpoint is at `position`, which is that of the last folded event.
    async fn compare_at(&mut self, position: i64) -> sqlx::Result<Option<Compared>> {
        while let Some(PendingView { view, .. }) = self.pending.pop_front_if(|next| next.position == position) {
            if let Some(total) = self.check.compare(&mut self.connection, view, None).await? {
                let mismatch = self.find_mismatch(view, position).await?.unwrap_or(total);
                return Ok(Some(Compared::Mismatch { checkpoint: position, mismatch }));
            }
        }
        Ok(None)
    }

    /// Folds the events up to a checkpoint again, now by account, to find an account whose rows do not match.
    async fn find_mismatch(&mut self, view: ViewGeneration, checkpoint: i64) -> sqlx::Result<Option<Mismatch>> {
        let mut checks = checks(Detail::ByAccount).into_iter();
        let Some((_, mut check)) = checks.find(|((name, _), _)| *name == self.name) else { return Ok(None) };
        let mut position = 0;
        while position < checkpoint {
            let limit = REREAD_EVENTS_MAX.min(checkpoint - position);
            let events = reader::events_after(&mut self.connection, view.partition, position, limit).await?;
            let Some(last) = events.last() else { return Ok(None) };
            position = last.position;
            for recorded in events {
                check.fold(&recorded.try_into()?);
            }
        }
        check.compare(&mut self.connection, view, None).await
    }
}

async fn pending_views(connection: &mut PgConnection, partition: i16) -> sqlx::Result<Vec<PendingView>> {
    query!(
        "SELECT name, generation, schema_version, position
         FROM projection
         WHERE partition = $1 AND state IN ('building', 'live')
         ORDER BY position",
        partition
    )
    .map(|row| PendingView {
        name: row.name,
        position: row.position,
        view: ViewGeneration { partition, generation: row.generation, schema_version: row.schema_version },
    })
    .fetch_all(connection)
    .await
}
