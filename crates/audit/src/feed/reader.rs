//! One who follows the log: from the table up to the head, then with the pump.

use std::{convert::Infallible, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Shared,
    chunk::{Chunk, Joint, Told, tell_page},
};
use crate::{Cursor, Error, Filter};
use passbook_telemetry::metrics::METRICS;

/// How many events are read of the table at once.
const CATCH_UP_EVENTS_MAX: i64 = 250;
/// A comment is sent after so long without anything else, so that both sides and all between know that the other lives.
const HEARTBEAT_MS: u64 = 15_000;
/// When a reader that was ended should come back.
const RECONNECT_MS: u64 = 1_000;
/// Pause after a failure.
const RETRY_MS: u64 = 250;

pub(super) struct Reader {
    shared: Arc<Shared>,
    filter: Filter,
    /// Everything up to here was told, or is not wanted.
    cursor: Cursor,
    /// The last id that was told.
    told: Cursor,
    chunks: broadcast::Receiver<Arc<Chunk>>,
    is_live: bool,
    heartbeat_at: Instant,
    ended: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        METRICS.feed_readers.dec();
    }
}

/// What a step brings.
enum Step {
    Bytes(Bytes),
    Nothing,
    End,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, cursor: Cursor, filter: Filter, place: OwnedSemaphorePermit) -> Self {
        METRICS.feed_readers.inc();
        Self {
            chunks: shared.subscribe(),
            ended: shared.ended.subscribe(),
            shared,
            filter,
            told: cursor.clone(),
            cursor,
            is_live: false,
            heartbeat_at: Instant::now() + Duration::from_millis(HEARTBEAT_MS),
            _place: place,
        }
    }

    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        let greeting = Bytes::from(format!("retry: {RECONNECT_MS}\nid: {}\n\n", self.cursor));
        stream::unfold((self, greeting), async |(mut reader, greeting)| {
            let bytes = if greeting.is_empty() { reader.next().await? } else { greeting };
            Some((Ok(bytes), (reader, Bytes::new())))
        })
    }

    /// What is sent next; nothing once it is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut ended = self.ended.clone();
        loop {
            let heartbeat_at = self.heartbeat_at;
            let step = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return None,
                step = self.step() => step,
                () = sleep_until(heartbeat_at) => Step::Bytes(self.heartbeat()),
            };
            match step {
                Step::Bytes(bytes) if bytes.is_empty() => {}
                Step::Bytes(bytes) => {
                    self.heartbeat_at = Instant::now() + Duration::from_millis(HEARTBEAT_MS);
                    return Some(bytes);
                }
                Step::Nothing => {}
                Step::End => return None,
            }
        }
    }

    /// May be given up at any time: what it changes, it changes at its end.
    async fn step(&mut self) -> Step {
        match self.is_live {
            true => self.follow().await,
            false => self.catch_up().await,
        }
    }

    async fn catch_up(&mut self) -> Step {
        let Ok(turn) = self.shared.catch_ups.acquire().await else { return Step::End };
        // Before the page is read: what comes after it is in the chunks from here on.
        self.chunks = self.chunks.resubscribe();
        let read = self.shared.trail.page(&self.cursor, &self.filter, CATCH_UP_EVENTS_MAX).await;
        drop(turn);
        match read {
            Ok(page) => {
                let told = tell_page(&page.events, &mut self.cursor);
                self.cursor = page.next;
                self.is_live = page.is_last;
                self.tell(told)
            }
            Err(Error::Misplaced(_)) => Step::End,
            Err(error) => {
                tracing::warn!(%error, "a reader of the feed waits for the database");
                sleep(Duration::from_millis(RETRY_MS)).await;
                Step::Nothing
            }
        }
    }

    async fn follow(&mut self) -> Step {
        // One that is behind the buffer comes back and finds what it has missed in the table.
        let Ok(chunk) = self.chunks.recv().await else { return Step::End };
        match chunk.joint(self.cursor.at(chunk.partition)) {
            Joint::At(start) => {
                let told = chunk.tell(start, &self.filter, self.shared.partitions, &mut self.cursor);
                self.tell(told)
            }
            Joint::Gap => {
                self.is_live = false;
                Step::Nothing
            }
            Joint::OtherHistory => Step::End,
        }
    }

    fn tell(&mut self, told: Told) -> Step {
        if let Some(last) = told.last {
            self.told = last;
            if !self.shared.partitions.are_several() {
                // Times never decrease: everything from here on is late enough.
                self.filter.since = None;
            }
        }
        Step::Bytes(told.bytes)
    }

    /// A comment, and where the reader stands if that is further than it knows: what was not wanted is not read again.
    fn heartbeat(&mut self) -> Bytes {
        match mem::replace(&mut self.told, self.cursor.clone()) == self.cursor {
            true => Bytes::from_static(b":\n\n"),
            false => format!(":\nid: {}\n\n", self.cursor).into(),
        }
    }
}
