//! The one who reads the log for all readers, while there are any.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::select_all};
use sqlx::{Connection, PgConnection};
use tokio::{
    sync::{broadcast, watch},
    time::{sleep, timeout},
};

use super::{Chunk, Shared};
use crate::{Cursor, Error, cursor::Place, trail::read_on};
use passbook_event_store::{Moves, log};

/// How many events are read at once.
const READ_EVENTS_MAX: i64 = 1_000;
/// How long one reading may take before its connection is given up as lost.
const READ_MS_MAX: u64 = 5_000;
/// The poll behind the wake-up, backing off while nothing happens: another process may have appended.
const POLL_MS_MIN: u64 = 5;
const POLL_MS_MAX: u64 = 250;
/// Rest after a reading that found events, longer with more readers: each chunk costs a write to every one of them.
const REST_MS_MIN: u64 = 5;
const REST_US_PER_READER: u64 = 50;
/// Pause after a failure.
const RETRY_MS: u64 = 250;

pub(super) struct Pump {
    shared: Arc<Shared>,
    chunks: broadcast::Sender<Arc<Chunk>>,
    connection: Option<PgConnection>,
    moves: Moves,
    /// The last event that was broadcast.
    at: Option<Cursor>,
    appended: Vec<watch::Receiver<i64>>,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared>, chunks: broadcast::Sender<Arc<Chunk>>) -> Self {
        let (appended, moves) = (shared.appended.clone(), shared.connect.moves());
        Self { shared, chunks, connection: None, moves, at: None, appended }
    }

    /// Runs until nobody reads any more, the feed is ended or the log's history turns out to be another one. With the
    /// sender, readers end.
    pub(super) async fn run(mut self) {
        let mut ended = self.shared.ended.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = self.read() => {}
        }
        if let Some(connection) = self.connection {
            // A failed goodbye harms nobody.
            let _ = timeout(Duration::from_millis(RETRY_MS), connection.close()).await;
        }
    }

    async fn read(&mut self) {
        let mut poll = POLL_MS_MIN;
        while !self.shared.is_deserted(&self.chunks) {
            self.appended.iter_mut().for_each(watch::Receiver::mark_unchanged);
            if self.moves.moved() {
                self.connection = None;
            }
            let step = timeout(Duration::from_millis(READ_MS_MAX), self.step()).await;
            match step {
                Ok(Ok(true)) => {
                    poll = POLL_MS_MIN;
                    sleep(self.rest()).await;
                }
                Ok(Ok(false)) => {
                    let woken = woken(&mut self.appended, Duration::from_millis(poll)).await;
                    poll = if woken { POLL_MS_MIN } else { (poll * 2).min(POLL_MS_MAX) };
                }
                Ok(Err(Error::Misplaced(misplaced))) => {
                    tracing::warn!(%misplaced, "the log's history is another one: its readers are ended");
                    return;
                }
                Ok(Err(error)) => self.fail(&error).await,
                Err(elapsed) => self.fail(&elapsed).await,
            }
        }
    }

    /// Reads what is new and broadcasts it; whether there was anything.
    async fn step(&mut self) -> Result<bool, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.shared.connect.connect().await?),
        };
        let partitions = self.shared.partitions;
        let Some(at) = &mut self.at else {
            let mut places = Vec::new();
            for partition in partitions.all() {
                let head = log::head(connection, partition).await?;
                places.push(Place::new(head.position, &head.hash));
            }
            // Readers who are not so far yet read on in the table.
            for (partition, place) in partitions.all().zip(&places) {
                let _ = self.chunks.send(Arc::new(Chunk::start(partition, *place)));
            }
            self.at = Some(Cursor::new(places));
            return Ok(false);
        };
        let mut found = false;
        for partition in partitions.all() {
            let here = at.at(partition);
            let read = read_on(connection, partitions, partition, here, READ_EVENTS_MAX).await?;
            for chunk in Chunk::render(partition, here, &read.events) {
                // Nobody may be left to receive it.
                let _ = self.chunks.send(Arc::new(chunk));
            }
            at.pass(partition, read.next);
            found |= !read.events.is_empty();
        }
        Ok(found)
    }

    fn rest(&self) -> Duration {
        let readers = self.chunks.receiver_count() as u64;
        Duration::from_micros((readers * REST_US_PER_READER).max(REST_MS_MIN * 1_000))
    }

    async fn fail(&mut self, error: &(dyn std::error::Error + Send + Sync)) {
        tracing::warn!(error = %error, "the feed stands still");
        self.connection = None;
        sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

/// Whether this process has appended to any partition within `patience`.
async fn woken(appended: &mut [watch::Receiver<i64>], patience: Duration) -> bool {
    let waking = appended.iter_mut().map(|appended| {
        async {
            if appended.changed().await.is_err() {
                // Nobody appends here any more, and others may.
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    });
    timeout(patience, select_all(waking)).await.is_ok()
}
