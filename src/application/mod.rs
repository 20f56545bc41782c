//! The bank: where commands meet the event store. [`Bank::execute`] hands a command to the executor and awaits its
//! receipt; behind it one task decides and records many commands at a time.

mod batch;
mod executor;
mod failure;
mod newer;
mod pace;
mod passage;
mod receipt;
mod request;

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use tracing::{Instrument, Span};

use self::pace::Pace;
use crate::{
    domain::{Command, Rejection},
    event_store::StreamVersion,
    telemetry::trace::TARGET,
    timestamp,
};

pub use pace::Slice;
pub use receipt::{AccountReceipt, Receipt, Receiver, RecordedFact, TransferReceipt};
pub use request::{IdempotencyKey, IfMatch, Reach, Request};

/// How many commands may wait for the executor. More are answered `Overloaded` at once.
pub const QUEUE_COMMANDS_MAX: usize = 4096;

/// The handle to the executor, cheap to clone.
#[derive(Clone)]
pub struct Bank {
    queue: mpsc::Sender<Pending>,
    command_timeout: Duration,
    outage: watch::Receiver<Option<&'static str>>,
    pace: Arc<Pace>,
}

/// What the bank answers to a command that succeeds.
#[derive(Clone, Debug)]
pub struct Answer {
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
    Unseen,
    /// `If-Match` names another version than the account has.
    #[error("the account is at version {current}")]
    VersionMismatch {
        /// The version the account has.
        current: i64,
    },
    /// The idempotency key stands for another request.
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
    /// The log's partition.
    pub partition: i16,
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
    request: Request,
    answer: oneshot::Sender<Result<Answer, Error>>,
    accepted_at: Instant,
    /// The caller's own, tied to the batch that carries it.
    span: Span,
}

impl Bank {
    /// Starts the executor. It ends when every clone of the handle is dropped and the queue is drained. `appended`
    /// is told the head's position after each batch. `newer` is told of an event that only a newer release can read, by
    /// the executor or by whoever else meets one: nothing is carried out before it can be read.
    pub fn start(
        settings: Settings,
        connect: PgConnectOptions,
        appended: Arc<watch::Sender<i64>>,
        newer: Arc<watch::Sender<Option<StreamVersion>>>,
    ) -> (Self, JoinHandle<()>) {
        let (queue, commands) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let (failed, outage) = watch::channel(None);
        let pace = Arc::new(Pace::new(timestamp::now()));
        let bank = Self { queue, command_timeout: settings.command_timeout, outage, pace: Arc::clone(&pace) };
        let executor = executor::Executor::new(settings, connect, appended, newer, failed, pace);
        (bank, tokio::spawn(executor.run(commands)))
    }

    /// Whether the executor still takes commands.
    pub fn is_running(&self) -> bool {
        !self.queue.is_closed()
    }

    /// How many commands wait.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Why commands cannot be carried out at the moment, if they cannot.
    pub fn outage(&self) -> Option<&'static str> {
        *self.outage.borrow()
    }

    /// How many commands this process has carried out or refused by the state, and in how much time, over the last minutes.
    pub fn pace(&self) -> Vec<Slice> {
        self.pace.slices(timestamp::now())
    }

    /// Carries out `command` and answers once what it rests on is durable. A caller who stops waiting
    /// cancels a command that still waits, and not one that is in a batch.
    pub async fn execute(&self, command: Command, request: Request) -> Result<Answer, Error> {
        let (answer, receipt) = oneshot::channel();
        let span = tracing::info_span!(target: TARGET, "command");
        let pending = Pending { command, request, answer, accepted_at: Instant::now(), span: span.clone() };
        self.queue.try_send(pending).map_err(|_| Error::Overloaded)?;
        match timeout(self.command_timeout, receipt).instrument(span).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown),
        }
    }
}
