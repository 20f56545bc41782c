//! Where commands wait for their executor: they join a batch in its turn, and do not wait for a database that is away.

use std::{future::Future, pin::pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{Error, Pending};

/// How many commands share one append.
pub(super) const BATCH_COMMANDS_MAX: usize = 512;
/// How long a command waits for a database that is away before it is told so.
pub(super) const OUTAGE_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// How often those who wait behind a batch that does not come back are turned away.
const TURN_AWAY_EVERY: Duration = Duration::from_millis(100);

pub(super) type Queue = mpsc::Receiver<Pending>;

/// Those who wait behind an attempt.
pub(super) struct WaitingCommands<'a> {
    queue: &'a mut Queue,
    /// Until then they wait for it.
    turned_away_at: Instant,
}

impl<'a> WaitingCommands<'a> {
    /// From now on.
    pub(super) fn new(queue: &'a mut Queue) -> Self {
        Self { queue, turned_away_at: Instant::now() + OUTAGE_WAIT_MAX }
    }

    /// Lets a step of the attempt take its time, but not those who wait behind it.
    pub(super) async fn run_while_rejecting<T>(&mut self, step: impl Future<Output = T>) -> T {
        let mut step = pin!(step);
        loop {
            if let Ok(outcome) = timeout_at(self.turned_away_at, &mut step).await {
                return outcome;
            }
            reject_all(self.queue);
            self.turned_away_at = Instant::now() + TURN_AWAY_EVERY;
        }
    }

    /// Takes along who has come while the batch waited for its turn.
    pub(super) fn drain_into(&mut self, batch: &mut Vec<Pending>) {
        while batch.len() < BATCH_COMMANDS_MAX
            && let Ok(pending) = self.queue.try_recv()
        {
            batch.extend((!pending.answer.is_closed()).then_some(pending));
        }
    }
}

/// Of those who have not been taken into a batch nothing was done.
pub(super) fn reject_all(queue: &mut Queue) {
    while let Ok(pending) = queue.try_recv() {
        let _ = pending.answer.send(Err(Error::StorageUnavailable));
    }
}
