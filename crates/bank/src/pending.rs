//! What waits in the queue of an executor: a command, a batch of which all or none is executed, or a dry run of several commands.

use std::slice;

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tracing::Span;
use uuid::Uuid;

use super::command::{CommandContext, CommandOutcome, Error, IdempotencyKey};
use passbook_domain::{AccountCommand, Command, command::Reverse};

/// The result of a command, or of a batch of which all or none is executed.
pub(super) type CommandResult = Result<CommandOutcome, Error>;

/// The results of an executor's batch: one for each response, in order.
pub(super) type CommandResults = Vec<CommandResult>;

pub(super) type Response = oneshot::Sender<CommandResult>;

/// A command and its context.
#[derive(Clone, Debug)]
pub(super) struct CommandInContext {
    pub command: Command,
    pub context: CommandContext,
}

/// The commands of a batch of which all or none is executed.
pub(super) struct AtomicBatch {
    pub batch_id: Uuid,
    /// At least one.
    pub commands: Vec<CommandInContext>,
    /// The key of the whole batch.
    pub key: Option<IdempotencyKey>,
}

/// The work of one entry of the queue.
pub(super) enum Work {
    /// One command.
    Command(Box<CommandInContext>, Response),
    /// Commands that are executed all or not at all.
    Atomic(AtomicBatch, Response),
    /// Commands of a dry run. Each one is decided on the state that the earlier ones would leave.
    DryRun(Vec<CommandInContext>, Vec<Response>),
}

/// Work that waits in a queue or is part of a batch.
pub(super) struct Pending {
    pub work: Work,
    pub accepted_at: Instant,
    /// The caller's span. It gets a link to the span of the batch.
    pub span: Span,
    /// The places of the commands in the queue. They are free for others as soon as an executor takes the work.
    pub queue_places: Option<OwnedSemaphorePermit>,
    /// The place of the command in its stream until it is answered; `None` if it belongs to no stream.
    pub stream_place: Option<StreamPlace>,
}

/// The place of a command among those of its stream and of all streams that are not answered. Dropping it frees the place.
pub(super) struct StreamPlace {
    #[expect(dead_code, reason = "the permit is only held")]
    pub of_stream: OwnedSemaphorePermit,
    /// `None` if the command has a place among those of other requests.
    pub of_all_streams: Option<OwnedSemaphorePermit>,
}

impl Pending {
    /// The commands, in the order in which they are decided.
    pub(super) fn commands(&self) -> &[CommandInContext] {
        match &self.work {
            Work::Command(command, _) => slice::from_ref(&**command),
            Work::Atomic(batch, _) => &batch.commands,
            Work::DryRun(commands, _) => commands,
        }
    }

    /// The accounts that the commands read and change.
    pub(super) fn accounts(&self) -> impl Iterator<Item = Uuid> {
        self.commands().iter().flat_map(|command| command.command.accounts())
    }

    /// Whether it is a batch with a key. Its receipt may be too large for a response under a lock.
    pub(super) fn is_keyed_batch(&self) -> bool {
        matches!(&self.work, Work::Atomic(AtomicBatch { key: Some(_), .. }, _))
    }

    /// Whether it belongs to a stream without end, and not to a request.
    pub(super) fn is_of_stream(&self) -> bool {
        self.stream_place.as_ref().is_some_and(|place| place.of_all_streams.is_some())
    }

    /// How many results it has.
    pub(super) fn results(&self) -> usize {
        match &self.work {
            Work::Command(..) | Work::Atomic(..) => 1,
            Work::DryRun(_, responses) => responses.len(),
        }
    }

    /// Whether the caller hung up or timed out before the work was taken out of the queue. A command of a stream is executed
    /// nevertheless: later commands of the stream, which may be taken already, rely on it.
    pub(super) fn is_abandoned(&self) -> bool {
        if self.stream_place.is_some() {
            return false;
        }
        match &self.work {
            Work::Command(_, response) | Work::Atomic(_, response) => response.is_closed(),
            Work::DryRun(_, responses) => responses.iter().all(oneshot::Sender::is_closed),
        }
    }

    /// Answers with as many results as there are responses. A send fails if the caller hung up; the command is recorded nevertheless.
    pub(super) fn answer(self, mut results: impl Iterator<Item = CommandResult>) {
        match self.work {
            Work::Command(_, response) | Work::Atomic(_, response) => {
                if let Some(result) = results.next() {
                    let _ = response.send(result);
                }
            }
            Work::DryRun(_, responses) => responses.into_iter().zip(results).for_each(|(response, result)| {
                let _ = response.send(result);
            }),
        }
    }

    /// Answers that the work failed.
    pub(super) fn reject(self, error: &Error) {
        let results = std::iter::repeat_n(Err(error.clone()), self.results());
        self.answer(results);
    }
}

/// Whether a command reverses an event that the log did not have when it was looked up. An earlier command of the batch may record it.
pub(super) fn reverses_unknown_event(command: &Command) -> bool {
    matches!(command, Command::Account { command: AccountCommand::Reverse(Reverse { event_id: None, .. }), .. })
}

#[cfg(test)]
impl Pending {
    /// Work that is accepted now.
    pub(super) fn of_test(work: Work) -> Self {
        let (accepted_at, span) = (Instant::now(), Span::none());
        Self { work, accepted_at, span, queue_places: None, stream_place: None }
    }

    /// A command to each of these accounts: a deposit to one, or a transfer between two. The receiver gets its result.
    pub(super) fn of_accounts(accounts: &[u128]) -> (Self, oneshot::Receiver<CommandResult>) {
        let (response, result) = oneshot::channel();
        (Self::of_test(Work::Command(test_command(accounts).into(), response)), result)
    }
}

/// A deposit to one account, or a transfer between two.
#[cfg(test)]
pub(super) fn test_command(accounts: &[u128]) -> CommandInContext {
    use passbook_domain::{Amount, Transfer, command::Movement, metadata::Metadata};

    let amount = Amount::try_from(1).expect("an amount");
    let movement = Movement { amount, currency: None, reference: None, metadata: Metadata::default() };
    let command = match accounts.iter().copied().map(Uuid::from_u128).collect::<Vec<_>>()[..] {
        [account_id] => Command::Account { account_id, command: AccountCommand::Deposit(movement, None) },
        [from, to] => Command::Transfer(Transfer { transfer_id: Uuid::nil(), from, to, movement }),
        _ => panic!("one account or two"),
    };
    let context = CommandContext {
        caller: "ada".into(),
        access: super::AccountAccess::Any,
        visibility: super::AccountAccess::Any,
        correlation_id: "test".into(),
        causation_id: Uuid::nil(),
        idempotency_key: None,
        if_match: None,
        dry_run: false,
        batch_id: None,
    };
    CommandInContext { command, context }
}
