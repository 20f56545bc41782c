//! One outcome for each idempotency key: the first one is recorded, and a retry gets it again as far as the caller may see it.

use uuid::Uuid;

use super::{Decision, Failure, partitions_of};
use crate::{
    command::{AccountAccess, CommandContext, Refusal},
    receipt::{Receipt, RecordedOutcome, RecordedRefusal, RefusedBecause},
};
use passbook_domain::{AccountCommand, Command, Rejection, transfer::Side};
use passbook_event_store::log::{Key, KeyId};

impl Decision<'_> {
    /// Decides a command unless its key has an outcome already; the flag is `true` if it has. The key is checked before the state
    /// and `If-Match`: a retry is a replay in every state of the account.
    pub(super) fn decide_once(
        &mut self,
        command: &Command,
        context: &CommandContext,
    ) -> (Result<Receipt, Failure>, bool) {
        let Some((id, key)) = context.key().zip(context.idempotency_key.as_ref()) else {
            let result = self.execute(command, context);
            return (result.and_then(|receipt| self.redact_receipt(receipt, command, context)), false);
        };
        let (home, _) = partitions_of(command, self.partitions);
        let id = (home, id);
        match self.first_outcome(&id, &key.fingerprint) {
            Ok(Some(outcome)) => (self.replay(outcome, command, context), true),
            Ok(None) => (self.execute_once(id, key.fingerprint, command, context), false),
            Err(failure) => (Err(failure), false),
        }
    }

    /// Executes a command and records its outcome, a receipt or a refusal, under its key.
    fn execute_once(
        &mut self,
        id: (i16, KeyId),
        fingerprint: [u8; 32],
        command: &Command,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        let result = self.execute(command, context);
        let outcome = match &result {
            Ok(receipt) => RecordedOutcome::Succeeded(receipt.clone()),
            Err(Failure::Refused(reason, side)) => {
                let refusal = self.recorded_refusal((*reason, *side), command, context);
                RecordedOutcome::Refused(refusal.ok_or(Failure::Internal)?)
            }
            Err(failure @ (Failure::ChangedHistory | Failure::Internal)) => return Err(*failure),
        };
        let receipt = serde_json::to_string(&outcome).map_err(|_| Failure::Internal)?;
        let append = self.append_to(id.0)?;
        append.keys_to_check.push(id.1.clone());
        append.keys.push(Key { id: id.1.clone(), fingerprint: fingerprint.to_vec(), receipt });
        self.new_outcomes.insert(id, (outcome, fingerprint));
        result.and_then(|receipt| self.redact_receipt(receipt, command, context))
    }

    /// The recorded form of a refusal. `None` for a reused key, which belongs to another request.
    fn recorded_refusal(
        &self,
        (reason, side): (Refusal, Side),
        command: &Command,
        context: &CommandContext,
    ) -> Option<RecordedRefusal> {
        let refused = match reason {
            Refusal::Rejected(rejection) => RefusedBecause::Rejected(rejection),
            Refusal::NotVisible => RefusedBecause::Rejected(Rejection::AccountNotFound),
            Refusal::VersionMismatch { current } => RefusedBecause::VersionMismatch { current },
            Refusal::KeyReused => return None,
        };
        let mut accounts = command.accounts();
        let account_id = accounts.next()?;
        let saw_receiver = accounts.next().map_or(Ok(false), |other| self.can_see(other, context)).ok()?;
        Some(RecordedRefusal { account_id, refused, saw_receiver, side })
    }

    /// The outcome under this key, from the log or from an earlier command of the batch.
    fn first_outcome(&self, id: &(i16, KeyId), fingerprint: &[u8; 32]) -> Result<Option<RecordedOutcome>, Failure> {
        if let Some(recorded) = self.basis.recorded_keys.get(id) {
            return recorded_outcome(recorded, fingerprint).map(Some);
        }
        match self.new_outcomes.get(id) {
            Some((outcome, first)) if first == fingerprint => Ok(Some(outcome.clone())),
            Some(_) => Err(Refusal::KeyReused.into()),
            None => Ok(None),
        }
    }

    /// A recorded outcome, as far as the caller may see the accounts now.
    fn replay(
        &self,
        outcome: RecordedOutcome,
        command: &Command,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        let refusal = match outcome {
            RecordedOutcome::Succeeded(receipt) => return self.redact_receipt(receipt, command, context),
            RecordedOutcome::Refused(refusal) => refusal,
        };
        // The HTTP layer has checked that the caller may choose the id of an account.
        if !is_opening(command) {
            let (account_id, counterparty) = both_accounts(command)?;
            self.visible_account(account_id, context)?;
            if let Some(counterparty) = counterparty
                && refusal.saw_receiver
                && !self.can_see(counterparty, context)?
            {
                return Err(Failure::Refused(Rejection::AccountNotFound.into(), Side::Receiver));
            }
        }
        let reason = match refusal.refused {
            RefusedBecause::Rejected(rejection) => Refusal::Rejected(rejection),
            RefusedBecause::VersionMismatch { current } => Refusal::VersionMismatch { current },
        };
        Err(Failure::Refused(reason, refusal.side))
    }

    fn can_see(&self, account_id: Uuid, context: &CommandContext) -> Result<bool, Failure> {
        Ok(context.can_see(&self.account(account_id)?.account))
    }

    /// The receipt as far as the caller may see the accounts now; the caller's access may have changed since the recording.
    fn redact_receipt(
        &self,
        receipt: Receipt,
        command: &Command,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        // The HTTP layer has checked that the caller may open accounts for this owner.
        if context.visibility == AccountAccess::Any || is_opening(command) {
            return Ok(receipt);
        }
        let (account_id, counterparty) = both_accounts(command)?;
        self.visible_account(account_id, context)?;
        match counterparty {
            Some(other) if !context.shows(&self.account(other)?.account) => Ok(receipt.without_receiver(other)),
            Some(_) | None => Ok(receipt),
        }
    }
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
