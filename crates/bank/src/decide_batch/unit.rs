//! What is decided as a whole, and has one outcome under an idempotency key: one command, or the commands of a batch.

use std::{slice, sync::Arc};

use uuid::Uuid;

use super::{Decision, Failure, partitions_of};
use crate::{
    command::IdempotencyKey,
    pending::{AtomicBatch, CommandInContext},
    receipt::{BatchReceipt, Receipt},
};
use passbook_event_store::{Partitions, Position, log::KeyId};

/// One command, or the commands of a batch of which all or none is executed.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    /// At least one.
    pub commands: &'a [CommandInContext],
    pub key: Option<&'a IdempotencyKey>,
    batch_id: Option<Uuid>,
}

/// Why a unit failed, with the index of the command that failed if the unit is a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub failure: Failure,
    pub index: Option<usize>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, index: None }
    }
}

impl<'a> Unit<'a> {
    pub(super) fn command(command: &'a CommandInContext) -> Self {
        let key = command.context.idempotency_key.as_ref();
        Self { commands: slice::from_ref(command), key, batch_id: None }
    }

    pub(super) fn batch(batch: &'a AtomicBatch) -> Self {
        Self { commands: &batch.commands, key: batch.key.as_ref(), batch_id: Some(batch.batch_id) }
    }

    /// The key to look up and to record, with the partition that stores it. A dry run has none.
    pub(super) fn key_id(self, partitions: Partitions) -> Result<Option<(i16, KeyId)>, Failure> {
        let CommandInContext { command, context } = self.first()?;
        Ok(self.key.filter(|_| !context.dry_run).map(|IdempotencyKey { key, .. }| {
            let (partition, _) = partitions_of(command, partitions);
            (partition, KeyId { caller: Arc::clone(&context.caller), key: key.clone() })
        }))
    }

    pub(super) fn is_batch(self) -> bool {
        self.batch_id.is_some()
    }

    /// The first command. The partition of its account stores the key of the unit.
    pub(super) fn first(self) -> Result<&'a CommandInContext, Failure> {
        self.commands.first().ok_or(Failure::Internal)
    }

    /// The commands up to the one with this index in a batch; without an index the first one.
    pub(super) fn up_to(self, index: Option<usize>) -> &'a [CommandInContext] {
        self.commands.get(..=index.unwrap_or(0)).unwrap_or(self.commands)
    }
}

impl Decision<'_> {
    /// Executes all commands of the unit, or none.
    pub(super) fn execute_unit(&mut self, unit: Unit<'_>) -> Result<Receipt, Failed> {
        let Some(batch_id) = unit.batch_id else {
            let CommandInContext { command, context } = unit.first()?;
            return Ok(self.execute(command, context)?);
        };
        self.set_savepoint();
        let execute = |(index, CommandInContext { command, context }): (usize, &CommandInContext)| {
            self.execute(command, context).map_err(|failure| Failed { failure, index: Some(index) })
        };
        let results: Result<Vec<Receipt>, Failed> = unit.commands.iter().enumerate().map(execute).collect();
        // A dry run is undone when its receipts are complete.
        match &results {
            Err(_) => self.roll_back(),
            Ok(_) if unit.first()?.context.dry_run => {}
            Ok(_) => self.savepoint = None,
        }
        let results = results?;
        let position = results.iter().map(Receipt::position).reduce(Position::merge).ok_or(Failure::Internal)?;
        Ok(Receipt::Batch(BatchReceipt { batch_id, position, results }))
    }
}
