//! One outcome for each idempotency key: the first one is recorded, and a retry gets it again as far as the caller may see it.

use uuid::Uuid;

use super::{
    About, Decision, Failure,
    unit::{Failed, Unit},
};
use crate::{
    command::{AccountAccess, CommandContext, IdempotencyKey, Refusal},
    pending::CommandInContext,
    receipt::{BatchReceipt, Receipt, RecordedOutcome, RecordedRefusal, RefusedBecause},
};
use passbook_domain::{AccountCommand, Command, Rejection, transfer::Side};
use passbook_event_store::log::{Key, KeyId};

impl Decision<'_> {
    /// Decides a unit unless its key has an outcome already; the flag is `true` if it has. The key is checked before the state
    /// and `If-Match`: a retry is a replay in every state of the account.
    pub(super) fn decide_once(&mut self, unit: Unit<'_>) -> (Result<Receipt, Failed>, bool) {
        let id = match self.key_of(unit) {
            Ok(None) => {
                let result = self.execute_unit(unit);
                return (result.and_then(|receipt| self.redact_receipt(receipt, unit)), false);
            }
            Ok(Some(id)) => id,
            Err(failure) => return (Err(failure.into()), false),
        };
        match self.first_outcome(&id) {
            Ok(Some(outcome)) => (self.replay(outcome, unit), true),
            Ok(None) => (self.execute_once(id, unit), false),
            Err(failure) => (Err(failure.into()), false),
        }
    }

    /// The key to look up and to record. A dry run has none.
    fn key_of<'k>(&self, unit: Unit<'k>) -> Result<Option<KeyInPartition<'k>>, Failure> {
        let id = unit.key_id(self.partitions)?;
        Ok(id.zip(unit.key).map(|(id, IdempotencyKey { fingerprint, .. })| KeyInPartition { id, fingerprint }))
    }

    /// Executes a unit and records its outcome, a receipt or a refusal, under its key.
    fn execute_once(&mut self, key: KeyInPartition<'_>, unit: Unit<'_>) -> Result<Receipt, Failed> {
        let KeyInPartition { id, fingerprint } = key;
        let result = self.execute_unit(unit);
        let outcome = match &result {
            Ok(receipt) => RecordedOutcome::Succeeded(receipt.clone()),
            Err(Failed { failure: Failure::Refused(reason, about), index }) => {
                let refusal = self.recorded_refusal((*reason, *about), *index, unit);
                RecordedOutcome::Refused(refusal.ok_or(Failure::Internal)?)
            }
            Err(failed @ Failed { failure: Failure::ChangedHistory | Failure::Internal, .. }) => return Err(*failed),
        };
        let receipt = serde_json::to_string(&outcome).map_err(|_| Failure::Internal)?;
        let append = self.append_to(id.0)?;
        append.keys_to_check.push(id.1.clone());
        append.keys.push(Key { id: id.1.clone(), fingerprint: fingerprint.to_vec(), receipt });
        self.new_outcomes.insert(id, (outcome, *fingerprint));
        result.and_then(|receipt| self.redact_receipt(receipt, unit))
    }

    /// The recorded form of a refusal. `None` for a reused key, which belongs to another request.
    fn recorded_refusal(
        &self,
        (reason, about): (Refusal, About),
        index: Option<usize>,
        unit: Unit<'_>,
    ) -> Option<RecordedRefusal> {
        let refused = match reason {
            Refusal::Rejected(rejection) => RefusedBecause::Rejected(rejection),
            Refusal::NotVisible => RefusedBecause::Rejected(Rejection::AccountNotFound),
            Refusal::VersionMismatch { current } => RefusedBecause::VersionMismatch { current },
            Refusal::KeyReused => return None,
        };
        let account_id = unit.first().ok()?.command.accounts().next()?;
        let CommandInContext { command, context } = unit.up_to(index).last()?;
        let receiver = command.accounts().nth(1);
        let saw_receiver = receiver.map_or(Ok(false), |other| self.can_see(other, context)).ok()?;
        let (side, about) = match about {
            About::Side(side) => (side, None),
            About::Account(account_id) => (Side::Sender, Some(account_id)),
        };
        Some(RecordedRefusal { account_id, refused, index, saw_receiver, side, about })
    }

    /// The outcome under this key, from the log or from an earlier command of the batch.
    fn first_outcome(&self, key: &KeyInPartition<'_>) -> Result<Option<RecordedOutcome>, Failure> {
        if let Some(recorded) = self.basis.recorded_keys.get(&key.id) {
            return recorded_outcome(recorded, key.fingerprint).map(Some);
        }
        match self.new_outcomes.get(&key.id) {
            Some((outcome, first)) if first == key.fingerprint => Ok(Some(outcome.clone())),
            Some(_) => Err(Refusal::KeyReused.into()),
            None => Ok(None),
        }
    }

    /// A recorded outcome, as far as the caller may see the accounts now.
    fn replay(&self, outcome: RecordedOutcome, unit: Unit<'_>) -> Result<Receipt, Failed> {
        let refusal = match outcome {
            RecordedOutcome::Succeeded(receipt) => return self.redact_receipt(receipt, unit),
            RecordedOutcome::Refused(refusal) => refusal,
        };
        let index = refusal.index;
        let CommandInContext { command, context } = unit.up_to(index).last().ok_or(Failure::Internal)?;
        let failure = match self.replay_refusal(refusal, command, context) {
            Ok(failure) | Err(failure) => failure,
        };
        Err(Failed { failure, index })
    }

    /// A recorded refusal, or another one if the caller may no longer see the accounts.
    fn replay_refusal(
        &self,
        refusal: RecordedRefusal,
        command: &Command,
        context: &CommandContext,
    ) -> Result<Failure, Failure> {
        // The HTTP layer has checked that the caller may choose the id of an account.
        if !is_opening(command) {
            let (account_id, counterparty) = both_accounts(command)?;
            self.visible_account(account_id, context)?;
            if let Some(counterparty) = counterparty
                && refusal.saw_receiver
                && !self.can_see(counterparty, context)?
            {
                return Err(Failure::Refused(Rejection::AccountNotFound.into(), About::Side(Side::Receiver)));
            }
        }
        let reason = match refusal.refused {
            RefusedBecause::Rejected(rejection) => Refusal::Rejected(rejection),
            RefusedBecause::VersionMismatch { current } => Refusal::VersionMismatch { current },
        };
        Ok(Failure::Refused(reason, refusal.about.map_or(About::Side(refusal.side), About::Account)))
    }

    fn can_see(&self, account_id: Uuid, context: &CommandContext) -> Result<bool, Failure> {
        Ok(context.can_see(&self.account(account_id)?.account))
    }

    /// The receipt as far as the caller may see the accounts now; the caller's access may have changed since the recording.
    fn redact_receipt(&self, receipt: Receipt, unit: Unit<'_>) -> Result<Receipt, Failed> {
        let Receipt::Batch(batch) = receipt else { return Ok(self.redact_command(receipt, unit.first()?)?) };
        let redact = |(index, (receipt, command))| {
            self.redact_command(receipt, command).map_err(|failure| Failed { failure, index: Some(index) })
        };
        let results: Result<Vec<Receipt>, Failed> =
            batch.results.into_iter().zip(unit.commands).enumerate().map(redact).collect();
        Ok(Receipt::Batch(BatchReceipt { results: results?, ..batch }))
    }

    fn redact_command(
        &self,
        receipt: Receipt,
        CommandInContext { command, context }: &CommandInContext,
    ) -> Result<Receipt, Failure> {
        // The HTTP layer has checked that the caller may open accounts for this owner.
        if context.visibility == AccountAccess::Any || is_opening(command) {
            return Ok(receipt);
        }
        let (account_id, _) = both_accounts(command)?;
        self.visible_account(account_id, context)?;
        // The receipt says which other account changed: that of a transfer which an earlier command of the batch has recorded is not
        // known from the command that reverses it.
        let other = match &receipt {
            Receipt::Transfer(transfer) => transfer.other_than(account_id),
            Receipt::Account(_) | Receipt::Batch(_) => return Ok(receipt),
        };
        match self.account(other) {
            Ok(account) if context.shows(&account.account) => Ok(receipt),
            Ok(_) | Err(_) => Ok(receipt.without_receiver(other)),
        }
    }
}

/// An idempotency key, with the partition that stores it and the fingerprint of the request.
struct KeyInPartition<'k> {
    id: (i16, KeyId),
    fingerprint: &'k [u8; 32],
}

fn is_opening(command: &Command) -> bool {
    matches!(command, Command::Account { command: AccountCommand::Open { .. }, .. })
}

/// The account that the request names, and the other one if the command changes two.
fn both_accounts(command: &Command) -> Result<(Uuid, Option<Uuid>), Failure> {
    let mut accounts = command.accounts();
    Ok((accounts.next().ok_or(Failure::Internal)?, accounts.next()))
}

fn recorded_outcome(recorded: &Key, fingerprint: &[u8; 32]) -> Result<RecordedOutcome, Failure> {
    if recorded.fingerprint != fingerprint {
        return Err(Refusal::KeyReused.into());
    }
    serde_json::from_str(&recorded.receipt).map_err(|error| {
        tracing::error!(%error, "recorded outcome cannot be parsed; the command fails");
        Failure::Internal
    })
}
