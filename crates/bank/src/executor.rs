//! The one task that writes: takes whatever waits in the queue as one batch, carries it through the appender, and
//! answers. While a batch commits, the next one gathers; there is no timer.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{Instrument, Span, field::Empty};

use super::{
    CommandOutcome, Error, Pending, Settings,
    storage_error::{CONNECT_MAX, StorageError, Kind, STATEMENT_MAX, within},
    command_stats::CommandStats,
    appender::Appender,
    queue::{BATCH_COMMANDS_MAX, WaitingCommands, OUTAGE_WAIT_MAX, Queue, reject_all},
};
use passbook_event_store::timestamp;
use passbook_event_store::{Primary, StreamVersion, settle::Place};
use passbook_telemetry::metrics::{METRICS, phase};
use passbook_telemetry::trace::{self, TARGET};

/// So long after the last failure a database that answers, and was not written to, is taken for healed.
const RECOVERY_GRACE: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(250);

type Answers = Vec<Result<CommandOutcome, Error>>;

pub(super) struct Executor {
    settings: Settings,
    connect: Primary,
    connection: Option<PgConnection>,
    appender: Appender,
    /// An append whose outcome is not known yet.
    unknown: Option<UnknownAppend>,
    /// When the first of the tries began that have failed since one worked.
    away_since: Option<Instant>,
    /// When the last of them ended.
    failed_at: Option<Instant>,
    /// Why the last try failed, for whoever asks.
    outage: watch::Sender<Option<&'static str>>,
    /// Of each partition.
    appended: Arc<[Arc<watch::Sender<i64>>]>,
    command_stats: Arc<CommandStats>,
}

/// An append that was sent and never answered.
#[derive(Debug)]
pub(super) struct UnknownAppend {
    /// Where its first event would stand, in each of its partitions.
    pub places: Vec<Place>,
    /// What its callers are told if it stands. Empty once they have been told that it is not known.
    pub answers: Answers,
}

impl Executor {
    /// For the commands of one partition, or with `None` for those over several.
    pub(super) fn new(
        settings: Settings,
        partition: Option<i16>,
        connect: Primary,
        appended: Arc<[Arc<watch::Sender<i64>>]>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
        outage: watch::Sender<Option<&'static str>>,
        command_stats: Arc<CommandStats>,
    ) -> Self {
        let appender = Appender::new(&settings, partition, newer);
        Self {
            settings,
            connect,
            connection: None,
            appender,
            unknown: None,
            away_since: None,
            failed_at: None,
            outage,
            appended,
            command_stats,
        }
    }

    /// Runs until the queue is closed and drained.
    pub(super) async fn run(mut self, mut queue: Queue) {
        let mut batch = Vec::with_capacity(BATCH_COMMANDS_MAX);
        while self.receive(&mut queue, &mut batch).await > 0 {
            // Of those who hung up while they waited, or were told that they waited too long, nothing is done.
            batch.retain(|pending| !pending.answer.is_closed());
            let whole = phase("whole");
            let span = match batch.iter().all(|pending| pending.span.is_disabled()) {
                true => Span::none(),
                false => tracing::info_span!(target: TARGET, parent: None, "batch", commands = Empty, position = Empty),
            };
            self.carry_out(std::mem::take(&mut batch), &mut queue).instrument(span.clone()).await;
            whole.observe_duration();
            self.tell(&span);
        }
        if let Some(connection) = self.connection {
            // Everybody is answered: a failed goodbye harms nobody.
            let _ = connection.close().await;
        }
    }

    /// Wakes whoever follows the log. A lost wake-up is not missed: all of them look for themselves, too.
    fn tell(&self, batch: &Span) {
        for (partition, position) in self.appender.positions() {
            if let Some(appended) = usize::try_from(partition).ok().and_then(|at| self.appended.get(at))
                && *appended.borrow() != position
            {
                // What others appended is not of this batch.
                if self.appender.has_appended {
                    batch.record("position", position);
                    trace::remember_batch(partition, position, batch);
                }
                appended.send_replace(position);
            }
        }
    }

    /// Waits for commands. As long as the database is away it is asked again and again whether it is back: where it is
    /// known to be away, nobody may be sending any. Likewise where the log holds what only a newer release can read.
    async fn receive(&mut self, queue: &mut Queue, batch: &mut Vec<Pending>) -> usize {
        loop {
            let commands = queue.recv_many(batch, BATCH_COMMANDS_MAX);
            let received = match self.away_since {
                Some(_) => timeout(RETRY_MAX, commands).await.ok(),
                None => select! {
                    biased;
                    received = commands => Some(received),
                    () = self.appender.newer.tripped() => None,
                },
            };
            if let Some(received) = received {
                return received;
            }
            // A passage of nobody.
            let _ = self.attempt(&mut Vec::new(), queue, false).await;
        }
    }

    /// Carries a batch to its answers. A command that the database refuses is found by halves: the second half is
    /// decided anew after the first stands, so nothing is ever written that was decided on an excluded command.
    async fn carry_out(&mut self, batch: Vec<Pending>, queue: &mut Queue) {
        let (mut parts, mut is_whole) = (vec![batch], true);
        while let Some(mut part) = parts.pop() {
            // Others join a whole batch; a half that is refused again has to come to an end.
            match self.retry(&mut part, queue, std::mem::take(&mut is_whole)).await {
                Ok(answers) => self.answer(part, answers),
                Err(Error::Internal) if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Err(error) => {
                    let answers = part.iter().map(|_| Err(error.clone())).collect();
                    self.answer(part, answers);
                }
            }
        }
    }

    fn answer(&self, batch: Vec<Pending>, answers: Answers) {
        METRICS.batch_commands.observe(batch.len() as f64);
        let span = Span::current();
        span.record("commands", batch.len());
        batch.iter().for_each(|pending| trace::link_command(&pending.span, &span));
        let judged = batch.iter().zip(&answers).filter(|(pending, answer)| is_judged(pending, answer));
        self.command_stats.record(timestamp::now(), judged.map(|(pending, _)| pending.accepted_at.elapsed()));
        for (pending, answer) in batch.into_iter().zip(answers) {
            METRICS.replays.inc_by(u64::from(answer.as_ref().is_ok_and(|answer| answer.replayed)));
            // A caller who hung up no longer listens; the command is recorded all the same.
            let _ = pending.answer.send(answer);
        }
    }

    /// Tries until the batch stands, the database refuses it (`Internal`), or patience ends. In an outage that lasts
    /// there is one try for each batch, so that nobody waits for it in vain.
    async fn retry(
        &mut self,
        batch: &mut Vec<Pending>,
        queue: &mut Queue,
        mut accepts_more_commands: bool,
    ) -> Result<Answers, Error> {
        let mut pause = RETRY_MIN;
        loop {
            let StorageError { kind, reason, .. } = match self.attempt(batch, queue, accepts_more_commands).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => failure,
            };
            // Those who come later are not to prolong the waiting of these.
            accepts_more_commands = false;
            if kind == Kind::Rejected {
                tracing::error!(reason, commands = batch.len(), "the database refused a batch");
                self.appender.invalidate_cache();
                return Err(Error::Internal);
            }
            if kind == Kind::UnsupportedEvent {
                tracing::error!(reason, "nothing is done: upgrade this instance");
                return Err(Error::StorageUnavailable);
            }
            tracing::warn!(reason, "the event store does not answer as it should");

            let away = self.away_since.is_some_and(|since| since.elapsed() > OUTAGE_WAIT_MAX);
            if away {
                reject_all(queue);
            }
            let is_unknown = self.unknown.as_ref().is_some_and(|unknown| !unknown.answers.is_empty());
            let waited = |patience| batch.iter().all(|pending| pending.accepted_at.elapsed() > patience);
            match is_unknown {
                true if waited(self.settings.command_timeout) => {
                    self.unknown.iter_mut().for_each(|unknown| unknown.answers.clear());
                    return Err(Error::OutcomeUnknown);
                }
                false if away || waited(OUTAGE_WAIT_MAX) => return Err(Error::StorageUnavailable),
                true | false => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// One try, and what it tells of the database.
    async fn attempt(
        &mut self,
        batch: &mut Vec<Pending>,
        queue: &mut Queue,
        accepts_more_commands: bool,
    ) -> Result<Answers, StorageError> {
        let started = Instant::now();
        let outcome = self.connect_and_pass(batch, queue, accepts_more_commands).await;
        let outage = outcome.as_ref().err().filter(|failure| failure.kind != Kind::Rejected);
        match outage {
            Some(_) => {
                self.away_since.get_or_insert(started);
                self.failed_at = Some(Instant::now());
                self.appender.force_locked_path();
            }
            // A passage of nobody writes nothing, and does not know that a disk is still full.
            None if batch.is_empty() && self.failed_at.is_some_and(|at| at.elapsed() < RECOVERY_GRACE) => return outcome,
            None => (self.away_since, self.failed_at) = (None, None),
        }
        self.outage.send_replace(outage.map(|failure| failure.outage));
        outcome
    }

    /// A connection on which anything failed is not used again. Each step may take its time, but not that of those who wait
    /// behind it.
    async fn connect_and_pass(
        &mut self,
        batch: &mut Vec<Pending>,
        queue: &mut Queue,
        accepts_more_commands: bool,
    ) -> Result<Answers, StorageError> {
        let mut behind = WaitingCommands::new(queue);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // Nobody waits for a passage of nobody: there a slow connection is waited for.
                let limit = if batch.is_empty() { STATEMENT_MAX } else { CONNECT_MAX };
                behind.run_while_rejecting(within(limit, self.connect.connect())).await?
            }
        };
        if let Some(unknown) = &self.unknown {
            let stands = behind.run_while_rejecting(self.appender.settle(&mut connection, unknown)).await?;
            let answers = self.unknown.take().map(|unknown| unknown.answers).unwrap_or_default();
            if stands && !answers.is_empty() {
                self.connection = Some(connection);
                return Ok(answers);
            }
        }
        let turn = behind.run_while_rejecting(self.appender.enter(&mut connection, batch)).await?;
        if accepts_more_commands && self.appender.accepts_more_commands(&turn) {
            behind.drain_into(batch);
        }
        let answers = behind.run_while_rejecting(self.appender.pass(turn, batch, &mut self.unknown)).await?;
        self.connection = Some(connection);
        Ok(answers)
    }
}

/// Carried out, or refused by the state: neither asked about only, nor stopped by an outage or a fault.
fn is_judged(pending: &Pending, answer: &Result<CommandOutcome, Error>) -> bool {
    let judged = match answer {
        Ok(_) | Err(Error::Rejected(_) | Error::VersionMismatch { .. } | Error::KeyReused) => true,
        Err(
            Error::NotVisible | Error::Overloaded | Error::StorageUnavailable | Error::OutcomeUnknown | Error::Internal,
        ) => false,
    };
    judged && !pending.context.dry_run
}
