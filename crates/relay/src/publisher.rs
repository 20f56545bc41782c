//! Publishes one partition: reads the end of its stream, publishes the events of the log after it, and retries after outages.

use std::{convert::Infallible, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    checkpoint,
    error::{AttemptError, FatalError},
    in_flight::InFlight,
    jetstream::{JetStream, PublishReply, Replies, StreamTail},
    lag,
    log_reader::{self, LogPosition, ReadError, Verdict},
    outage::OutageState,
    settings::Settings,
};
use passbook_event_store::{EventWithHash, PrimaryConnector};
use passbook_telemetry::metrics::METRICS;

/// The number of database connections of one partition, and the time limit for acquiring one.
const CONNECTIONS_MAX: u32 = 3;
const ACQUIRE_MS_MAX: u64 = 2_000;
/// The number of messages that may wait for their acknowledgements.
const IN_FLIGHT_MESSAGES_MAX: usize = 4_096;
/// How long messages may wait without any reply before the server counts as unavailable.
const REPLY_MS_MAX: u64 = 5_000;
/// The interval between two saved checkpoints.
const CHECKPOINT_MS: u64 = 250;
/// How long a stream may end before its checkpoint until the relay ends. A new leader of a NATS cluster may report fewer
/// messages at first than the cluster has acknowledged.
const TRUNCATED_MS_MAX: u64 = 5_000;
/// The interval between checks of a stream to which nothing is published.
const IDLE_CHECK_MS: u64 = 10_000;

/// The publisher of one partition.
pub(super) struct Publisher {
    settings: Settings,
    partition: i16,
    stream_name: String,
    database: PgPool,
    /// Finds the primary again if the pool shows another history. The pool's task that finds a new primary after a failover runs
    /// while this value exists.
    primary: PrimaryConnector,
    shutdown: CancellationToken,
    /// The stream's last position; `None` until it was read from the server.
    published: watch::Sender<Option<i64>>,
    /// The position of the stored checkpoint if its hash is stored too, otherwise 0.
    saved: i64,
    /// The time since which the stream ends before its checkpoint.
    truncated_since: Option<Instant>,
    outage: OutageState,
}

impl Publisher {
    pub(super) fn new(
        settings: Settings,
        partition: i16,
        primary: PrimaryConnector,
        shutdown: CancellationToken,
    ) -> Self {
        let connections = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_millis(ACQUIRE_MS_MAX));
        // It publishes only events that the standbys have: a message cannot be taken back after a failover.
        let primary = primary.confirmed(partition..partition + 1);
        let stream_name = format!("{}-{partition}", settings.stream);
        Self {
            outage: OutageState::new(stream_name.clone()),
            stream_name,
            settings,
            partition,
            database: primary.pool(connections),
            primary,
            shutdown,
            published: watch::Sender::new(None),
            saved: 0,
            truncated_since: None,
        }
    }

    /// Publishes and reports the lag until the shutdown or a fatal error.
    pub(super) async fn run(mut self) -> Result<(), FatalError> {
        let published = self.published.subscribe();
        let lag = lag::report(self.database.clone(), self.partition, self.stream_name.clone(), published);
        tokio::select! {
            outcome = self.retry_attempts() => outcome,
            never = lag => match never {},
        }
    }

    async fn retry_attempts(&mut self) -> Result<(), FatalError> {
        let shutdown = self.shutdown.clone();
        loop {
            match self.attempt(&shutdown).await {
                Ok(()) => return Ok(()),
                Err(AttemptError::Fatal(error)) => return Err(*error),
                Err(AttemptError::Outage(reason)) => self.outage.record_failure(&reason),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(self.outage.next_pause()) => {}
            }
        }
    }

    /// Connects and publishes until the shutdown, which returns `Ok`, or the first error.
    async fn attempt(&mut self, shutdown: &CancellationToken) -> Result<(), AttemptError> {
        let connecting = JetStream::connect(&self.settings, self.partition, &self.stream_name);
        let Some(connected) = shutdown.run_until_cancelled(connecting).await else { return Ok(()) };
        let stream = connected.inspect_err(|_| self.truncated_since = None)?;
        let starting = self.start(&stream);
        let Some((mut in_flight, mut replies)) = while_connected(&stream, shutdown, starting).await? else {
            return Ok(());
        };
        let publishing = self.publish_loop(&stream, &mut in_flight, &mut replies);
        let outcome = while_connected(&stream, shutdown, publishing).await;
        if outcome.is_ok() {
            in_flight.drain(&mut replies).await;
        }
        // Save the checkpoint after an error too, but return the first error.
        let saved = self.save_checkpoint(&in_flight.stored).await;
        outcome.and(saved)
    }

    /// Finds the position at which publishing resumes, and subscribes to the replies.
    async fn start(&mut self, stream: &JetStream) -> Result<(InFlight, Replies), AttemptError> {
        let stored = self.reconcile(stream).await?;
        if !self.outage.in_outage() {
            tracing::info!(stream = self.stream_name, position = stored.position, "publishing started");
        }
        let replies = stream.subscribe_to_replies().await?;
        self.published.send_replace(Some(stored.position));
        Ok((InFlight::new(stored), replies))
    }

    async fn publish_loop(
        &mut self,
        stream: &JetStream,
        in_flight: &mut InFlight,
        replies: &mut Replies,
    ) -> Result<Infallible, AttemptError> {
        // The reader ends when its handle is dropped.
        let (mut pages, _reader) =
            log_reader::read_ahead(self.database.clone(), self.partition, in_flight.stored.clone());
        let mut save_at = Instant::now() + Duration::from_millis(CHECKPOINT_MS);
        loop {
            let has_room = in_flight.len() + log_reader::PAGE_EVENTS_MAX <= IN_FLIGHT_MESSAGES_MAX;
            let is_idle = in_flight.is_empty();
            tokio::select! {
                reply = replies.next(), if !is_idle => self.handle_reply(reply?, in_flight)?,
                page = pages.recv(), if has_room => {
                    let page = page.ok_or_else(|| AttemptError::Outage("the log reader ended".to_owned()))?;
                    let page = match page {
                        Ok(page) => page,
                        Err(error) => return Err(self.read_error(error).await),
                    };
                    publish_page(stream, &page, in_flight, replies).await?;
                    if is_idle {
                        in_flight.replied_at = Instant::now();
                    }
                }
                () = sleep_until(save_at), if in_flight.stored.position > self.saved => {
                    self.save_checkpoint(&in_flight.stored).await?;
                    save_at = Instant::now() + Duration::from_millis(CHECKPOINT_MS);
                }
                () = sleep_until(in_flight.replied_at + Duration::from_millis(REPLY_MS_MAX)), if !is_idle => {
                    return Err(AttemptError::Outage(format!("no reply of the NATS server within {REPLY_MS_MAX} ms")));
                }
                () = sleep_until(in_flight.replied_at + Duration::from_millis(IDLE_CHECK_MS)), if is_idle => {
                    if self.reconcile(stream).await? != in_flight.stored {
                        return Err(AttemptError::Outage("the end of the stream has changed".to_owned()));
                    }
                    self.outage.record_success(in_flight.stored.position);
                    in_flight.replied_at = Instant::now();
                }
            }
        }
    }

    /// Reads the end of the stream, and checks it against the checkpoint and the log. Returns the stream's last event.
    async fn reconcile(&mut self, stream: &JetStream) -> Result<LogPosition, AttemptError> {
        let saved = checkpoint::load(&self.database, self.partition, &self.stream_name).await;
        let saved = saved.map_err(database_outage)?;
        let mut tail = stream.tail().await.inspect_err(|_| self.truncated_since = None)?;
        let last = tail.position();
        match last < saved.position {
            true if self.settings.refill => {
                let rewound = checkpoint::rewind(&self.database, self.partition, &self.stream_name, last).await;
                rewound.map_err(database_outage)?;
            }
            true => return Err(self.stream_truncated(&tail, saved.position)),
            false => self.truncated_since = None,
        }
        if matches!(tail, StreamTail::Missing) {
            stream.create().await?;
            tail = StreamTail::Empty;
        }
        let hash = match tail {
            StreamTail::Missing | StreamTail::Empty => None,
            StreamTail::At(_, hash) => hash,
        };
        // `--refill` applies once: a later truncation ends the relay.
        self.settings.refill = false;
        // Without its hash the checkpoint counts as not saved, so that the next save adds the hash.
        self.saved = if saved.has_hash_at_position() { saved.position.min(last) } else { 0 };
        // The last message was removed, so only the event of the checkpoint can show whether the log has another history.
        if let (None, Some(event)) = (&hash, saved.event.filter(|_| last >= saved.position)) {
            let located = log_reader::locate(&self.database, self.partition, event.position, Some(&event.hash)).await;
            if let Err(error) = located {
                return Err(self.read_error(error).await);
            }
        }
        match log_reader::locate(&self.database, self.partition, last, hash.as_deref()).await {
            Ok(located) => Ok(located),
            Err(error) => Err(self.read_error(error).await),
        }
    }

    /// The error for a stream that ends before `position`, the position of its checkpoint. It becomes fatal after a delay.
    fn stream_truncated(&mut self, tail: &StreamTail, position: i64) -> AttemptError {
        let (stream, last) = (self.stream_name.clone(), tail.position());
        let since = *self.truncated_since.get_or_insert_with(Instant::now);
        if since.elapsed() < Duration::from_millis(TRUNCATED_MS_MAX) {
            let reason = format!("the stream ends at {last}, and it contained the log up to position {position}");
            return AttemptError::Outage(reason);
        }
        match tail {
            StreamTail::Missing => FatalError::StreamMissing { stream, position }.into(),
            StreamTail::Empty | StreamTail::At(..) => FatalError::StreamTruncated { stream, last, position }.into(),
        }
    }

    fn handle_reply(&mut self, reply: PublishReply, in_flight: &mut InFlight) -> Result<(), AttemptError> {
        in_flight.replied_at = Instant::now();
        match reply {
            PublishReply::Stored(position) if position > in_flight.sent => {
                Err(FatalError::ForeignMessage { stream: self.stream_name.clone(), position }.into())
            }
            PublishReply::Stored(position) => {
                let acknowledged = in_flight.acknowledge(position);
                METRICS.relay_published.with_label_values(&[&self.stream_name]).inc_by(acknowledged);
                self.published.send_replace(Some(in_flight.stored.position));
                self.outage.record_success(position);
                Ok(())
            }
            PublishReply::Full(reason) => {
                let (stream, last) = (self.stream_name.clone(), in_flight.stored.position);
                Err(FatalError::StreamFull { stream, last, reason }.into())
            }
            PublishReply::TooLarge(reason) => {
                Err(FatalError::TooLarge { position: in_flight.stored.position + 1, reason }.into())
            }
            PublishReply::Recheck(reason) => Err(AttemptError::outage("the stream did not store a message", reason)),
        }
    }

    /// Stores the position and hash of the stream's last event, unless they are stored already.
    async fn save_checkpoint(&mut self, stored: &LogPosition) -> Result<(), AttemptError> {
        if stored.position > self.saved {
            let saved = checkpoint::save(&self.database, self.partition, &self.stream_name, stored).await;
            saved.map_err(database_outage)?;
            self.saved = stored.position;
        }
        Ok(())
    }

    /// The error of a failed read. Another history is fatal only if the primary confirms it: a former primary may have answered.
    async fn read_error(&self, error: ReadError) -> AttemptError {
        let (mismatch, expected) = match error {
            ReadError::History(mismatch, expected) => (mismatch, expected),
            ReadError::Storage(error) => return database_outage(error),
        };
        let event = (mismatch.position(), expected.as_deref());
        match log_reader::read_again(&self.primary, self.partition, event).await {
            Ok(Verdict::Confirmed) => {
                FatalError::DifferentHistory { stream: self.stream_name.clone(), mismatch }.into()
            }
            Ok(Verdict::Refuted) => AttemptError::outage("a former primary has another history", mismatch),
            Ok(Verdict::Unknown) => AttemptError::outage(
                "the log and the stream have different histories, but a server of PASSBOOK_DATABASE_URL does not answer and may \
                 be the primary: start it, or remove it from the list",
                mismatch,
            ),
            Err(error) => database_outage(error),
        }
    }
}

/// Runs `work` until it ends. Returns `None` on shutdown, and an error when the connection is lost.
async fn while_connected<T>(
    stream: &JetStream,
    shutdown: &CancellationToken,
    work: impl Future<Output = Result<T, AttemptError>>,
) -> Result<Option<T>, AttemptError> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(None),
        () = stream.disconnected() => Err(AttemptError::Outage("lost the connection to the NATS server".to_owned())),
        outcome = work => outcome.map(Some),
    }
}

async fn publish_page(
    stream: &JetStream,
    page: &[EventWithHash],
    in_flight: &mut InFlight,
    replies: &Replies,
) -> Result<(), AttemptError> {
    for recorded in page {
        stream.publish(recorded, replies).await?;
        in_flight.push(recorded.into());
    }
    Ok(())
}

fn database_outage(error: sqlx::Error) -> AttemptError {
    AttemptError::outage("the database is unavailable", error)
}
