//! Batches of commands that one request sends.

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::{
    Bank, REVERSAL_ATTEMPTS_MAX,
    command::{CommandContext, CommandOutcome, Error, IdempotencyKey},
    command_stream::{CommandStream, PendingOutcome},
    has_changed_history,
    pending::{AtomicBatch, CommandInContext, CommandResult, Work, reverses_unknown_event},
    reversal_lookup::Reversal,
    storage_error::CHANGED_HISTORY,
};
use passbook_domain::Command;

/// How many commands a batch has at most of which all or none is executed.
pub const ATOMIC_COMMANDS_MAX: usize = 1_000;

/// What a command of a batch asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// A command.
    Command(Command),
    /// A reversal, whose movement is first read from the log. It may also be a movement of an earlier command of the batch.
    Reversal(Reversal),
}

/// A command of a batch, and its context.
#[derive(Clone, Debug)]
pub struct BatchCommand {
    /// What the command asks for.
    pub request: Request,
    /// Its context. `If-Match` does not apply to batches.
    pub context: CommandContext,
}

impl Bank {
    /// Executes all commands in one transaction, or none. The receipt is a [`BatchReceipt`](super::BatchReceipt). `key` is that of the
    /// whole batch.
    ///
    /// # Errors
    /// As [`Self::execute`]. A refusal is that of the first command that failed, with its index.
    pub async fn execute_atomic(
        &self,
        commands: Vec<BatchCommand>,
        key: Option<IdempotencyKey>,
        batch_id: Uuid,
    ) -> Result<CommandOutcome, Error> {
        for _ in 0..REVERSAL_ATTEMPTS_MAX {
            let batch = AtomicBatch { batch_id, commands: self.look_up_all(&commands).await?, key: key.clone() };
            let places = self.take_places(commands.len())?;
            let result = self.enqueue(|response| Work::Atomic(batch, response), Some(places), None).await;
            if !has_changed_history(&result) {
                return result;
            }
        }
        Err(Error::StorageUnavailable { reason: CHANGED_HISTORY })
    }

    /// Executes every command by itself, in order: each one sees what the earlier ones changed. The result has one element for each
    /// command.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if there are too many commands in the queues, or the error of the first reversal whose movement cannot be
    /// read. Nothing was done then.
    pub async fn execute_each(&self, commands: Vec<BatchCommand>) -> Result<Vec<CommandResult>, Error> {
        if commands.iter().any(|command| command.context.dry_run) {
            return self.dry_run(commands).await;
        }
        let commands = self.look_up_recorded(commands).await?;
        let places = self.take_places(commands.len())?;
        let mut stream = CommandStream::of_batch(self.clone(), places);
        let mut outcomes: Vec<PendingOutcome> = Vec::with_capacity(commands.len());
        for command in commands {
            outcomes.push(stream.submit(command).await);
        }
        drop(stream);
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            results.push(outcome.await);
        }
        Ok(results)
    }

    /// Executes the commands of a dry run.
    async fn dry_run(&self, commands: Vec<BatchCommand>) -> Result<Vec<CommandResult>, Error> {
        for _ in 0..REVERSAL_ATTEMPTS_MAX {
            let found = self.look_up_all(&commands).await?;
            let places = self.take_places(commands.len())?;
            let results = self.dry_run_once(found, places).await;
            if !results.iter().any(has_changed_history) {
                return Ok(results);
            }
        }
        Err(Error::StorageUnavailable { reason: CHANGED_HISTORY })
    }

    async fn dry_run_once(&self, commands: Vec<CommandInContext>, places: OwnedSemaphorePermit) -> Vec<CommandResult> {
        let (responses, outcomes): (Vec<_>, Vec<_>) = commands.iter().map(|_| oneshot::channel()).unzip();
        let sent = self.send(Work::DryRun(commands, responses), Some(places), None);
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            results.push(self.pending_outcome(&sent, outcome).await);
        }
        results
    }

    /// The commands, with the reversals of movements that are in the log replaced by their commands. The other movements may be those
    /// of earlier commands.
    async fn look_up_recorded(&self, mut commands: Vec<BatchCommand>) -> Result<Vec<BatchCommand>, Error> {
        for BatchCommand { request, .. } in &mut commands {
            if let Request::Reversal(reversal) = request {
                let command = self.look_up(reversal.clone()).await?;
                if !reverses_unknown_event(&command) {
                    *request = Request::Command(command);
                }
            }
        }
        Ok(commands)
    }

    async fn look_up_all(&self, commands: &[BatchCommand]) -> Result<Vec<CommandInContext>, Error> {
        let mut found = Vec::with_capacity(commands.len());
        for BatchCommand { request, context } in commands {
            let command = match request {
                Request::Command(command) => command.clone(),
                Request::Reversal(reversal) => self.look_up(reversal.clone()).await?,
            };
            found.push(CommandInContext { command, context: context.clone() });
        }
        Ok(found)
    }
}
