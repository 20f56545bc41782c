//! The log as it grows, for everybody who follows it: one task reads it once and hands it on to all readers.
//!
//! The [`pump`] runs while there are readers. It reads what is new, renders it once, and broadcasts it as [`chunk`]s
//! through a bounded buffer. A [`reader`] catches up from the table, page by page, and then takes chunks; what it has had
//! already is dropped by position, and what it has not is read from the table. One that falls behind the buffer is ended,
//! so that it comes back with the cursor of the last event it had: nothing is dropped in silence.
//!
//! A chunk is of one partition. What a reader has had of the others differs from reader to reader, so with several each
//! writes its own ids between the shared bytes.

mod chunk;
mod pump;
mod reader;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{Semaphore, broadcast, watch};

use self::{chunk::Chunk, pump::Pump, reader::Reader};
use super::{Bookmark, Error, Filter, Trail};
use passbook_event_store::{Partitions, Primary};

/// How many follow the log at once. More are turned away.
pub const FEED_READERS_MAX: usize = 1_000;
/// How many chunks a reader may be behind the newest one.
const BUFFERED_CHUNKS_MAX: usize = 1_024;
/// How many readers read a page of the table at once.
const CATCH_UPS_MAX: usize = 3;

/// The handle to the feed, cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

/// What the pump and all readers share.
struct Shared {
    trail: Trail,
    partitions: Partitions,
    connect: Primary,
    /// Of each partition.
    appended: Vec<watch::Receiver<i64>>,
    /// The pump holds the sender. While it runs, readers join it here.
    pump: Mutex<broadcast::WeakSender<Arc<Chunk>>>,
    places: Arc<Semaphore>,
    catch_ups: Semaphore,
    ended: watch::Sender<bool>,
}

impl Feed {
    /// A feed that catches up through `trail`, follows through a connection of its own, and looks at once when this
    /// process has `appended`.
    pub fn new(trail: Trail, partitions: Partitions, connect: Primary, appended: Vec<watch::Receiver<i64>>) -> Self {
        Self(Arc::new(Shared {
            trail,
            partitions,
            connect,
            appended,
            pump: Mutex::new(nobody()),
            places: Arc::new(Semaphore::new(FEED_READERS_MAX)),
            catch_ups: Semaphore::new(CATCH_UPS_MAX),
            ended: watch::Sender::new(false),
        }))
    }

    /// The pages of the same log.
    pub fn trail(&self) -> &Trail {
        &self.0.trail
    }

    /// Server-Sent Events from `after` on, for as long as somebody reads them.
    pub async fn follow(
        &self,
        after: Bookmark,
        filter: Filter,
    ) -> Result<impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + use<>, Error> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| Error::Busy)?;
        let cursor = self.0.trail.begin(&after, &filter).await?;
        Ok(Reader::new(Arc::clone(&self.0), cursor, filter, place).stream())
    }

    /// Ends all readers at once.
    pub fn end(&self) {
        self.0.ended.send_replace(true);
    }
}

impl Shared {
    /// The chunks from now on, by a pump that is started if none runs.
    fn subscribe(self: &Arc<Self>) -> broadcast::Receiver<Arc<Chunk>> {
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = pump.upgrade() {
            return running.subscribe();
        }
        let (sender, chunks) = broadcast::channel(BUFFERED_CHUNKS_MAX);
        *pump = sender.downgrade();
        tokio::spawn(Pump::new(Arc::clone(self), sender).run());
        chunks
    }

    /// Whether nobody reads any more; then the next reader starts another pump.
    fn is_deserted(&self, sender: &broadcast::Sender<Arc<Chunk>>) -> bool {
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let deserted = sender.receiver_count() == 0;
        if deserted {
            *pump = nobody();
        }
        deserted
    }
}

fn nobody() -> broadcast::WeakSender<Arc<Chunk>> {
    broadcast::Sender::new(1).downgrade()
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
