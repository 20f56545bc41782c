//! The write side: commands become events. [`Bank::execute`] puts a command into the queue of its executor and waits for the
//! result. One executor serves all partitions of one server. It decides and appends the waiting commands in batches.
//!
//! A command passes through `executor` (`queue`, batches, retries), `appender` (optimistic or locked append, `account_cache`) and
//! `decide_batch` (pure decisions), and ends as a [`Receipt`]. Batches of a client (`batch`, `command_stream`) are made of the same
//! commands.

mod account_cache;
mod append_outcome;
mod appender;
mod batch;
mod clock;
mod command;
mod command_stats;
mod command_stream;
mod decide_batch;
mod executor;
mod history;
mod hold_expiry;
mod hold_receipt;
mod key_deletion;
mod other_append;
mod outage;
mod pending;
mod queue;
mod receipt;
mod reversal_lookup;
mod state_rebuild;
mod storage_error;
mod unsupported_event;
mod write_batch;

use std::{fmt, slice, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use self::{
    appender::Scope,
    command_stats::CommandStats,
    command_stream::STREAMS_COMMANDS_MAX,
    executor::{Executor, Shared},
    pending::{CommandInContext, CommandResult, Pending, Response, StreamPlace, Work},
    queue::{CommandQueue, QueueSender},
    reversal_lookup::ReversalLookup,
    state_rebuild::RebuildContext,
    storage_error::CHANGED_HISTORY,
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::Command;
use passbook_event_store::{Partitions, Position, PrimaryConnector, StreamVersion, timestamp};
use passbook_telemetry::{supervision, trace::TARGET};

pub use batch::{ATOMIC_COMMANDS_MAX, BatchCommand, Request};
pub use clock::clock_skew;
pub use command::{AccountAccess, CommandContext, CommandOutcome, Error, IdempotencyKey, IfMatch, Refusal, Refused};
pub use command_stats::CommandStatsBucket;
pub use command_stream::{CommandStream, PendingOutcome, STREAM_COMMANDS_MAX};
pub use executor::Settings;
pub use hold_expiry::{DueHolds, HoldExpiry};
pub use hold_receipt::HoldReceipt;
pub use key_deletion::KeyDeletion;
pub use other_append::OtherAppend;
pub use receipt::{
    AccountReceipt, BatchReceipt, Counterparty, HiddenAccount, Receipt, RecordedFact, RecordedOutcome, RecordedRefusal,
    RefusedBecause, TransferReceipt,
};
pub use reversal_lookup::Reversal;

/// How many commands may wait in all queues, without those of streams. More are answered [`Error::Overloaded`] at once.
pub const QUEUE_COMMANDS_MAX: usize = 4096;
/// How often the movement of a reversal is read, if the log has another event at its version when the reversal is decided.
const REVERSAL_ATTEMPTS_MAX: usize = 3;

/// The handle to the executors, cheap to clone.
#[derive(Clone)]
pub struct Bank {
    partitions: Partitions,
    /// The queue of each executor. If there are several, each serves one partition, and the last one the commands that span them.
    queues: Arc<[ExecutorQueue]>,
    /// The places of the commands that wait, without those of streams.
    places: Arc<Semaphore>,
    /// The places of the commands of all streams that are not answered.
    stream_places: Arc<Semaphore>,
    command_timeout: Duration,
    stats: Arc<CommandStats>,
    reversals: ReversalLookup,
    shutdown: CancellationToken,
}

/// The queue of one executor, and the executor's state.
struct ExecutorQueue {
    work: QueueSender,
    /// Why the executor cannot append; `None` if it can.
    outage: watch::Receiver<Option<&'static str>>,
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank").finish_non_exhaustive()
    }
}

impl Bank {
    /// Starts one executor. If the partitions lie on several servers, it starts one for each partition, and one more for the commands
    /// that span partitions.
    ///
    /// After each batch the executors publish the position of each head to `appended`, which has one sender for each partition.
    /// `unsupported_event` names an event that only a newer release can decode; an executor or a projector sets it. No command
    /// is executed until this release can decode the event.
    ///
    /// After `shutdown` is cancelled no command is accepted. The executors answer all accepted commands and end. They also end
    /// when the last clone of the handle is dropped.
    pub fn start(
        settings: Settings,
        primary: PrimaryConnector,
        appended: Arc<[Arc<watch::Sender<i64>>]>,
        unsupported_event: Arc<watch::Sender<Option<StreamVersion>>>,
        shutdown: CancellationToken,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let Settings { partitions, is_distributed, command_timeout, .. } = settings;
        let gate = UnsupportedEventGate::new(unsupported_event, partitions);
        let stats = Arc::new(CommandStats::new(timestamp::now()));
        let reversals = ReversalLookup::new(&primary, gate.clone(), partitions);
        let rebuilds = RebuildContext::new(primary.clone(), partitions, gate.clone());
        let shared = Shared {
            settings,
            primary,
            appended,
            gate,
            rebuilds,
            reversals: reversals.clone(),
            stats: Arc::clone(&stats),
            shutdown: shutdown.clone(),
        };
        let scopes = match is_distributed && partitions.is_partitioned() {
            true => partitions.all().map(Scope::One).chain([Scope::Spanning]).collect(),
            false => vec![Scope::All],
        };
        let start = |scope| {
            let (work, queue) = CommandQueue::new();
            let (failed, outage) = watch::channel(None);
            let executor = Executor::new(shared.clone(), scope, queue, failed);
            let run = async move {
                supervision::panic_if_injected("executor");
                executor.run().await;
            };
            (ExecutorQueue { work, outage }, tokio::spawn(run))
        };
        let (queues, executors): (Vec<_>, Vec<_>) = scopes.into_iter().map(start).unzip();
        let places = Arc::new(Semaphore::new(QUEUE_COMMANDS_MAX));
        let stream_places = Arc::new(Semaphore::new(STREAMS_COMMANDS_MAX));
        let queues = queues.into();
        (Self { partitions, queues, places, stream_places, command_timeout, stats, reversals, shutdown }, executors)
    }

    /// Whether all executors accept commands.
    pub fn is_running(&self) -> bool {
        self.queues.iter().all(|queue| !queue.work.is_closed())
    }

    /// How many commands wait in all queues, without those of streams.
    pub fn waiting(&self) -> usize {
        QUEUE_COMMANDS_MAX.saturating_sub(self.places.available_permits())
    }

    /// Whether an executor refuses commands because the clock of this instance differs too much from the database's.
    pub fn is_clock_skewed(&self) -> bool {
        self.outage() == Some(storage_error::CLOCK_SKEWED)
    }

    /// The reason why an executor cannot append, as a sentence for operators; `None` if all can.
    pub fn outage(&self) -> Option<&'static str> {
        self.queues.iter().find_map(|queue| *queue.outage.borrow())
    }

    /// An id for an account that is opened without one. Its partition is that of the idempotency key, so that a retry, which
    /// gets another id, finds the key.
    pub fn new_account_id(&self, context: &CommandContext) -> Uuid {
        match &context.idempotency_key {
            Some(key) => self.partitions.new_id_in(self.partitions.partition_of_key(&context.caller, &key.key)),
            None => Uuid::now_v7(),
        }
    }

    /// An id for a transfer, in the partition of the sender's account: transfers are looked up there.
    pub fn new_transfer_id(&self, from: Uuid) -> Uuid {
        self.partitions.new_id_in(self.partitions.partition_of(from))
    }

    /// The position before the first event.
    pub fn first_position(&self) -> Position {
        self.partitions.position_in(0, 0)
    }

    /// How many commands this process executed or rejected in the last ten minutes, and how long they took. Oldest first.
    pub fn command_stats(&self) -> Vec<CommandStatsBucket> {
        self.stats.buckets(timestamp::now())
    }

    /// Executes `command` and returns its outcome after the state that it depends on is durable.
    ///
    /// Dropping the future cancels a command that waits in the queue, but not one that is part of a batch.
    ///
    /// # Errors
    /// See [`Error`]. After [`Error::OutcomeUnknown`] the command may be recorded; after all others it is not.
    pub async fn execute(&self, command: Command, context: CommandContext) -> Result<CommandOutcome, Error> {
        let places = self.take_places(1)?;
        let command = Box::new(CommandInContext { command, context });
        self.enqueue(|response| Work::Command(command, response), Some(places), None).await
    }

    /// Pays back a movement, which is first read from the log. Otherwise as [`Self::execute`].
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn reverse(&self, reversal: Reversal, context: CommandContext) -> Result<CommandOutcome, Error> {
        for _ in 0..REVERSAL_ATTEMPTS_MAX {
            let command = self.look_up(reversal.clone()).await?;
            let result = self.execute(command, context.clone()).await;
            if !has_changed_history(&result) {
                return result;
            }
        }
        tracing::warn!("movement to reverse differs in the log");
        Err(Error::StorageUnavailable { reason: CHANGED_HISTORY })
    }

    /// Reads the movement of a reversal from the log.
    async fn look_up(&self, reversal: Reversal) -> Result<Command, Error> {
        self.reversals.command(reversal).await.map_err(|error| match (error, self.outage()) {
            // During an outage the reversals wait for a database that does not answer.
            (Error::Overloaded, Some(reason)) => Error::StorageUnavailable { reason },
            (error, _) => error,
        })
    }

    /// Takes places for commands in the queues.
    fn take_places(&self, commands: usize) -> Result<OwnedSemaphorePermit, Error> {
        let commands = u32::try_from(commands).map_err(|_| Error::Overloaded)?;
        Arc::clone(&self.places).try_acquire_many_owned(commands).map_err(|_| Error::Overloaded)
    }

    /// Puts a command or a batch into its queue at once, and returns the future of its result.
    fn enqueue(
        &self,
        work: impl FnOnce(Response) -> Work,
        queue_places: Option<OwnedSemaphorePermit>,
        stream_place: Option<StreamPlace>,
    ) -> PendingOutcome {
        let (response, outcome) = oneshot::channel();
        let sent = self.send(work(response), queue_places, stream_place);
        self.pending_outcome(&sent, outcome)
    }

    /// Puts work into its queue, and returns its span.
    fn send(
        &self,
        work: Work,
        queue_places: Option<OwnedSemaphorePermit>,
        stream_place: Option<StreamPlace>,
    ) -> Result<Span, Error> {
        if self.shutdown.is_cancelled() {
            return Err(Error::Overloaded);
        }
        let span = match Span::current().is_disabled() {
            true => Span::none(),
            false => tracing::info_span!(target: TARGET, "command"),
        };
        let pending = Pending { work, accepted_at: Instant::now(), span: span.clone(), queue_places, stream_place };
        let queue = self.queues.get(self.queue_of(pending.commands())).ok_or(Error::Internal)?;
        if queue.work.send(pending) { Ok(span) } else { Err(Error::Overloaded) }
    }

    /// The future of a result of work that was sent.
    fn pending_outcome(&self, sent: &Result<Span, Error>, outcome: oneshot::Receiver<CommandResult>) -> PendingOutcome {
        match sent {
            Ok(span) => PendingOutcome::waiting(outcome, Instant::now() + self.command_timeout, span.clone()),
            Err(error) => PendingOutcome::ready(Err(error.clone())),
        }
    }

    /// Whether the executor of the command serves the partitions of several servers.
    fn is_spanning(&self, command: &CommandInContext) -> bool {
        let last = self.queues.len() - 1;
        last > 0 && self.queue_of(slice::from_ref(command)) == last
    }

    /// The index of the queue whose executor serves all accounts of the commands.
    fn queue_of(&self, commands: &[CommandInContext]) -> usize {
        let last = self.queues.len() - 1;
        if last == 0 {
            return 0;
        }
        let accounts = commands.iter().flat_map(|command| command.command.accounts());
        let mut partitions = accounts.map(|account_id| self.partitions.partition_of(account_id));
        let first = partitions.next().unwrap_or_default();
        match partitions.all(|partition| partition == first) {
            true => usize::try_from(first).unwrap_or(last),
            false => last,
        }
    }
}

/// Whether the executor found other events than the reversal was made from: one was recorded meanwhile, or the connection that read it
/// leads to a former primary.
fn has_changed_history(result: &CommandResult) -> bool {
    result.as_ref().err() == Some(&Error::StorageUnavailable { reason: CHANGED_HISTORY })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use passbook_domain::AccountCommand;
    use sqlx::postgres::PgConnectOptions;
    use tokio::time::timeout;

    use super::*;

    /// A bank whose database refuses connections.
    fn start_without_database(shutdown: CancellationToken) -> (Bank, Vec<JoinHandle<()>>) {
        let command_timeout = Duration::from_secs(10);
        let settings = Settings {
            partitions: Partitions::ONE,
            is_distributed: false,
            command_timeout,
            snapshot_every: 100,
            cache_accounts: 100,
            clock_skew_max: Duration::from_secs(5),
        };
        let primary = PrimaryConnector::new(vec![PgConnectOptions::new().host("127.0.0.1").port(1)]);
        Bank::start(settings, primary, Arc::default(), Arc::new(watch::Sender::new(None)), shutdown)
    }

    /// A freeze of an account.
    fn freeze() -> BatchCommand {
        let command = Command::Account { account_id: Uuid::nil(), command: AccountCommand::Freeze { reason: None } };
        BatchCommand { request: Request::Command(command), context: context() }
    }

    fn context() -> CommandContext {
        CommandContext {
            caller: "ada".into(),
            access: AccountAccess::Any,
            visibility: AccountAccess::Any,
            correlation_id: "test".into(),
            causation_id: Uuid::nil(),
            idempotency_key: None,
            if_match: None,
            dry_run: false,
            batch_id: None,
        }
    }

    async fn freeze_account(bank: &Bank) -> Option<Error> {
        let command = Command::Account { account_id: Uuid::nil(), command: AccountCommand::Freeze { reason: None } };
        bank.execute(command, context()).await.err()
    }

    /// Waits until all places are free. It hangs if one is never returned.
    async fn wait_for_all_places(bank: &Bank) {
        let all = async {
            let _ = bank.places.acquire_many(QUEUE_COMMANDS_MAX as u32).await.expect("the places");
            let _ = bank.stream_places.acquire_many(STREAMS_COMMANDS_MAX as u32).await.expect("the places of streams");
        };
        timeout(Duration::from_secs(60), all).await.expect("all places are free");
    }

    #[tokio::test]
    async fn shutdown_refuses_new_commands_and_answers_accepted_ones() {
        let shutdown = CancellationToken::new();
        let (bank, executors) = start_without_database(shutdown.clone());
        let mut accepted = pin!(freeze_account(&bank));
        assert!(poll!(&mut accepted).is_pending());
        shutdown.cancel();
        assert_eq!(freeze_account(&bank).await, Some(Error::Overloaded));
        assert_eq!(accepted.await, Some(Error::StorageUnavailable { reason: "The database cannot be reached." }));
        for executor in executors {
            executor.await.expect("the executor ends without a panic");
        }
        assert!(!bank.is_running());
    }

    #[tokio::test]
    async fn every_place_is_free_after_failed_and_abandoned_batches() {
        let (bank, _executors) = start_without_database(CancellationToken::new());
        let commands = vec![freeze(); 600];
        let results = bank.execute_each(commands.clone()).await.expect("the batch is accepted");
        assert_eq!(results.len(), 600);
        assert!(results.iter().all(|result| matches!(result, Err(Error::StorageUnavailable { .. }))));
        let atomic = bank.execute_atomic(commands.clone(), None, Uuid::nil()).await;
        assert!(matches!(atomic, Err(Error::StorageUnavailable { .. })), "{atomic:?}");
        wait_for_all_places(&bank).await;

        // More commands than one stream may have in flight.
        let mut stream = bank.command_stream();
        let mut outcomes = Vec::new();
        for command in commands.clone() {
            outcomes.push(stream.submit(command).await);
        }
        for outcome in outcomes {
            assert!(matches!(outcome.await, Err(Error::StorageUnavailable { .. })));
        }
        for _ in 0..20 {
            drop(stream.submit(freeze()).await);
        }
        // The client hangs up while its commands wait.
        let mut abandoned = Box::pin(bank.execute_each(commands.clone()));
        assert!(poll!(&mut abandoned).is_pending());
        drop(abandoned);
        let mut abandoned = Box::pin(bank.execute_atomic(commands, None, Uuid::nil()));
        assert!(poll!(&mut abandoned).is_pending());
        drop(abandoned);
        wait_for_all_places(&bank).await;
    }

    #[tokio::test]
    async fn batch_without_places_for_all_its_commands_is_refused_whole() {
        let (bank, _executors) = start_without_database(CancellationToken::new());
        let commands = vec![freeze(); QUEUE_COMMANDS_MAX + 1];
        assert_eq!(bank.execute_each(commands.clone()).await.err(), Some(Error::Overloaded));
        assert_eq!(bank.execute_atomic(commands, None, Uuid::nil()).await.err(), Some(Error::Overloaded));
        assert_eq!(bank.waiting(), 0);
        wait_for_all_places(&bank).await;
    }

    #[tokio::test]
    async fn executors_end_when_the_last_handle_is_dropped() {
        let (bank, executors) = start_without_database(CancellationToken::new());
        drop(bank);
        for executor in executors {
            executor.await.expect("the executor ends without a panic");
        }
    }
}
