//! Executes one command of a batch: checks who may change the account, lets the domain decide, and folds the events.

use std::borrow::Cow;

use uuid::Uuid;

use super::{About, Decision, Failure};
use crate::{
    account_cache::CachedAccount,
    command::{CommandContext, Refusal},
    history::{captured_or_voided_hold, reversed_movement},
    hold_receipt::HoldReceipt,
    receipt::{AccountReceipt, Counterparty, Receipt, TransferReceipt},
};
use passbook_domain::{
    AccountCommand, Amount, Command, Event, Rejection, Transfer,
    command::{CaptureTo, ReverseTransfer},
    reversal, transfer,
};
use passbook_event_store::{StreamVersion, log};

/// The money that moved between two accounts.
struct MovedMoney {
    transfer_id: Uuid,
    amount: Amount,
}

impl Decision<'_> {
    pub(super) fn execute(&mut self, command: &Command, context: &CommandContext) -> Result<Receipt, Failure> {
        if !self.basis.history.confirms(command) {
            return Err(Failure::ChangedHistory);
        }
        match self.reversal_in_batch(command) {
            None => self.execute_found(command, context),
            Some(found) => self.execute_found(&found, context).map_err(|failure| match failure {
                // The account on this side of the command that was found; the request may name the other one.
                Failure::Refused(reason, about) => Failure::Refused(reason, About::Account(about.account_id(&found))),
                Failure::ChangedHistory | Failure::Internal => failure,
            }),
        }
    }

    /// Executes a command that has the movement that it reverses.
    fn execute_found(&mut self, command: &Command, context: &CommandContext) -> Result<Receipt, Failure> {
        match &*self.with_history(command) {
            Command::Account { account_id, command } => {
                self.execute_account_command(*account_id, command, context).map(Receipt::Account)
            }
            Command::Transfer(transfer) => self.execute_transfer(transfer, context),
            Command::CaptureTo(capture) => self.execute_capture(capture, context),
            Command::ReverseTransfer(reverse) => self.execute_transfer_reversal(reverse, context),
        }
    }

    /// The command with the data of earlier events that its decision needs: the sum reversed of its movement, or whether its
    /// hold was placed.
    fn with_history<'c>(&self, command: &'c Command) -> Cow<'c, Command> {
        let hold = captured_or_voided_hold(command);
        let was_placed = hold.is_some_and(|(account_id, hold_id)| self.basis.history.was_placed(account_id, hold_id));
        let last = reversed_movement(command).and_then(|movement| self.last_reversal(movement));
        if !was_placed && last.is_none() {
            return Cow::Borrowed(command);
        }
        let sum = last.map_or(0, |last| last.reversed);
        let mut command = command.clone();
        match &mut command {
            Command::Account { command, .. } => match command {
                AccountCommand::CaptureHold(capture) => capture.was_placed = was_placed,
                AccountCommand::VoidHold { was_placed: placed, .. } => *placed = was_placed,
                AccountCommand::Reverse(reverse) => reverse.reversed = sum,
                AccountCommand::Open { .. }
                | AccountCommand::Deposit(..)
                | AccountCommand::Withdraw(..)
                | AccountCommand::PlaceHold(_)
                | AccountCommand::ReleaseExpired { .. }
                | AccountCommand::SetLimits(_)
                | AccountCommand::Freeze { .. }
                | AccountCommand::Unfreeze { .. }
                | AccountCommand::Close { .. } => {}
            },
            Command::CaptureTo(CaptureTo { capture, .. }) => capture.was_placed = was_placed,
            Command::ReverseTransfer(reverse) => reverse.reversed = sum,
            Command::Transfer(_) => {}
        }
        Cow::Owned(command)
    }

    /// The last reversal of a movement, after the earlier commands of the batch.
    pub(super) fn last_reversal(&self, movement: StreamVersion) -> Option<log::Reversal> {
        self.reversals.get(&movement).copied().or_else(|| self.basis.history.last_reversal(movement))
    }

    fn execute_account_command(
        &mut self,
        account_id: Uuid,
        command: &AccountCommand,
        context: &CommandContext,
    ) -> Result<AccountReceipt, Failure> {
        let current = match command {
            AccountCommand::Open { .. } if self.is_other_aggregate(account_id) => {
                return Err(Rejection::AccountExists.into());
            }
            AccountCommand::Open { .. } => self.account(account_id)?,
            AccountCommand::Deposit(..)
            | AccountCommand::Withdraw(..)
            | AccountCommand::PlaceHold(_)
            | AccountCommand::CaptureHold(_)
            | AccountCommand::VoidHold { .. }
            | AccountCommand::ReleaseExpired { .. }
            | AccountCommand::Reverse(_)
            | AccountCommand::SetLimits(_)
            | AccountCommand::Freeze { .. }
            | AccountCommand::Unfreeze { .. }
            | AccountCommand::Close { .. } => self.visible_account(account_id, context)?,
        };
        let decided = current.account.decide(command, self.now);
        let events = checked_version(&current, context, decided, |refusal| refusal)?;
        self.record(account_id, &events, context)
    }

    fn execute_transfer(&mut self, transfer: &Transfer, context: &CommandContext) -> Result<Receipt, Failure> {
        let sender = self.visible_account(transfer.from, context)?;
        let receiver = self.account(transfer.to)?;
        let decide =
            if context.can_see(&receiver.account) { transfer::decide } else { transfer::decide_hidden_receiver };
        let (sent, received) = decide(&sender.account, &receiver.account, transfer, self.now)?;
        let moved = MovedMoney { transfer_id: transfer.transfer_id, amount: transfer.movement.amount };
        self.record_both((transfer.from, &sent), (transfer.to, &received), moved, context)
    }

    fn execute_capture(&mut self, capture: &CaptureTo, context: &CommandContext) -> Result<Receipt, Failure> {
        let sender = self.visible_account(capture.from, context)?;
        let receiver = self.account(capture.to)?;
        let decided = transfer::decide_capture(&sender.account, &receiver.account, capture, self.now);
        let (sent, received) = checked_version(&sender, context, decided, |refusal| &refusal.rejection)?;
        let amount = Amount::try_from(received.balance_change()).map_err(|_| Failure::Internal)?;
        let moved = MovedMoney { transfer_id: capture.transfer_id, amount };
        self.record_both((capture.from, &sent), (capture.to, &received), moved, context)
    }

    /// The receipt names the account that pays back first.
    fn execute_transfer_reversal(
        &mut self,
        reverse: &ReverseTransfer,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        let (sender_id, receiver_id) = (reverse.sent.account_id, reverse.received.account_id);
        let named = self.visible_account(reverse.account_id, context)?;
        let (sender, receiver) = (self.account(sender_id)?, self.account(receiver_id)?);
        let decided = reversal::decide_transfer(&sender.account, &receiver.account, reverse, self.now);
        let (credited, debited) = checked_version(&named, context, decided, |refusal| &refusal.rejection)?;
        let amount = Amount::try_from(credited.balance_change()).map_err(|_| Failure::Internal)?;
        let moved = MovedMoney { transfer_id: reverse.transfer_id, amount };
        self.record_both((receiver_id, &debited), (sender_id, &credited), moved, context)
    }

    /// Records one event on each of two accounts: first that of the account that is debited.
    fn record_both(
        &mut self,
        (from_id, debit): (Uuid, &Event),
        (to_id, credit): (Uuid, &Event),
        MovedMoney { transfer_id, amount }: MovedMoney,
        context: &CommandContext,
    ) -> Result<Receipt, Failure> {
        // Fail before the first side is recorded, so that a batch never contains half a transfer.
        self.append_to(self.partitions.partition_of(to_id))?;
        let mut from = self.record(from_id, std::slice::from_ref(debit), context)?;
        let to = self.record(to_id, std::slice::from_ref(credit), context)?;
        Ok(Receipt::Transfer(Box::new(TransferReceipt {
            transfer_id,
            amount,
            currency: from.currency,
            position: from.position.clone().merge(to.position.clone()),
            hold: from.hold.take(),
            from,
            to: Counterparty::Visible(to),
        })))
    }

    /// Folds `events` into the account, and adds them to the append unless this is a dry run.
    fn record(
        &mut self,
        account_id: Uuid,
        events: &[Event],
        context: &CommandContext,
    ) -> Result<AccountReceipt, Failure> {
        let mut after = self.account(account_id)?;
        let partition = self.partitions.partition_of(account_id);
        let hold = HoldReceipt::of(account_id, &after.account, events, self.now);
        let mut facts = Vec::with_capacity(events.len());
        for event in events {
            after = CachedAccount { version: after.version + 1, account: after.account.evolve(event, self.now) };
            facts.push(self.append_event(partition, (account_id, after.version), event, context)?);
        }
        if self.is_kept(context) && !events.is_empty() {
            self.change_account(account_id, after.clone());
        }
        let account = after.account.opened().map_err(|_: Rejection| Failure::Internal)?;
        Ok(AccountReceipt {
            account_id,
            version: after.version,
            status: account.status,
            balance: account.balance,
            available: Some(account.available(self.now)),
            currency: account.currency,
            position: self.position_in(partition)?,
            events: facts,
            hold,
        })
    }
}

/// Checks `If-Match`, which does not apply to an account that does not exist. Only a refusal because something is not found ranks
/// before it.
fn checked_version<T, E: Into<Failure>>(
    current: &CachedAccount,
    context: &CommandContext,
    decided: Result<T, E>,
    rejection: impl Fn(&E) -> &Rejection,
) -> Result<T, Failure> {
    let is_found = decided.as_ref().err().is_none_or(|refusal| !rejection(refusal).is_not_found());
    match &context.if_match {
        Some(condition) if is_found && current.version > 0 && !condition.holds(current.version) => {
            Err(Refusal::VersionMismatch { current: current.version }.into())
        }
        Some(_) | None => decided.map_err(E::into),
    }
}
