//! Polls the log while there are subscribers, and broadcasts new events to all of them.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::select_all};
use sqlx::{Connection, PgConnection};
use tokio::{
    sync::{
        broadcast::{self, WeakSender},
        watch,
    },
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::render::Chunk;
use crate::event_log::{
    cursor::{Cursor, PartitionCursor},
    error::Error,
    reader::{PartitionRange, read_range},
};
use passbook_event_store::{FailoverWatch, Partitions, PrimaryConnector, log, log_if_unreachable, with_timeout};
use passbook_telemetry::supervision;

/// How many chunks a subscriber may be behind the newest one.
const BUFFERED_CHUNKS_MAX: usize = 1_024;
/// How many events of a partition are read at once.
const READ_EVENTS_MAX: i64 = 1_000;
/// How long one poll of all partitions may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// The interval of polls, which doubles up to the maximum while no events are found. Polls are needed because other processes
/// also append.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 250;
/// The pause after a poll that found events. It grows with the subscribers, because each chunk is written to each of them.
const PAUSE_MS_MIN: u64 = 5;
const PAUSE_US_PER_SUBSCRIBER: u64 = 50;
/// The pause after a failure.
const RETRY_MS: u64 = 250;

/// Broadcasts new events to all subscribers. The first subscriber starts the task that polls the log.
pub(super) struct Broadcaster {
    primary: PrimaryConnector,
    partitions: Partitions,
    /// The last position that this process has appended, per partition.
    appended: Vec<watch::Receiver<i64>>,
    /// The channel of the running task, which holds the sender; closed while no task runs.
    channel: Mutex<WeakSender<Arc<Chunk>>>,
    shutdown: CancellationToken,
}

impl Broadcaster {
    pub(super) fn new(
        primary: PrimaryConnector,
        partitions: Partitions,
        appended: Vec<watch::Receiver<i64>>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { primary, partitions, appended, channel: Mutex::new(closed_channel()), shutdown }
    }

    /// Receives all chunks from now on. Starts the polling task if none runs.
    pub(super) fn subscribe(self: &Arc<Self>) -> broadcast::Receiver<Arc<Chunk>> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = channel.upgrade() {
            return running.subscribe();
        }
        let (sender, chunks) = broadcast::channel(BUFFERED_CHUNKS_MAX);
        *channel = sender.downgrade();
        supervision::spawn("event feed", PollingTask::new(Arc::clone(self), sender).run());
        chunks
    }

    /// Whether the channel has no subscribers. If so, it is closed, and the next subscriber starts another task.
    fn has_no_subscribers(&self, sender: &broadcast::Sender<Arc<Chunk>>) -> bool {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = sender.receiver_count() == 0;
        if is_empty {
            *channel = closed_channel();
        }
        is_empty
    }
}

fn closed_channel() -> WeakSender<Arc<Chunk>> {
    broadcast::Sender::new(1).downgrade()
}

/// Polls the log until there are no subscribers.
struct PollingTask {
    broadcaster: Arc<Broadcaster>,
    chunks: broadcast::Sender<Arc<Chunk>>,
    connection: Option<PgConnection>,
    failovers: FailoverWatch,
    /// Whether the last poll found another history, which a former primary may have shown.
    is_in_doubt: bool,
    /// The last events that were broadcast; `None` before the first poll.
    cursor: Option<Cursor>,
    appended: Vec<watch::Receiver<i64>>,
}

impl PollingTask {
    fn new(broadcaster: Arc<Broadcaster>, chunks: broadcast::Sender<Arc<Chunk>>) -> Self {
        let (appended, failovers) = (broadcaster.appended.clone(), broadcaster.primary.failover_watch());
        Self { broadcaster, chunks, connection: None, failovers, is_in_doubt: false, cursor: None, appended }
    }

    /// Runs until there are no subscribers, the feed is shut down, or the log was replaced by another history. Dropping the
    /// sender then ends the remaining subscribers.
    async fn run(mut self) {
        let shutdown = self.broadcaster.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.poll_repeatedly() => {}
        }
        if let Some(connection) = self.connection {
            // Best effort: the connection is closed either way.
            let _ = with_timeout(CLOSE_TIMEOUT, connection.close()).await;
        }
    }

    async fn poll_repeatedly(&mut self) {
        let mut interval_ms = POLL_MS_MIN;
        while !self.broadcaster.has_no_subscribers(&self.chunks) {
            self.appended.iter_mut().for_each(watch::Receiver::mark_unchanged);
            if self.failovers.has_failed_over() {
                self.connection = None;
            }
            let polled = with_timeout(READ_TIMEOUT, async { Ok(self.poll().await) }).await;
            let was_in_doubt = std::mem::take(&mut self.is_in_doubt);
            match polled.unwrap_or_else(|timed_out| Err(timed_out.into())) {
                Ok(true) => {
                    interval_ms = POLL_MS_MIN;
                    sleep(self.pause()).await;
                }
                Ok(false) => {
                    let is_woken = wait_for_append(&mut self.appended, Duration::from_millis(interval_ms)).await;
                    interval_ms = if is_woken { POLL_MS_MIN } else { (interval_ms * 2).min(POLL_MS_MAX) };
                }
                Err(Error::InvalidCursorPosition(error)) if !was_in_doubt => {
                    tracing::debug!(%error, "event feed found another history; reading again at the primary");
                    self.connection = None;
                    self.is_in_doubt = true;
                }
                Err(Error::InvalidCursorPosition(error)) => {
                    tracing::warn!(%error, "log was replaced by another history; ending the subscribers of the event feed");
                    return;
                }
                Err(error) => {
                    let (failure, sqlstate) = error.storage_failure();
                    if !log_if_unreachable(failure, &error) {
                        let failure = failure.as_str();
                        tracing::warn!(failure, sqlstate = &*sqlstate, %error, "event feed could not read the log; retrying");
                    }
                    self.connection = None;
                    sleep(Duration::from_millis(RETRY_MS)).await;
                }
            }
        }
    }

    /// Reads and broadcasts new events. Returns whether there were any.
    async fn poll(&mut self) -> Result<bool, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None if self.is_in_doubt => {
                let verified = self.broadcaster.primary.connect_verified().await?;
                self.connection.insert(verified.connection)
            }
            None => self.connection.insert(self.broadcaster.primary.connect().await?),
        };
        let partitions = self.broadcaster.partitions;
        let Some(cursor) = &mut self.cursor else {
            let mut heads = Vec::new();
            for partition in partitions.all() {
                let head = log::head(connection, partition).await?;
                heads.push(PartitionCursor::new(head.position, &head.hash));
            }
            // Subscribers before the head notice the gap, and read pages of the log up to it.
            for (partition, head) in partitions.all().zip(&heads) {
                let _ = self.chunks.send(Arc::new(Chunk::start(partition, *head)));
            }
            self.cursor = Some(Cursor::new(heads));
            return Ok(false);
        };
        let mut found = false;
        for partition in partitions.all() {
            let after = cursor.at(partition);
            let range = PartitionRange { partition, after, limit: READ_EVENTS_MAX };
            let page = read_range(connection, partitions, range).await?;
            for chunk in Chunk::render(partition, after, &page.events) {
                // Sending fails if the last subscriber has just left.
                let _ = self.chunks.send(Arc::new(chunk));
            }
            cursor.advance(partition, page.next);
            found |= !page.events.is_empty();
        }
        Ok(found)
    }

    fn pause(&self) -> Duration {
        let subscribers = self.chunks.receiver_count() as u64;
        Duration::from_micros((subscribers * PAUSE_US_PER_SUBSCRIBER).max(PAUSE_MS_MIN * 1_000))
    }
}

/// Waits until this process appends to any partition, for at most `limit`. Returns whether it did.
async fn wait_for_append(appended: &mut [watch::Receiver<i64>], limit: Duration) -> bool {
    let changes = appended.iter_mut().map(|appended| {
        async {
            if appended.changed().await.is_err() {
                // This process appends no more. Others may, so polling continues at its interval.
                pending::<()>().await;
            }
        }
        .boxed()
    });
    timeout(limit, select_all(changes)).await.is_ok()
}
