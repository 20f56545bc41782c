//! The queue of an executor. Its length is limited in commands, by the places that the sender of the work holds. The commands of
//! streams wait in a second queue, so that a stream of any length does not delay other requests.

use std::collections::VecDeque;

use tokio::{select, sync::mpsc};

use super::{command::Error, pending::Pending};

/// How many commands of streams join a batch.
const STREAM_COMMANDS_OF_BATCH_MAX: usize = 256;

/// The sending side of a queue.
pub(super) struct QueueSender {
    requests: mpsc::UnboundedSender<Pending>,
    streams: mpsc::UnboundedSender<Pending>,
}

/// The receiving side of a queue.
pub(super) struct CommandQueue {
    /// Work that was taken out and could not join a batch. The next batches begin with it.
    carried: VecDeque<Pending>,
    requests: mpsc::UnboundedReceiver<Pending>,
    streams: mpsc::UnboundedReceiver<Pending>,
}

impl QueueSender {
    /// Puts work into the queue; `false` if the queue is closed.
    pub(super) fn send(&self, pending: Pending) -> bool {
        let queue = if pending.is_of_stream() { &self.streams } else { &self.requests };
        queue.send(pending).is_ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

impl CommandQueue {
    /// A queue, and its sending side.
    pub(super) fn new() -> (QueueSender, Self) {
        let (requests_sender, requests) = mpsc::unbounded_channel();
        let (streams_sender, streams) = mpsc::unbounded_channel();
        let sender = QueueSender { requests: requests_sender, streams: streams_sender };
        (sender, Self { carried: VecDeque::new(), requests, streams })
    }

    /// Waits for work; `false` if the queue is closed and empty. Cancellation safe.
    pub(super) async fn wait(&mut self) -> bool {
        if self.carried.is_empty() {
            let received = select! {
                biased;
                Some(pending) = self.requests.recv() => pending,
                Some(pending) = self.streams.recv() => pending,
                else => return false,
            };
            self.carried.push_back(received);
        }
        true
    }

    /// Takes work for a batch of at most `commands_max` commands. Work with more commands is taken alone.
    pub(super) fn take(&mut self, commands_max: usize) -> Vec<Pending> {
        let mut taken = self.take_more(commands_max);
        if taken.is_empty() {
            taken.extend(self.next(true));
        }
        taken
    }

    /// Takes work of at most `commands_max` commands: first that of requests, then that of streams.
    pub(super) fn take_more(&mut self, commands_max: usize) -> Vec<Pending> {
        let mut taken = Vec::new();
        let (mut commands, mut of_streams) = (0, 0);
        while commands < commands_max
            && let Some(pending) = self.next(of_streams < STREAM_COMMANDS_OF_BATCH_MAX)
        {
            commands += pending.commands().len();
            of_streams += usize::from(pending.is_of_stream());
            if commands > commands_max {
                self.carried.push_front(pending);
                break;
            }
            taken.push(pending);
        }
        taken
    }

    /// The next work whose caller still waits. Other work is dropped: its commands are not executed.
    fn next(&mut self, with_streams: bool) -> Option<Pending> {
        loop {
            let next = self.carried.pop_front().or_else(|| self.requests.try_recv().ok());
            let mut pending = match next {
                Some(pending) => pending,
                None if with_streams => self.streams.try_recv().ok()?,
                None => return None,
            };
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
        self.requests.close();
        self.streams.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Rejects all waiting work. Nothing was written for it. `reason` is a sentence.
    pub(super) fn reject_all(&mut self, reason: &'static str) {
        while let Some(pending) = self.next(true) {
            pending.reject(&Error::StorageUnavailable { reason });
        }
    }
}
