//! The queue of an executor. Its length is limited in commands, by the places that the sender of the work holds.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{command::Error, pending::Pending};

/// The sending side of a queue.
pub(super) type QueueSender = mpsc::UnboundedSender<Pending>;

/// The receiving side of a queue.
pub(super) struct CommandQueue {
    received: mpsc::UnboundedReceiver<Pending>,
    /// Work that was taken out and could not join a batch. The next batches begin with it.
    carried: VecDeque<Pending>,
}

impl CommandQueue {
    /// A queue, and its sending side.
    pub(super) fn new() -> (QueueSender, Self) {
        let (sender, received) = mpsc::unbounded_channel();
        (sender, Self { received, carried: VecDeque::new() })
    }

    /// Waits for work; `false` if the queue is closed and empty. Cancellation safe.
    pub(super) async fn wait(&mut self) -> bool {
        if self.carried.is_empty() {
            let Some(pending) = self.received.recv().await else { return false };
            self.carried.push_back(pending);
        }
        true
    }

    /// Takes work for a batch of at most `commands_max` commands. Work with more commands is taken alone.
    pub(super) fn take(&mut self, commands_max: usize) -> Vec<Pending> {
        let mut taken = self.take_more(commands_max);
        if taken.is_empty() {
            taken.extend(self.next());
        }
        taken
    }

    /// Takes work of at most `commands_max` commands.
    pub(super) fn take_more(&mut self, commands_max: usize) -> Vec<Pending> {
        let mut taken = Vec::new();
        let mut commands = 0;
        while commands < commands_max
            && let Some(pending) = self.next()
        {
            commands += pending.commands().len();
            if commands > commands_max {
                self.carried.push_front(pending);
                break;
            }
            taken.push(pending);
        }
        taken
    }

    /// The next work whose caller still waits. Other work is dropped: its commands are not executed.
    fn next(&mut self) -> Option<Pending> {
        loop {
            let mut pending = self.carried.pop_front().or_else(|| self.received.try_recv().ok())?;
            pending.queue_places = None;
            if !pending.is_abandoned() {
                return Some(pending);
            }
        }
    }

    /// Puts work back, in its order, before all other work.
    pub(super) fn put_back(&mut self, work: Vec<Pending>) {
        work.into_iter().rev().for_each(|pending| self.carried.push_front(pending));
    }

    /// Accepts no more work. The work in the queue stays.
    pub(super) fn close(&mut self) {
        self.received.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.received.is_closed()
    }

    /// Rejects all waiting work. Nothing was written for it. `reason` is a sentence.
    pub(super) fn reject_all(&mut self, reason: &'static str) {
        while let Some(pending) = self.carried.pop_front().or_else(|| self.received.try_recv().ok()) {
            pending.reject(&Error::StorageUnavailable { reason });
        }
    }
}
