//! The behaviour of an executor during an outage. It publishes the reason, and rejects the commands that wait behind an attempt,
//! so that no caller waits for a database that does not answer.

use std::{future::Future, pin::pin, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::queue::CommandQueue;
use passbook_event_store::StorageFailure;

/// How long a command waits for an unavailable database.
pub(super) const OUTAGE_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// How often an attempt that takes longer rejects the commands that wait behind it.
const REJECT_INTERVAL: Duration = Duration::from_millis(100);
/// How long after the last failure an empty batch ends an outage. It writes nothing, so it cannot notice a full disk.
const RECOVERY_GRACE: Duration = Duration::from_secs(2);

/// Whether the executor can append.
pub(super) struct Availability {
    /// The start of the first failed attempt since the last successful one.
    failing_since: Option<Instant>,
    /// The end of the last failed attempt.
    failed_at: Option<Instant>,
    /// The reason of the last failure, for the readiness check.
    outage: watch::Sender<Option<&'static str>>,
}

impl Availability {
    pub(super) fn new(outage: watch::Sender<Option<&'static str>>) -> Self {
        Self { failing_since: None, failed_at: None, outage }
    }

    /// Whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }

    /// Whether attempts have failed for longer than a command waits.
    pub(super) fn is_outage(&self) -> bool {
        self.failing_since.is_some_and(|since| since.elapsed() > OUTAGE_WAIT_MAX)
    }

    /// Records an attempt that failed because of the database.
    pub(super) fn record_failure(&mut self, started: Instant, outage: &'static str) {
        self.failing_since.get_or_insert(started);
        self.failed_at = Some(Instant::now());
        self.outage.send_replace(Some(outage));
    }

    /// Records an attempt that the database answered.
    pub(super) fn record_success(&mut self, is_empty_batch: bool) {
        if is_empty_batch && self.failed_at.is_some_and(|at| at.elapsed() < RECOVERY_GRACE) {
            return;
        }
        (self.failing_since, self.failed_at) = (None, None);
        self.outage.send_replace(None);
    }
}

/// The commands that wait in the queue while the executor attempts to append a batch.
pub(super) struct WaitingCommands<'q> {
    queue: &'q mut CommandQueue,
    reject_at: Instant,
}

impl<'q> WaitingCommands<'q> {
    /// The commands wait for at most [`OUTAGE_WAIT_MAX`] from now on.
    pub(super) fn new(queue: &'q mut CommandQueue) -> Self {
        Self { queue, reject_at: Instant::now() + OUTAGE_WAIT_MAX }
    }

    /// Runs a step of the attempt to its end. Meanwhile it rejects the commands that have waited too long.
    pub(super) async fn run_while_rejecting<T>(&mut self, step: impl Future<Output = T>) -> T {
        let mut step = pin!(step);
        loop {
            if let Ok(output) = timeout_at(self.reject_at, &mut step).await {
                return output;
            }
            self.queue.reject_all(StorageFailure::TimedOut.sentence());
            self.reject_at = Instant::now() + REJECT_INTERVAL;
        }
    }

    /// The queue, between two steps.
    pub(super) fn queue(&mut self) -> &mut CommandQueue {
        self.queue
    }
}
