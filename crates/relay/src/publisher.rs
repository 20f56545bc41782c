//! Fills the stream of one partition: looks where it ends, publishes what the log holds behind that, waits out what is away.

use std::{convert::Infallible, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Error, Settings, Stop, checkpoint,
    guarded::Guarded,
    lag,
    log::{self, Place},
    progress::Progress,
    stream::{Answer, Answers, End, Stream},
};
use passbook_event_store::Primary;
use passbook_telemetry::metrics::METRICS;

/// How many connections publish a partition, and how long one of them is waited for.
const CONNECTIONS_MAX: u32 = 3;
const ACQUIRE_MS_MAX: u64 = 2_000;
/// How many messages wait for their answers.
const IN_FLIGHT_MESSAGES_MAX: i64 = 4_096;
/// How long the server may leave all of them without one.
const ANSWER_MS_MAX: u64 = 5_000;
/// How long after a message was stored the checkpoint says so.
const CHECKPOINT_MS: u64 = 250;
/// For so long a stream that lacks what it held is looked at again: who has just come to lead a cluster's stream may know of
/// less than was acknowledged.
const LACKING_MS_MAX: u64 = 5_000;
/// How often a stream is looked at into which nothing is published.
const IDLE_LOOK_MS: u64 = 10_000;
/// Pause after a failure, backing off while it lasts.
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 2_000;

/// The one who fills a stream.
pub(super) struct Publisher {
    settings: Settings,
    partition: i16,
    name: String,
    database: PgPool,
    /// Looks out for another server as long as it is there.
    _primary: Primary,
    stopping: watch::Receiver<bool>,
    /// How far the stream reaches, once it was looked at.
    published: watch::Sender<Option<i64>>,
    /// The last position that the checkpoint is known to say, with its event.
    saved: i64,
    /// Since when the stream lacks what it is noted to hold.
    lacking_since: Option<Instant>,
    /// Whether an outage was told, and not its end.
    is_away: bool,
    retry_ms: u64,
}

impl Publisher {
    pub(super) fn new(settings: Settings, partition: i16, primary: Primary, stopping: watch::Receiver<bool>) -> Self {
        let connections = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_millis(ACQUIRE_MS_MAX));
        Self {
            name: format!("{}-{partition}", settings.stream),
            settings,
            partition,
            database: primary.pool(connections),
            _primary: primary,
            stopping,
            published: watch::Sender::new(None),
            saved: 0,
            lacking_since: None,
            is_away: false,
            retry_ms: RETRY_MS_MIN,
        }
    }

    /// Publishes until it is told to end, or somebody has to decide something.
    pub(super) async fn run(mut self) -> Result<(), Stop> {
        let watching = lag::watch(self.database.clone(), self.partition, self.name.clone(), self.published.subscribe());
        let _watching = Guarded::spawn(watching);
        let mut stopping = self.stopping.clone();
        loop {
            match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(Error::Stop(stop)) => return Err(*stop),
                Err(Error::Outage(reason)) => self.tell_outage(&reason),
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
                () = sleep(Duration::from_millis(self.retry_ms)) => {}
            }
            self.retry_ms = (self.retry_ms * 2).min(RETRY_MS_MAX);
        }
    }

    /// Publishes until it is told to end, which is no error, or something breaks.
    async fn attempt(&mut self) -> Result<(), Error> {
        let mut stopping = self.stopping.clone();
        let stream = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
            connected = Stream::connect(&self.settings, self.partition, &self.name) => {
                connected.inspect_err(|_| self.lacking_since = None)?
            }
        };
        let mut progress = None;
        let outcome = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
            () = stream.lost() => Err(Error::Outage("the connection to the NATS server is lost".to_owned())),
            broken = self.fill(&stream, &mut progress) => broken.map(|never| match never {}),
        };
        // However it ended: what is in the stream is noted if it can be.
        if let Some((mut progress, mut answers)) = progress {
            if outcome.is_ok() {
                progress.drain(&mut answers).await;
            }
            let noted = self.note(&progress.stored).await;
            return outcome.and(noted);
        }
        outcome
    }

    async fn fill(&mut self, stream: &Stream, begun: &mut Option<(Progress, Answers)>) -> Result<Infallible, Error> {
        let mut from = self.agree(stream).await?;
        if !self.is_away {
            tracing::info!(
                stream = self.name,
                position = from.position,
                "publishing what the log holds behind this position"
            );
        }
        let answers = stream.answers().await?;
        let (progress, answers) = begun.insert((Progress::from(from.clone()), answers));
        self.published.send_replace(Some(from.position));
        let (mut pages, _reading) = log::read_ahead(self.database.clone(), self.partition, from.clone());
        let mut note_at = Instant::now() + Duration::from_millis(CHECKPOINT_MS);
        loop {
            let has_room = progress.sent - progress.stored.position + log::PAGE_EVENTS_MAX <= IN_FLIGHT_MESSAGES_MAX;
            let waits = progress.sent > progress.stored.position;
            tokio::select! {
                answer = answers.next(), if waits => self.take(answer?, progress)?,
                page = pages.recv(), if has_room => {
                    let ended = || Error::Outage("the log is not read any more".to_owned());
                    for event in &page.ok_or_else(ended)?.map_err(|error| self.unreadable(error))? {
                        stream.publish(event, answers).await?;
                        from = Place::behind(event);
                        progress.send(from.clone());
                    }
                    if !waits {
                        progress.answered_at = Instant::now();
                    }
                }
                () = sleep_until(note_at), if progress.stored.position > self.saved => {
                    self.note(&progress.stored).await?;
                    note_at = Instant::now() + Duration::from_millis(CHECKPOINT_MS);
                }
                () = sleep_until(progress.answered_at + Duration::from_millis(ANSWER_MS_MAX)), if waits => {
                    return Err(Error::Outage(format!("the NATS server has not answered for {ANSWER_MS_MAX} ms")));
                }
                () = sleep_until(progress.answered_at + Duration::from_millis(IDLE_LOOK_MS)), if !waits => {
                    if self.agree(stream).await? != from {
                        return Err(Error::Outage("the stream ends elsewhere than where this relay left it".to_owned()));
                    }
                    self.tell_return(from.position);
                    progress.answered_at = Instant::now();
                }
            }
        }
    }

    /// Looks where the stream ends, makes sure that it is a beginning of the log, and says where it goes on.
    async fn agree(&mut self, stream: &Stream) -> Result<Place, Error> {
        let noted = checkpoint::load(&self.database, self.partition, &self.name).await.map_err(away)?;
        let checkpoint = noted.position;
        let mut end = stream.end().await.inspect_err(|_| self.lacking_since = None)?;
        let last = end.position();
        match last < checkpoint {
            true if self.settings.refill => {
                checkpoint::take_back(&self.database, self.partition, &self.name, last).await.map_err(away)?;
            }
            true => return Err(self.lacking(&end, checkpoint)),
            false => self.lacking_since = None,
        }
        if matches!(end, End::Missing) {
            stream.make().await?;
            end = End::Empty;
        }
        let hash = match end {
            End::Missing | End::Empty => None,
            End::At(_, hash) => hash,
        };
        // Once: what is lost after this is lost anew.
        self.settings.refill = false;
        self.saved = if noted.is_whole() { checkpoint.min(last) } else { 0 };
        // The stream cannot tell which event its last one was. The checkpoint can, or which one was before.
        if let (None, Some(event)) = (&hash, noted.event.filter(|_| last >= checkpoint)) {
            let found = log::find(&self.database, self.partition, event.position, Some(&event.hash)).await;
            found.map_err(|error| self.unreadable(error))?;
        }
        let place = log::find(&self.database, self.partition, last, hash.as_deref()).await;
        place.map_err(|error| self.unreadable(error))
    }

    /// The stream ends before `position`, up to which it is noted to hold the log.
    fn lacking(&mut self, end: &End, position: i64) -> Error {
        let (stream, last) = (self.name.clone(), end.position());
        let since = *self.lacking_since.get_or_insert_with(Instant::now);
        if since.elapsed() < Duration::from_millis(LACKING_MS_MAX) {
            return Error::Outage(format!("the stream ends at {last}, and held the log up to position {position}"));
        }
        match end {
            End::Missing => Stop::Gone { stream, position }.into(),
            End::Empty | End::At(..) => Stop::CutOff { stream, last, position }.into(),
        }
    }

    fn take(&mut self, answer: Answer, progress: &mut Progress) -> Result<(), Error> {
        progress.answered_at = Instant::now();
        match answer {
            Answer::Stored(at) if at > progress.sent => {
                Err(Stop::Foreign { stream: self.name.clone(), position: at }.into())
            }
            Answer::Stored(at) => {
                METRICS.relay_published.with_label_values(&[&self.name]).inc_by(progress.store(at));
                self.published.send_replace(Some(progress.stored.position));
                self.tell_return(at);
                Ok(())
            }
            Answer::Full(reason) => {
                Err(Stop::Full { stream: self.name.clone(), last: progress.stored.position, reason }.into())
            }
            Answer::TooLarge(reason) => Err(Stop::TooLarge { position: progress.stored.position + 1, reason }.into()),
            Answer::Look(reason) => Err(Error::outage("the stream takes no message", reason)),
        }
    }

    /// Writes down how far the stream reaches.
    async fn note(&mut self, stored: &Place) -> Result<(), Error> {
        if stored.position > self.saved {
            checkpoint::save(&self.database, self.partition, &self.name, stored).await.map_err(away)?;
            self.saved = stored.position;
        }
        Ok(())
    }

    fn unreadable(&self, error: log::Error) -> Error {
        match error {
            log::Error::Misplaced(misplaced) => Stop::OtherHistory { stream: self.name.clone(), misplaced }.into(),
            log::Error::Storage(error) => away(error),
        }
    }

    /// Once an outage, whatever it goes through.
    fn tell_outage(&mut self, reason: &str) {
        match std::mem::replace(&mut self.is_away, true) {
            false => tracing::warn!(stream = self.name, reason, "the relay stands still, and tries again"),
            true => tracing::debug!(stream = self.name, reason, "the relay still stands still"),
        }
    }

    fn tell_return(&mut self, position: i64) {
        if std::mem::take(&mut self.is_away) {
            tracing::info!(stream = self.name, position, "the relay goes on");
        }
        self.retry_ms = RETRY_MS_MIN;
    }
}

fn away(error: sqlx::Error) -> Error {
    Error::outage("the database does not answer as it should", error)
}
