//! The write side: commands become events. [`Bank::execute`] puts a command into the queue of its partition and waits for the
//! result. Each partition has one executor, which decides and appends the waiting commands in batches.
//!
//! A command passes through `executor` (queue, batches, retries), `appender` (optimistic or locked append, `account_cache`) and
//! `decide_batch` (pure decisions), and ends as a [`Receipt`].

mod account_cache;
mod append_outcome;
mod appender;
mod clock;
mod command;
mod command_stats;
mod decide_batch;
mod executor;
mod history;
mod hold_expiry;
mod hold_receipt;
mod key_deletion;
mod outage;
mod receipt;
mod reversal_lookup;
mod state_rebuild;
mod storage_error;
mod unsupported_event;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};
use uuid::Uuid;

use self::{
    command::PendingCommand,
    command_stats::CommandStats,
    executor::{Executor, Shared},
    reversal_lookup::ReversalLookup,
    state_rebuild::RebuildContext,
    storage_error::CHANGED_HISTORY,
    unsupported_event::UnsupportedEventGate,
};
use passbook_domain::Command;
use passbook_event_store::{Partitions, PrimaryConnector, StreamVersion, timestamp};
use passbook_telemetry::{supervision, trace::TARGET};

pub use command::{AccountAccess, CommandContext, CommandOutcome, Error, IdempotencyKey, IfMatch, Refusal, Refused};
pub use command_stats::CommandStatsBucket;
pub use executor::Settings;
pub use hold_expiry::{DueHolds, HoldExpiry};
pub use hold_receipt::HoldReceipt;
pub use key_deletion::KeyDeletion;
pub use receipt::{
    AccountReceipt, Counterparty, HiddenAccount, Receipt, RecordedFact, RecordedOutcome, RecordedRefusal,
    RefusedBecause, TransferReceipt,
};
pub use reversal_lookup::Reversal;

/// How many commands may wait in one queue. More are answered [`Error::Overloaded`] at once.
pub const QUEUE_COMMANDS_MAX: usize = 4096;
/// How often the movement of a reversal is read, if the log has another event at its version when the reversal is decided.
const REVERSAL_ATTEMPTS_MAX: usize = 3;

/// The handle to the executors, cheap to clone.
#[derive(Clone)]
pub struct Bank {
    partitions: Partitions,
    /// One queue for each partition, then, if there are several partitions, one for commands that span partitions.
    queues: Arc<[PartitionQueue]>,
    command_timeout: Duration,
    stats: Arc<CommandStats>,
    reversals: ReversalLookup,
    shutdown: CancellationToken,
}

/// The queue of one executor, and the executor's state.
struct PartitionQueue {
    commands: mpsc::Sender<PendingCommand>,
    /// Why the executor cannot append; `None` if it can.
    outage: watch::Receiver<Option<&'static str>>,
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank").finish_non_exhaustive()
    }
}

impl Bank {
    /// Starts one executor for each partition and, if there are several partitions, one more for commands that span partitions.
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
        let Settings { partitions, command_timeout, .. } = settings;
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
            stats: Arc::clone(&stats),
            shutdown: shutdown.clone(),
        };
        let spanning = partitions.is_partitioned().then_some(None);
        let (queues, executors): (Vec<_>, Vec<_>) = partitions
            .all()
            .map(Some)
            .chain(spanning)
            .map(|partition| {
                let (commands, queue) = mpsc::channel(QUEUE_COMMANDS_MAX);
                let (failed, outage) = watch::channel(None);
                let executor = Executor::new(shared.clone(), partition, queue, failed);
                let run = async move {
                    supervision::panic_if_injected("executor");
                    executor.run().await;
                };
                (PartitionQueue { commands, outage }, tokio::spawn(run))
            })
            .unzip();
        (Self { partitions, queues: queues.into(), command_timeout, stats, reversals, shutdown }, executors)
    }

    /// Whether all executors accept commands.
    pub fn is_running(&self) -> bool {
        self.queues.iter().all(|queue| !queue.commands.is_closed())
    }

    /// How many commands wait in all queues.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.commands.max_capacity() - queue.commands.capacity()).sum()
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
        let (response, outcome) = oneshot::channel();
        let span = match Span::current().is_disabled() {
            true => Span::none(),
            false => tracing::info_span!(target: TARGET, "command"),
        };
        let pending = PendingCommand { command, context, response, accepted_at: Instant::now(), span: span.clone() };
        self.accept(pending)?;
        match timeout(self.command_timeout, outcome).instrument(span).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown),
        }
    }

    /// Pays back a movement, which is first read from the log. Otherwise as [`Self::execute`].
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn reverse(&self, reversal: Reversal, context: CommandContext) -> Result<CommandOutcome, Error> {
        let changed = Error::StorageUnavailable { reason: CHANGED_HISTORY };
        for _ in 0..REVERSAL_ATTEMPTS_MAX {
            let command =
                self.reversals.command(reversal.clone()).await.map_err(|error| match (error, self.outage()) {
                    // During an outage the reversals wait for a database that does not answer.
                    (Error::Overloaded, Some(reason)) => Error::StorageUnavailable { reason },
                    (error, _) => error,
                })?;
            let result = self.execute(command, context.clone()).await;
            if result.as_ref().err() != Some(&changed) {
                return result;
            }
            // The event was recorded meanwhile, or the connection leads to a former primary.
            self.reversals.close_connections();
        }
        tracing::warn!("movement to reverse differs in the log");
        Err(changed)
    }

    /// Puts a command into its queue.
    fn accept(&self, pending: PendingCommand) -> Result<(), Error> {
        if self.shutdown.is_cancelled() {
            return Err(Error::Overloaded);
        }
        let at = match decide_batch::partitions_of(&pending.command, self.partitions) {
            (home, None) => home,
            (_, Some(_)) => self.partitions.count(),
        };
        let queue = usize::try_from(at).ok().and_then(|at| self.queues.get(at)).ok_or(Error::Internal)?;
        queue.commands.try_send(pending).map_err(|_| Error::Overloaded)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use passbook_domain::AccountCommand;
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    /// A bank whose database refuses connections.
    fn start_without_database(shutdown: CancellationToken) -> (Bank, Vec<JoinHandle<()>>) {
        let command_timeout = Duration::from_secs(10);
        let settings = Settings {
            partitions: Partitions::ONE,
            command_timeout,
            snapshot_every: 100,
            cache_accounts: 100,
            clock_skew_max: Duration::from_secs(5),
        };
        let primary = PrimaryConnector::new(vec![PgConnectOptions::new().host("127.0.0.1").port(1)]);
        Bank::start(settings, primary, Arc::default(), Arc::new(watch::Sender::new(None)), shutdown)
    }

    async fn freeze_account(bank: &Bank) -> Option<Error> {
        let command = Command::Account { account_id: Uuid::nil(), command: AccountCommand::Freeze { reason: None } };
        let context = CommandContext {
            caller: "ada".into(),
            access: AccountAccess::Any,
            visibility: AccountAccess::Any,
            correlation_id: "test".into(),
            causation_id: Uuid::nil(),
            idempotency_key: None,
            if_match: None,
            dry_run: false,
        };
        bank.execute(command, context).await.err()
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
    async fn executors_end_when_the_last_handle_is_dropped() {
        let (bank, executors) = start_without_database(CancellationToken::new());
        drop(bank);
        for executor in executors {
            executor.await.expect("the executor ends without a panic");
        }
    }
}
