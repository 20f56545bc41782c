//! Executes the commands of one client in order, with several in flight: their results are awaited while further ones are sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, Sleep, sleep_until},
};
use tracing::Span;

use super::{
    Bank, REVERSAL_ATTEMPTS_MAX,
    batch::{BatchCommand, Request},
    command::{CommandContext, Error},
    has_changed_history,
    pending::{CommandInContext, CommandResult, StreamPlace, Work, reverses_unknown_event},
    reversal_lookup::Reversal,
    storage_error::CHANGED_HISTORY,
};
use passbook_domain::Command;

/// How many commands of one stream are in flight.
pub const STREAM_COMMANDS_MAX: usize = 512;
/// How many commands of all streams are in flight. Further ones wait.
pub(super) const STREAMS_COMMANDS_MAX: usize = 1_024;

/// Executes commands in the order in which they are submitted: each one sees what the earlier ones changed.
#[derive(Debug)]
pub struct CommandStream {
    bank: Bank,
    /// One permit for each command that may be in flight.
    window: Arc<Semaphore>,
    commands_max: u32,
    /// The places that a batch took before; `None`: each command waits for a place among those of all streams.
    queue_places: Option<OwnedSemaphorePermit>,
    /// Whether the last command spans the partitions of several executors.
    is_spanning: bool,
}

/// The result of a command that was submitted. Dropping it does not cancel the command.
#[derive(Debug)]
pub struct PendingOutcome(State);

#[derive(Debug)]
enum State {
    Ready(Option<CommandResult>),
    Waiting { outcome: oneshot::Receiver<CommandResult>, timeout: Pin<Box<Sleep>>, span: Span },
}

impl Bank {
    /// A stream of commands.
    pub fn command_stream(&self) -> CommandStream {
        CommandStream::new(self.clone(), STREAM_COMMANDS_MAX as u32, None)
    }
}

impl CommandStream {
    /// The stream of a batch, which has taken a place in the queues for each of its commands.
    pub(super) fn of_batch(bank: Bank, places: OwnedSemaphorePermit) -> Self {
        let commands_max = u32::try_from(places.num_permits()).unwrap_or(u32::MAX);
        Self::new(bank, commands_max, Some(places))
    }

    fn new(bank: Bank, commands_max: u32, queue_places: Option<OwnedSemaphorePermit>) -> Self {
        let window = Arc::new(Semaphore::new(commands_max as usize));
        Self { bank, window, commands_max, queue_places, is_spanning: false }
    }

    /// Waits until fewer than [`STREAM_COMMANDS_MAX`] commands of this stream are in flight, and not too many of all streams. Then it
    /// puts the command into its queue.
    pub async fn submit(&mut self, command: BatchCommand) -> PendingOutcome {
        let BatchCommand { request, context } = command;
        let command = match request {
            Request::Command(command) => command,
            Request::Reversal(reversal) => match self.bank.look_up(reversal.clone()).await {
                // An earlier command of this stream may record the movement.
                Ok(command) if reverses_unknown_event(&command) => {
                    return PendingOutcome::ready(self.reverse(reversal, context).await);
                }
                Ok(command) => command,
                Err(error) => return PendingOutcome::ready(Err(error)),
            },
        };
        self.enqueue(command, context).await
    }

    /// Reverses a movement after all earlier commands.
    async fn reverse(&mut self, reversal: Reversal, context: CommandContext) -> CommandResult {
        for _ in 0..REVERSAL_ATTEMPTS_MAX {
            self.wait_for_earlier().await;
            let command = self.bank.look_up(reversal.clone()).await?;
            let result = self.enqueue(command, context.clone()).await.await;
            if !has_changed_history(&result) {
                return result;
            }
        }
        Err(Error::StorageUnavailable { reason: CHANGED_HISTORY })
    }

    async fn enqueue(&mut self, command: Command, context: CommandContext) -> PendingOutcome {
        let command = CommandInContext { command, context };
        self.keep_order(&command).await;
        match self.take_place().await {
            Some((queue_place, place)) => {
                self.bank.enqueue(|response| Work::Command(command.into(), response), queue_place, Some(place))
            }
            None => PendingOutcome::ready(Err(Error::Internal)),
        }
    }

    /// A place in the queue if the batch took it before, and a place in this stream.
    async fn take_place(&mut self) -> Option<(Option<OwnedSemaphorePermit>, StreamPlace)> {
        let of_stream = Arc::clone(&self.window).acquire_owned().await.ok()?;
        Some(match &mut self.queue_places {
            Some(places) => (places.split(1), StreamPlace { of_stream, of_all_streams: None }),
            None => {
                let of_all_streams = Arc::clone(&self.bank.stream_places).acquire_owned().await.ok();
                (None, StreamPlace { of_stream, of_all_streams })
            }
        })
    }

    /// Waits until no command of this stream is in flight if either this command or the last one spans partitions: the executor of
    /// such commands runs beside those of single partitions, and may change the same account.
    async fn keep_order(&mut self, command: &CommandInContext) {
        let is_spanning = self.bank.is_spanning(command);
        if is_spanning != self.is_spanning {
            self.wait_for_earlier().await;
        }
        self.is_spanning = is_spanning;
    }

    /// Waits until no command of this stream is in flight.
    async fn wait_for_earlier(&self) {
        // An error means that the semaphore is closed, which never happens.
        let _ = self.window.acquire_many(self.commands_max).await;
    }
}

impl PendingOutcome {
    pub(super) fn ready(result: CommandResult) -> Self {
        Self(State::Ready(Some(result)))
    }

    pub(super) fn waiting(outcome: oneshot::Receiver<CommandResult>, until: Instant, span: Span) -> Self {
        Self(State::Waiting { outcome, timeout: Box::pin(sleep_until(until)), span })
    }
}

impl Future for PendingOutcome {
    type Output = CommandResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CommandResult> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().unwrap_or(Err(Error::Internal))),
            State::Waiting { outcome, timeout, span } => {
                let _entered = span.enter();
                match Pin::new(outcome).poll(cx) {
                    Poll::Ready(Ok(result)) => Poll::Ready(result),
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Error::OutcomeUnknown)),
                    Poll::Pending => timeout.as_mut().poll(cx).map(|()| Err(Error::OutcomeUnknown)),
                }
            }
        }
    }
}
