//! The bank: where commands meet the event store. [`Bank::execute`] hands a command to the executor and awaits its
//! receipt; behind it one task decides and records many commands at a time.

mod decide_batch;
mod executor;
mod storage_error;
mod account_cache;
mod unsupported_event;
mod command_stats;
mod appender;
mod queue;
mod receipt;
mod command_context;
mod writing;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{Instrument, Span};
use uuid::Uuid;

use self::command_stats::CommandStats;
use passbook_domain::{Command, Rejection};
use passbook_event_store::timestamp;
use passbook_event_store::{Partitions, Primary, StreamVersion};
use passbook_telemetry::trace::TARGET;

pub use command_stats::CommandStatsBucket;
pub use receipt::{AccountReceipt, Receipt, Counterparty, RecordedFact, TransferReceipt};
pub use command_context::{IdempotencyKey, IfMatch, AccountAccess, CommandContext};

/// How many commands may wait for the executor. More are answered `Overloaded` at once.
pub const QUEUE_COMMANDS_MAX: usize = 4096;

/// The handle to the executor, cheap to clone.
#[derive(Clone)]
pub struct Bank {
    partitions: Partitions,
    /// Of each partition, and behind them that of commands over several.
    queues: Arc<[PartitionQueue]>,
    command_timeout: Duration,
    command_stats: Arc<CommandStats>,
}

/// Where commands wait for one executor, and whether it can work.
struct PartitionQueue {
    queue: mpsc::Sender<Pending>,
    outage: watch::Receiver<Option<&'static str>>,
}

/// What the bank answers to a command that succeeds.
#[derive(Clone, Debug)]
pub struct CommandOutcome {
    /// The state after the command and the facts recorded.
    pub receipt: Receipt,
    /// The command was recorded earlier under the same idempotency key; this is the answer it had then.
    pub replayed: bool,
}

/// Why a command has no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The state refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The account is another's. To the caller it is as if there were none.
    #[error("there is no account with this id")]
    NotVisible,
    /// `If-Match` names another version than the account has.
    #[error("the account is at version {current}")]
    VersionMismatch {
        /// The version the account has.
        current: i64,
    },
    /// The idempotency key stands for another context.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The queue is full; nothing was done.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The database is away; nothing was done.
    #[error("the event store cannot be reached")]
    StorageUnavailable,
    /// The command may or may not have been recorded.
    #[error("whether the command was recorded is not known")]
    OutcomeUnknown,
    /// A fault of ours; nothing was done.
    #[error("the command could not be carried out")]
    Internal,
}

/// How the executor works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many partitions the log has.
    pub partitions: Partitions,
    /// How long a caller waits at the most.
    pub command_timeout: Duration,
    /// A snapshot is written when a stream passes a multiple of this many versions.
    pub snapshot_every: i64,
    /// How many folded accounts are held in memory.
    pub cache_accounts: usize,
}

/// A command on its way through the queue.
struct Pending {
    command: Command,
    context: CommandContext,
    answer: oneshot::Sender<Result<CommandOutcome, Error>>,
    accepted_at: Instant,
    /// The caller's own, tied to the batch that carries it.
    span: Span,
}

impl Bank {
    /// Starts the executors: one for each partition, and where there are several one more for commands over several. They
    /// end when every clone of the handle is dropped and the queues are drained. `appended` is told each head's position
    /// after each batch. `newer` is told of an event that only a newer release can read, by
    /// an executor or by whoever else meets one: nothing is carried out before it can be read.
    pub fn start(
        settings: Settings,
        connect: Primary,
        appended: Arc<[Arc<watch::Sender<i64>>]>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let Settings { partitions, command_timeout, .. } = settings;
        let command_stats = Arc::new(CommandStats::new(timestamp::now()));
        let across = partitions.are_several().then_some(None);
        let (mut queues, mut executors) = (Vec::new(), Vec::new());
        for partition in partitions.all().map(Some).chain(across) {
            let (queue, commands) = mpsc::channel(QUEUE_COMMANDS_MAX);
            let (failed, outage) = watch::channel(None);
            let (settings, connect, appended) = (settings.clone(), connect.clone(), Arc::clone(&appended));
            let (newer, command_stats) = (Arc::clone(&newer), Arc::clone(&command_stats));
            let executor = executor::Executor::new(settings, partition, connect, appended, newer, failed, command_stats);
            executors.push(tokio::spawn(executor.run(commands)));
            queues.push(PartitionQueue { queue, outage });
        }
        (Self { partitions, queues: queues.into(), command_timeout, command_stats }, executors)
    }

    /// Whether all executors still take commands.
    pub fn is_running(&self) -> bool {
        self.queues.iter().all(|counter| !counter.queue.is_closed())
    }

    /// How many commands wait.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|counter| counter.queue.max_capacity() - counter.queue.capacity()).sum()
    }

    /// Why commands cannot be carried out at the moment, if some cannot.
    pub fn outage(&self) -> Option<&'static str> {
        self.queues.iter().find_map(|counter| *counter.outage.borrow())
    }

    /// The id of an account that is opened without one. It is where the request's key is looked for, so that a retry, which
    /// brings another id, finds the first answer.
    pub fn new_account_id(&self, context: &CommandContext) -> Uuid {
        match &context.idempotency_key {
            Some(key) => self.partitions.new_id_in(self.partitions.of_key(&context.caller, &key.key)),
            None => Uuid::now_v7(),
        }
    }

    /// The id of a transfer: in the partition of the account that pays, where it is looked for.
    pub fn new_transfer_id(&self, from: Uuid) -> Uuid {
        self.partitions.new_id_in(self.partitions.of(from))
    }

    /// How many commands this process has carried out or refused by the state, and in how much time, over the last minutes.
    pub fn command_stats(&self) -> Vec<CommandStatsBucket> {
        self.command_stats.slices(timestamp::now())
    }

    /// Carries out `command` and answers once what it rests on is durable. A caller who stops waiting
    /// cancels a command that still waits, and not one that is in a batch.
    pub async fn execute(&self, command: Command, context: CommandContext) -> Result<CommandOutcome, Error> {
        let (answer, receipt) = oneshot::channel();
        let span = match Span::current().is_disabled() {
            true => Span::none(),
            false => tracing::info_span!(target: TARGET, "command"),
        };
        let pending = Pending { command, context, answer, accepted_at: Instant::now(), span: span.clone() };
        self.counter(&pending.command)?.queue.try_send(pending).map_err(|_| Error::Overloaded)?;
        match timeout(self.command_timeout, receipt).instrument(span).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown),
        }
    }

    /// Where a command is carried out.
    fn counter(&self, command: &Command) -> Result<&PartitionQueue, Error> {
        let at = match decide_batch::partitions_of(command, self.partitions) {
            (home, None) => home,
            (_, Some(_)) => self.partitions.count(),
        };
        usize::try_from(at).ok().and_then(|at| self.queues.get(at)).ok_or(Error::Internal)
    }
}
