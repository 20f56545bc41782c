//! The event feed: streams events as Server-Sent Events while they are recorded.
//!
//! While there are subscribers, the `broadcaster` polls the log, renders new events once, and broadcasts them as chunks
//! (`render`) through a bounded buffer. A `subscriber` first reads pages of the log up to the head and then takes chunks. A
//! subscriber that falls behind the buffer is ended, and its client reconnects with the id of its last event: no event is lost.
//!
//! A chunk contains events of one partition. With several partitions, the ids depend on what a subscriber has read of the
//! others, so each subscriber writes its own ids between the shared bytes.

mod broadcaster;
mod render;
mod subscriber;

use std::{convert::Infallible, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::{
    broadcaster::Broadcaster,
    subscriber::{Subscriber, SubscriberContext},
};
use super::{cursor::CursorParam, error::Error, reader::EventReader, record::EventFilter};
use passbook_event_store::PrimaryConnector;

/// The most subscribers at the same time. Further ones are refused with [`Error::Busy`].
pub const FEED_SUBSCRIBERS_MAX: usize = 1_000;
/// How many subscribers read a page of the log at the same time.
const CATCH_UPS_MAX: usize = 3;

/// A handle to the feed, cheap to clone.
#[derive(Clone)]
pub struct Feed {
    broadcaster: Arc<Broadcaster>,
    context: SubscriberContext,
    slots: Arc<Semaphore>,
}

impl Feed {
    /// A feed whose subscribers catch up through `reader`, and which then reads the log over a connection of its own to
    /// `primary`. Changes of `appended`, one per partition, wake it at once. Cancelling `shutdown` ends all subscribers.
    pub fn new(
        reader: EventReader,
        primary: PrimaryConnector,
        appended: Vec<watch::Receiver<i64>>,
        shutdown: CancellationToken,
    ) -> Self {
        let broadcaster = Broadcaster::new(primary, reader.partitions(), appended, shutdown.clone());
        Self {
            broadcaster: Arc::new(broadcaster),
            context: SubscriberContext { reader, catch_ups: Arc::new(Semaphore::new(CATCH_UPS_MAX)), shutdown },
            slots: Arc::new(Semaphore::new(FEED_SUBSCRIBERS_MAX)),
        }
    }

    /// The reader of pages of the same log.
    pub fn reader(&self) -> &EventReader {
        &self.context.reader
    }

    /// Streams the events after `after` as Server-Sent Events until the subscriber falls behind, the history changes or the feed
    /// is shut down.
    ///
    /// # Errors
    /// [`Error::Busy`] if there are [`FEED_SUBSCRIBERS_MAX`] subscribers; `after` identifies no event of this log; or the
    /// database failed.
    pub async fn subscribe(
        &self,
        after: CursorParam,
        filter: EventFilter,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + use<>, Error> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Error::Busy)?;
        let cursor = self.context.reader.start(&after, &filter).await?;
        let chunks = self.broadcaster.subscribe();
        Ok(Subscriber::new(self.context.clone(), chunks, cursor, filter, slot).stream())
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
