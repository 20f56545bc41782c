//! One subscriber of the feed: reads pages of the log up to the head, and then takes chunks from the broadcaster.

use std::{convert::Infallible, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::render::{Chunk, Continuation, Rendered, render_page};
use crate::event_log::{cursor::Cursor, error::Error, reader::EventReader, record::EventFilter};
use passbook_event_store::log_if_unreachable;
use passbook_telemetry::metrics::METRICS;

/// How many events of the log are read at once.
const CATCH_UP_EVENTS_MAX: i64 = 250;
/// After this time without an event, a comment is sent, so that neither the client nor a proxy closes the idle connection.
const HEARTBEAT_MS: u64 = 15_000;
/// How long a client waits before it reconnects.
const RECONNECT_MS: u64 = 1_000;
/// The pause after a failure.
const RETRY_MS: u64 = 250;

/// The state that all subscribers share.
#[derive(Clone)]
pub(super) struct SubscriberContext {
    pub(super) reader: EventReader,
    /// Limits how many subscribers read a page at the same time.
    pub(super) catch_ups: Arc<Semaphore>,
    /// Ends all subscribers.
    pub(super) shutdown: CancellationToken,
}

pub(super) struct Subscriber {
    context: SubscriberContext,
    filter: EventFilter,
    /// All events up to here were sent, or the filter does not select them.
    cursor: Cursor,
    /// The last id that was sent.
    sent_id: Cursor,
    chunks: broadcast::Receiver<Arc<Chunk>>,
    /// Whether the pages have reached the head, so that chunks follow.
    is_live: bool,
    heartbeat_at: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        METRICS.feed_readers.dec();
    }
}

/// The result of one step.
enum Step {
    Bytes(Bytes),
    Nothing,
    End,
}

impl Subscriber {
    pub(super) fn new(
        context: SubscriberContext,
        chunks: broadcast::Receiver<Arc<Chunk>>,
        cursor: Cursor,
        filter: EventFilter,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        METRICS.feed_readers.inc();
        Self {
            context,
            filter,
            sent_id: cursor.clone(),
            cursor,
            chunks,
            is_live: false,
            heartbeat_at: Instant::now() + Duration::from_millis(HEARTBEAT_MS),
            _slot: slot,
        }
    }

    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        let first = Bytes::from(format!("retry: {RECONNECT_MS}\nid: {}\n\n", self.cursor));
        stream::unfold((self, first), async |(mut subscriber, first)| {
            let bytes = if first.is_empty() { subscriber.next().await? } else { first };
            Some((Ok(bytes), (subscriber, Bytes::new())))
        })
    }

    /// The bytes to send next; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let shutdown = self.context.shutdown.clone();
        loop {
            let heartbeat_at = self.heartbeat_at;
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
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

    /// Cancellation safe: it changes the subscriber only after its last `await`, apart from resubscribing.
    async fn step(&mut self) -> Step {
        match self.is_live {
            true => self.receive_chunk().await,
            false => self.catch_up().await,
        }
    }

    async fn catch_up(&mut self) -> Step {
        let Ok(permit) = self.context.catch_ups.acquire().await else { return Step::End };
        // Before the page is read, so that the chunks contain every event after the page.
        self.chunks = self.chunks.resubscribe();
        let read = self.context.reader.page(&self.cursor, &self.filter, CATCH_UP_EVENTS_MAX).await;
        drop(permit);
        match read {
            Ok(page) => {
                let rendered = render_page(&page.events, &mut self.cursor);
                self.cursor = page.next;
                self.is_live = page.is_last;
                self.send(rendered)
            }
            Err(Error::InvalidCursorPosition(_)) => Step::End,
            Err(error) => {
                let (failure, sqlstate) = error.storage_failure();
                if !log_if_unreachable(failure, &error) {
                    let failure = failure.as_str();
                    tracing::warn!(failure, sqlstate = &*sqlstate, %error, "feed subscriber could not read the log; retrying");
                }
                sleep(Duration::from_millis(RETRY_MS)).await;
                Step::Nothing
            }
        }
    }

    async fn receive_chunk(&mut self) -> Step {
        // Receiving fails if the subscriber is behind the buffer, or the broadcaster has ended. The client then reconnects and
        // reads the missed events from the log.
        let Ok(chunk) = self.chunks.recv().await else { return Step::End };
        match chunk.continuation(self.cursor.at(chunk.partition)) {
            Continuation::At(start) => {
                let partitions = self.context.reader.partitions();
                let rendered = chunk.render_for(start, &self.filter, partitions, &mut self.cursor);
                self.send(rendered)
            }
            Continuation::Gap => {
                self.is_live = false;
                Step::Nothing
            }
            Continuation::OtherHistory => Step::End,
        }
    }

    fn send(&mut self, rendered: Rendered) -> Step {
        if let Some(last_id) = rendered.last_id {
            self.sent_id = last_id;
            if !self.context.reader.partitions().is_partitioned() {
                // Times never decrease, so all further events of the only partition are late enough.
                self.filter.since = None;
            }
        }
        Step::Bytes(rendered.bytes)
    }

    /// A comment, with the cursor as the id if it is beyond the last id sent. A client that reconnects then skips the events that
    /// its filter has rejected.
    fn heartbeat(&mut self) -> Bytes {
        match mem::replace(&mut self.sent_id, self.cursor.clone()) == self.cursor {
            true => Bytes::from_static(b":\n\n"),
            false => format!(":\nid: {}\n\n", self.cursor).into(),
        }
    }
}
