//! The task that executes commands. It takes all waiting commands as one batch, appends the batch to the log, and answers the
//! callers. The next batch accumulates meanwhile; there is no timer.
//!
//! [`Executor::execute`] answers, retries or splits a batch, depending on the outcome of the append.

use std::{collections::HashSet, mem, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field::Empty};

use super::{
    account_cache::AccountCache,
    append_outcome::{AppendOutcome, CommittedBatch, UnknownAppend},
    appender::{Appender, Scope},
    clock::DatabaseClock,
    command::{Error, Refusal},
    command_stats::CommandStats,
    has_changed_history,
    outage::{Availability, OUTAGE_WAIT_MAX, WaitingCommands},
    pending::{CommandInContext, CommandResult, CommandResults, Pending},
    queue::CommandQueue,
    reversal_lookup::ReversalLookup,
    state_rebuild::{RebuildContext, StateRebuilds},
    storage_error::{CONNECT_TIMEOUT, Kind, STATEMENT_TIMEOUT, StorageError},
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::{AccountCommand, Command};
use passbook_event_store::{FailoverWatch, Partitions, PrimaryConnector, log_if_unreachable, timestamp, with_timeout};
use passbook_telemetry::metrics::{METRICS, phase};
use passbook_telemetry::trace::{self, TARGET};

/// How many commands share one append.
const BATCH_COMMANDS_MAX: usize = 512;
/// The backoff between attempts begins with this, and doubles.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(250);

/// The settings of the executors.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many partitions the log has.
    pub partitions: Partitions,
    /// Whether the partitions lie on several servers. Each partition then has an executor of its own.
    pub is_distributed: bool,
    /// How long a caller waits for a result.
    pub command_timeout: Duration,
    /// A snapshot is written when a stream passes a multiple of this many versions.
    pub snapshot_every: i64,
    /// How far the clock of this instance may differ from the database's.
    pub clock_skew_max: Duration,
    /// How many accounts the caches of all executors hold together.
    pub cache_accounts: usize,
}

/// The state that all executors of a bank share.
#[derive(Clone)]
pub(super) struct Shared {
    pub settings: Settings,
    pub primary: PrimaryConnector,
    /// The position of each partition's head. The executors publish it after each batch.
    pub appended: Arc<[Arc<watch::Sender<i64>>]>,
    pub gate: UnsupportedEventGate,
    pub rebuilds: RebuildContext,
    pub reversals: ReversalLookup,
    pub stats: Arc<CommandStats>,
    pub shutdown: CancellationToken,
}

/// Executes the commands of one queue.
pub(super) struct Executor {
    shared: Shared,
    queue: CommandQueue,
    /// Accounts that are folded beside this executor.
    rebuilds: StateRebuilds,
    connection: Option<PgConnection>,
    failovers: FailoverWatch,
    appender: Appender,
    /// An append of unknown outcome. It must be resolved before the next append is sent.
    unknown: Option<UnknownAppend>,
    availability: Availability,
    clock: DatabaseClock,
}

/// A batch, or a part of one that the database refused.
struct Part {
    work: Vec<Pending>,
    /// Whether waiting commands may join at the next attempt. Only at the first: they must not delay a retry.
    accepts_more: bool,
    backoff: Duration,
}

impl Part {
    fn of_batch(work: Vec<Pending>) -> Self {
        Self { work, accepts_more: true, backoff: RETRY_MIN }
    }

    fn commands(&self) -> usize {
        self.work.iter().map(|pending| pending.commands().len()).sum()
    }

    fn halves(mut self) -> (Self, Self) {
        let second = self.work.split_off(self.work.len() / 2);
        let part = |work| Self { work, accepts_more: false, backoff: RETRY_MIN };
        (part(self.work), part(second))
    }

    /// Whether every command has waited for longer than `limit`.
    fn has_waited(&self, limit: Duration) -> bool {
        self.work.iter().all(|pending| pending.accepted_at.elapsed() > limit)
    }
}

impl Executor {
    /// An executor for the commands of these partitions.
    pub(super) fn new(
        shared: Shared,
        scope: Scope,
        queue: CommandQueue,
        outage: watch::Sender<Option<&'static str>>,
    ) -> Self {
        let Settings { partitions, snapshot_every, cache_accounts, clock_skew_max, .. } = shared.settings;
        let clock = DatabaseClock::new(clock_skew_max);
        let gate = shared.gate.clone();
        let cache = match scope {
            Scope::All => AccountCache::new(gate.clone(), partitions, cache_accounts),
            Scope::One(_) => {
                AccountCache::new(gate.clone(), partitions, cache_accounts.div_ceil(partitions.all().len()))
            }
            Scope::Spanning => AccountCache::disabled(gate.clone(), partitions),
        };
        let appender = Appender::new(partitions, scope, snapshot_every, cache, gate);
        let availability = Availability::new(outage);
        let rebuilds = StateRebuilds::new(shared.rebuilds.clone());
        let failovers = shared.primary.failover_watch();
        Self { shared, queue, rebuilds, connection: None, failovers, appender, unknown: None, availability, clock }
    }

    /// Runs until shutdown, or until the last handle to the bank is dropped. It answers all accepted commands before it ends.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            let timer = phase("whole");
            let span = match batch.iter().all(|pending| pending.span.is_disabled()) {
                true => Span::none(),
                false => tracing::info_span!(target: TARGET, parent: None, "batch", commands = Empty, position = Empty),
            };
            let events = self.execute(batch).instrument(span.clone()).await;
            timer.observe_duration();
            self.publish_positions(&span, events);
        }
        self.rebuilds.reject_all();
        if let Some(connection) = self.connection {
            // Best effort: the connection is closed either way.
            let _ = connection.close().await;
        }
    }

    /// Waits for commands; `None` after shutdown, when the queue is empty. It sends probes while the database is unavailable, while the
    /// log contains an event of a newer release, and after a failover. Otherwise an outage would not end, and a lost event would not be
    /// noticed, while no client sends a command.
    async fn next_batch(&mut self) -> Option<Vec<Pending>> {
        loop {
            let is_failing = self.availability.is_failing();
            select! {
                biased;
                ready = self.rebuilds.next_ready() => self.queue.put_back(ready),
                is_open = self.queue.wait() => return is_open.then(|| self.queue.take(BATCH_COMMANDS_MAX)),
                () = self.shared.shutdown.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                () = sleep(RETRY_MAX), if is_failing => self.probe().await,
                () = self.shared.gate.tripped(), if !is_failing => self.probe().await,
                () = self.failovers.failover(), if !is_failing => self.probe().await,
            }
        }
    }

    /// Attempts to append an empty batch, to find out whether the database is available.
    async fn probe(&mut self) {
        let mut part = Part { work: Vec::new(), accepts_more: false, backoff: RETRY_MIN };
        let started = Instant::now();
        let result = self.attempt(&mut part).await;
        self.record_availability(started, &part, result);
    }

    /// Executes a batch until each of its commands is answered, and returns how many events it appended.
    ///
    /// If the database refuses the batch, the batch is split, so that a command that cannot be stored fails alone. The second
    /// half is decided after the first is committed: no event is written that was decided on a refused command.
    async fn execute(&mut self, batch: Vec<Pending>) -> usize {
        let mut events = 0;
        let mut parts = vec![Part::of_batch(batch)];
        while let Some(mut part) = parts.pop() {
            let started = Instant::now();
            let result = self.attempt(&mut part).await;
            match self.record_availability(started, &part, result) {
                AppendOutcome::Committed(committed) => {
                    events += committed.events;
                    self.answer(part.work, committed.results);
                }
                AppendOutcome::RefusedByDatabase(error) => {
                    let commands = part.commands();
                    tracing::error!(reason = error.reason, commands, "database refused a batch");
                    self.appender.invalidate_cache();
                    if part.work.len() > 1 {
                        let (first, second) = part.halves();
                        parts.extend([second, first]);
                    } else {
                        self.answer_all(part.work, &Error::Internal);
                    }
                }
                AppendOutcome::UnsupportedEvent(error) => {
                    tracing::error!(
                        reason = error.reason,
                        "log contains an event of a newer release; upgrade this instance"
                    );
                    self.answer_all(part.work, &Error::StorageUnavailable { reason: error.outage });
                }
                AppendOutcome::ClockSkewed(_) => self.answer_all(part.work, &Error::ClockSkewed),
                AppendOutcome::Unavailable(error) => parts.extend(self.back_off(part, error).await),
                AppendOutcome::OutcomeUnknown(error, unknown) => {
                    self.unknown = Some(unknown);
                    parts.extend(self.back_off(part, error).await);
                }
            }
        }
        events
    }

    /// Attempts once to append a part: connects, resolves an unknown outcome, chooses the path, appends. A connection is kept
    /// only if all calls on it succeeded. Commands that wait behind a slow step are rejected.
    async fn attempt(&mut self, part: &mut Part) -> Result<AppendOutcome, StorageError> {
        let accepts_more = mem::take(&mut part.accepts_more);
        if self.failovers.has_failed_over() {
            // The former primary may still accept writes.
            self.connection = None;
            self.appender.force_locked_path();
        }
        let mut waiting = WaitingCommands::new(&mut self.queue);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // No caller waits for an empty batch, so its connection may take longer.
                let limit = if part.work.is_empty() { STATEMENT_TIMEOUT } else { CONNECT_TIMEOUT };
                let connecting = with_timeout(limit, self.shared.primary.connect());
                // No data was sent, so no error here can mean that Postgres rejects it: the batch must not be split.
                let unavailable = |error: sqlx::Error| StorageError { kind: Kind::Unavailable, ..error.into() };
                let mut connection = waiting.run_while_rejecting(connecting).await.map_err(unavailable)?;
                waiting.run_while_rejecting(self.appender.check_history(&mut connection)).await?;
                connection
            }
        };
        if let Some(unknown) = &self.unknown {
            let is_committed = waiting.run_while_rejecting(self.appender.resolve(&mut connection, unknown)).await?;
            let results = self.unknown.take().and_then(|unknown| unknown.results);
            if let Some(results) = results.filter(|_| is_committed) {
                self.connection = Some(connection);
                return Ok(AppendOutcome::Committed(CommittedBatch { results, events: 0 }));
            }
        }
        let clock = waiting.run_while_rejecting(self.clock.check(&mut connection)).await?;
        let preparing = self.appender.prepare(&mut connection, &part.work);
        let prepared = waiting.run_while_rejecting(preparing).await?;
        let is_probe = part.work.is_empty();
        self.rebuilds.put_aside(&mut part.work, &prepared);
        if part.work.is_empty() && !is_probe {
            self.connection = Some(connection);
            return Ok(AppendOutcome::Committed(CommittedBatch { results: vec![], events: 0 }));
        }
        let beginning = self.appender.begin(&mut connection, &part.work, prepared);
        let path = waiting.run_while_rejecting(beginning).await?;
        if accepts_more && self.appender.accepts_more_commands(&path) {
            let waits = self.rebuilds.waits();
            let can_join = |pending: &Pending| waits.of(pending).is_none() && self.appender.can_join(&path, pending);
            join_batch(&mut part.work, waiting.queue(), can_join);
        }
        let outcome = waiting.run_while_rejecting(self.appender.append(path, &part.work, clock)).await?;
        if matches!(outcome, AppendOutcome::Committed(_)) {
            self.connection = Some(connection);
        }
        Ok(outcome)
    }

    /// Converts the result of an attempt into an outcome, and records what it says about the database.
    fn record_availability(
        &mut self,
        started: Instant,
        part: &Part,
        result: Result<AppendOutcome, StorageError>,
    ) -> AppendOutcome {
        let outcome = result.unwrap_or_else(AppendOutcome::from);
        match outcome.outage() {
            Some(outage) => {
                self.availability.record_failure(started, outage);
                self.appender.force_locked_path();
            }
            None => self.availability.record_success(part.work.is_empty()),
        }
        outcome
    }

    /// Pauses and returns the part for another attempt, or answers its commands if they have waited long enough. During an
    /// outage it also rejects the commands in the queue.
    async fn back_off(&mut self, mut part: Part, error: StorageError) -> Option<Part> {
        if !log_if_unreachable(error.failure, &error.reason) {
            tracing::warn!(failure = error.failure.as_str(), reason = error.reason, "append failed; retrying");
        }
        if self.availability.is_outage() {
            self.queue.reject_all(error.outage);
        }
        if let Some(error) = self.deadline_error(&part, error.outage) {
            self.answer_all(part.work, &error);
            return None;
        }
        sleep(part.backoff).await;
        part.backoff = (part.backoff * 2).min(RETRY_MAX);
        Some(part)
    }

    /// The error to answer if the part has waited long enough. Commands that may be committed wait until their timeout. During
    /// an outage all others get a single attempt.
    fn deadline_error(&mut self, part: &Part, reason: &'static str) -> Option<Error> {
        match self.unknown.as_mut().filter(|unknown| unknown.results.is_some()) {
            Some(unknown) => part.has_waited(self.shared.settings.command_timeout).then(|| {
                unknown.results = None;
                Error::OutcomeUnknown
            }),
            None => {
                let is_over = self.availability.is_outage() || part.has_waited(OUTAGE_WAIT_MAX);
                is_over.then_some(Error::StorageUnavailable { reason })
            }
        }
    }

    fn answer_all(&self, work: Vec<Pending>, error: &Error) {
        let results = work.iter().map(Pending::results).sum();
        self.answer(work, vec![Err(error.clone()); results]);
    }

    fn answer(&self, work: Vec<Pending>, results: CommandResults) {
        assert_eq!(work.iter().map(Pending::results).sum::<usize>(), results.len(), "all work is answered");
        let commands: usize = work.iter().map(|pending| pending.commands().len()).sum();
        METRICS.batch_commands.observe(commands as f64);
        let batch = Span::current();
        batch.record("commands", commands);
        let (mut results, now) = (results.into_iter(), Instant::now());
        let mut latencies = Vec::with_capacity(commands);
        for pending in work {
            trace::link_command(&pending.span, &batch);
            let own: Vec<CommandResult> = results.by_ref().take(pending.results()).collect();
            if own.iter().any(|result| is_counted(&pending, result)) {
                let latency = now.duration_since(pending.accepted_at);
                latencies.extend(pending.commands().iter().map(|_| latency));
            }
            if own.iter().any(has_changed_history) {
                // The connections that read the movements may lead to a former primary.
                self.shared.reversals.close_connections();
            }
            METRICS.replays.inc_by(own.iter().filter(|result| is_replay(result)).count() as u64);
            pending.answer(own.into_iter());
        }
        self.shared.stats.record(timestamp::now(), latencies.into_iter());
    }

    /// Publishes new positions to the readers of the log. They also poll, so a missed notification only delays them.
    fn publish_positions(&self, batch: &Span, events: usize) {
        for (partition, position) in self.appender.positions() {
            if let Some(appended) = usize::try_from(partition).ok().and_then(|at| self.shared.appended.get(at))
                && *appended.borrow() != position
            {
                // Without events of its own, the batch has only seen what other instances appended.
                if events > 0 {
                    batch.record("position", position);
                    trace::remember_batch(partition, position, batch);
                }
                appended.send_replace(position);
            }
        }
    }
}

/// Adds waiting commands to a batch. A command that cannot join stays in the queue, and so do the later
/// commands of its accounts: the order of the commands of each account stays.
fn join_batch(batch: &mut Vec<Pending>, queue: &mut CommandQueue, can_join: impl Fn(&Pending) -> bool) {
    let mut waiting_accounts = HashSet::new();
    let mut put_back = Vec::new();
    for pending in queue.take_more(BATCH_COMMANDS_MAX, batch) {
        if can_join(&pending) && !pending.accounts().any(|account_id| waiting_accounts.contains(&account_id)) {
            batch.push(pending);
        } else {
            waiting_accounts.extend(pending.accounts());
            put_back.push(pending);
        }
    }
    queue.put_back(put_back);
}

/// Whether a result was recorded earlier under the same idempotency key.
fn is_replay(result: &CommandResult) -> bool {
    match result {
        Ok(outcome) => outcome.replayed,
        Err(Error::Refused(refused)) => refused.replayed,
        Err(
            Error::Overloaded
            | Error::StorageUnavailable { .. }
            | Error::ClockSkewed
            | Error::OutcomeUnknown
            | Error::Internal,
        ) => false,
    }
}

/// Whether a command counts in the statistics: it was executed, or refused by the state, and was no dry run. The task that records
/// expiries sends no requests, so its commands do not count.
fn is_counted(pending: &Pending, result: &CommandResult) -> bool {
    let is_decided = match result {
        Ok(_) => true,
        Err(Error::Refused(refused)) => refused.reason != Refusal::NotVisible,
        Err(
            Error::Overloaded
            | Error::StorageUnavailable { .. }
            | Error::ClockSkewed
            | Error::OutcomeUnknown
            | Error::Internal,
        ) => false,
    };
    let is_request = |CommandInContext { command, context }: &CommandInContext| {
        let is_expiry = matches!(command, Command::Account { command: AccountCommand::ReleaseExpired { .. }, .. });
        !context.dry_run && !is_expiry
    };
    is_decided && pending.commands().iter().all(is_request)
}
