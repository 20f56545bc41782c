//! The queue of an executor. Its length is limited in commands, by the places that the sender of the work holds. The commands of
//! streams wait in a second queue, so that a stream of any length does not delay other requests.

use std::{collections::VecDeque, time::Duration};

use tokio::{select, sync::mpsc, time::Instant};

use super::{command::Error, pending::Pending};

/// How many places of each batch belong to streams that wait, while there are requests. Without requests, streams fill the batches. A
/// request waits for the batch before it: beside an import, four clients did 480, 830, 1 130 and 2 010 requests/s with 128, 64, 32 and
/// 16, and the import was never slower than 0.8 of its rate with 128.
const STREAM_COMMANDS_BESIDE_REQUESTS: usize = 16;
/// For how long after a request there is probably another one, in milliseconds.
const REQUESTS_RECENT_MS: u64 = 1_000;

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
    /// When a command of a request was taken last.
    requested_at: Option<Instant>,
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
        (sender, Self { carried: VecDeque::new(), requests, streams, requested_at: None })
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
        let mut taken = self.take_more(commands_max, &[]);
        if taken.is_empty() {
            taken.extend(self.next());
        }
        taken
    }

    /// Takes work that fits into a batch of at most `commands_max` commands: first that of requests, then that of streams. If commands
    /// of streams wait, some get a place before all requests do, and the others wait while there are requests.
    pub(super) fn take_more(&mut self, commands_max: usize, batch: &[Pending]) -> Vec<Pending> {
        let mut taken = Vec::new();
        let commands_max = commands_max.saturating_sub(batch.iter().map(|pending| pending.commands().len()).sum());
        let mut of_streams = batch.iter().filter(|pending| pending.is_of_stream()).count();
        let mut commands = 0;
        let for_streams =
            self.streams.len().min(STREAM_COMMANDS_BESIDE_REQUESTS.saturating_sub(of_streams)).min(commands_max);
        loop {
            // The first work may take the whole batch: it would not fit next time either.
            let limit = if taken.is_empty() { commands_max } else { commands_max - for_streams };
            if commands >= limit {
                break;
            }
            let Some(pending) = self.next_before_streams() else { break };
            commands += pending.commands().len();
            if commands > limit {
                commands -= pending.commands().len();
                self.carried.push_front(pending);
                break;
            }
            if pending.is_of_stream() {
                of_streams += 1;
            } else {
                self.requested_at = Some(Instant::now());
            }
            taken.push(pending);
        }
        let has_requests = self.requested_at.is_some_and(|at| at.elapsed() < Duration::from_millis(REQUESTS_RECENT_MS));
        let of_streams_max = if has_requests { STREAM_COMMANDS_BESIDE_REQUESTS } else { commands_max };
        // Carried commands of streams are older than those in their queue.
        let is_next = !self.carried.iter().any(Pending::is_of_stream);
        while is_next
            && of_streams < of_streams_max
            && commands < commands_max
            && let Ok(pending) = self.streams.try_recv()
        {
            commands += pending.commands().len();
            of_streams += 1;
            taken.push(pending);
        }
        taken
    }

    /// The next work whose caller still waits, of those before the queue of streams. Other work is dropped: its commands are not
    /// executed.
    fn next_before_streams(&mut self) -> Option<Pending> {
        loop {
            let mut pending = self.carried.pop_front().or_else(|| self.requests.try_recv().ok())?;
            pending.queue_places = None;
            if !pending.is_abandoned() {
                return Some(pending);
            }
        }
    }

    /// The next work of all. Commands of streams are never dropped.
    fn next(&mut self) -> Option<Pending> {
        self.next_before_streams().or_else(|| self.streams.try_recv().ok())
    }

    /// Puts work back before the work that was accepted later.
    pub(super) fn put_back(&mut self, work: Vec<Pending>) {
        if work.is_empty() {
            return;
        }
        self.carried.extend(work);
        // Commands of one stream can have the same time. A stable sort keeps their order.
        self.carried.make_contiguous().sort_by_key(|pending| pending.accepted_at);
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
        while let Some(pending) = self.next() {
            pending.reject(&Error::StorageUnavailable { reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, oneshot};
    use uuid::Uuid;

    use super::*;
    use crate::pending::{AtomicBatch, CommandResult, StreamPlace, Work, test_command};

    /// A queue with a command to each of these accounts, and the receivers of the results.
    fn queue_of(accounts: &[u128]) -> (QueueSender, CommandQueue, Vec<oneshot::Receiver<CommandResult>>) {
        let (sender, queue) = CommandQueue::new();
        let results = accounts.iter().map(|account| {
            let (pending, result) = Pending::of_accounts(&[*account]);
            assert!(sender.send(pending));
            result
        });
        let results = results.collect();
        (sender, queue, results)
    }

    fn batch_of(commands: usize) -> (Pending, oneshot::Receiver<CommandResult>) {
        let (response, result) = oneshot::channel();
        let batch = AtomicBatch { batch_id: Uuid::nil(), commands: vec![test_command(&[9]); commands], key: None };
        (Pending::of_test(Work::Atomic(batch, response)), result)
    }

    /// The first account of each work.
    fn accounts(work: &[Pending]) -> Vec<u128> {
        work.iter().filter_map(|pending| pending.accounts().next()).map(|account_id| account_id.as_u128()).collect()
    }

    #[test]
    fn batches_are_limited_in_commands_and_keep_the_order() {
        let (sender, mut queue, _results) = queue_of(&[1, 2]);
        let (batch, _result) = batch_of(3);
        assert!(sender.send(batch));
        let (last, _last_result) = Pending::of_accounts(&[3]);
        assert!(sender.send(last));
        assert_eq!(accounts(&queue.take(4)), [1, 2], "the batch of three does not fit");
        assert_eq!(accounts(&queue.take(4)), [9, 3]);
        assert!(queue.take(4).is_empty());
    }

    #[test]
    fn work_with_more_commands_than_a_batch_is_taken_alone() {
        let (sender, mut queue, _results) = queue_of(&[]);
        let (batch, _result) = batch_of(5);
        assert!(sender.send(batch));
        let (last, _last_result) = Pending::of_accounts(&[3]);
        assert!(sender.send(last));
        assert!(queue.take_more(4, &[]).is_empty(), "it does not join another batch");
        assert_eq!(accounts(&queue.take(4)), [9]);
        assert_eq!(accounts(&queue.take(4)), [3]);
    }

    #[test]
    fn work_that_is_put_back_comes_before_later_work() {
        let (_sender, mut queue, _results) = queue_of(&[1, 2, 3, 4, 5]);
        let mut taken = queue.take(3);
        let last = taken.split_off(1);
        queue.put_back(last);
        queue.put_back(taken);
        assert_eq!(accounts(&queue.take(10)), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn abandoned_work_is_dropped_but_not_that_of_a_stream() {
        let (sender, mut queue, results) = queue_of(&[1, 2]);
        let window = Arc::new(Semaphore::new(1));
        let (mut of_stream, result) = Pending::of_accounts(&[3]);
        let of_stream_place = Arc::clone(&window).try_acquire_owned().expect("a place");
        of_stream.stream_place = Some(StreamPlace { of_stream: of_stream_place, of_all_streams: None });
        assert!(sender.send(of_stream));
        drop((results, result));
        let taken = queue.take(10);
        assert_eq!(accounts(&taken), [3], "later commands of the stream rely on it");
        assert_eq!(window.available_permits(), 0);
        drop(taken);
        assert_eq!(window.available_permits(), 1);
    }

    /// A command of a stream. Its window is not limited.
    fn of_stream(account: u128) -> Pending {
        let places = Arc::new(Semaphore::new(2));
        let place = || Arc::clone(&places).try_acquire_owned().expect("a place");
        let (mut pending, _result) = Pending::of_accounts(&[account]);
        pending.stream_place = Some(StreamPlace { of_stream: place(), of_all_streams: Some(place()) });
        pending
    }

    #[test]
    fn streams_get_places_although_requests_would_fill_every_batch() {
        let (sender, mut queue, _results) = queue_of(&[1; 600]);
        for _ in 0..100 {
            assert!(sender.send(of_stream(2)));
        }
        let taken = accounts(&queue.take(512));
        let of_streams = taken.iter().filter(|account| **account == 2).count();
        assert_eq!((taken.len(), of_streams), (512, STREAM_COMMANDS_BESIDE_REQUESTS));
        assert!(taken[..496].iter().all(|account| *account == 1), "requests come first");
        assert_eq!(accounts(&queue.take(512)).len(), 104 + STREAM_COMMANDS_BESIDE_REQUESTS);
    }

    #[test]
    fn streams_do_not_shut_out_a_large_batch() {
        let (sender, mut queue, _results) = queue_of(&[1]);
        let (batch, _result) = batch_of(500);
        assert!(sender.send(batch));
        for _ in 0..100 {
            assert!(sender.send(of_stream(2)));
        }
        let first = accounts(&queue.take(512));
        let of_streams = STREAM_COMMANDS_BESIDE_REQUESTS;
        assert_eq!((first[0], first.len()), (1, 1 + of_streams), "the batch does not fit beside the first command");
        assert_eq!(accounts(&queue.take(512))[..2], [9, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_fill_the_batches_while_there_are_no_requests() {
        let (sender, mut queue, _results) = queue_of(&[1]);
        for _ in 0..200 {
            assert!(sender.send(of_stream(2)));
        }
        assert_eq!(queue.take(512).len(), 1 + STREAM_COMMANDS_BESIDE_REQUESTS);
        assert_eq!(queue.take(512).len(), STREAM_COMMANDS_BESIDE_REQUESTS, "another request may come at once");
        tokio::time::sleep(Duration::from_millis(REQUESTS_RECENT_MS)).await;
        assert_eq!(queue.take(512).len(), 200 - 2 * STREAM_COMMANDS_BESIDE_REQUESTS);
    }

    #[test]
    fn carried_commands_of_a_stream_come_before_its_later_ones() {
        let (sender, mut queue, _results) = queue_of(&[]);
        for account in [1, 2, 3] {
            assert!(sender.send(of_stream(account)));
        }
        let taken = queue.take(2);
        queue.put_back(taken);
        let (batch, _result) = batch_of(3);
        assert!(sender.send(batch));
        assert_eq!(accounts(&queue.take(4)), [1, 2, 3]);
        assert_eq!(accounts(&queue.take(4)), [9]);
    }

    #[test]
    fn places_are_free_as_soon_as_work_is_taken_or_rejected() {
        let places = Arc::new(Semaphore::new(8));
        let (sender, mut queue, _results) = queue_of(&[]);
        let send = || {
            let (mut pending, result) = batch_of(4);
            pending.queue_places = Some(Arc::clone(&places).try_acquire_many_owned(4).expect("places"));
            assert!(sender.send(pending));
            result
        };
        let (_first, mut second) = (send(), send());
        assert_eq!(places.available_permits(), 0);
        let taken = queue.take(4);
        assert_eq!((taken.len(), places.available_permits()), (1, 4));
        queue.reject_all("no database");
        let rejected = second.try_recv().expect("a result").expect_err("rejected");
        assert_eq!(rejected, Error::StorageUnavailable { reason: "no database" });
        assert_eq!(places.available_permits(), 8);
    }
}
