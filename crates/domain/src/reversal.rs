//! Reversals: an earlier movement is paid back, in part or whole, never more than its amount in sum.
//!
//! The state does not contain movements. The caller reads the original from the log, and what was reversed of it so far from the
//! bookkeeping that is written with each reversal.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    account::{Account, OpenedAccount},
    command::{Reverse, ReverseTransfer, ReversedSide},
    event::{Event, MovementReversed},
    money::Amount,
    rejection::Rejection,
    transfer::{Side, TransferRejection, currencies_differ},
};

/// Whether a movement raises or lowers the balance of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The balance rises.
    Credit,
    /// The balance falls.
    Debit,
}

/// The kind of a recorded movement, as far as a reversal depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the members of the events")]
pub enum MovementKind {
    /// A deposit or an opening deposit.
    Credit,
    /// A withdrawal, or a capture that stays within the account.
    Debit,
    /// The sender's side of a transfer.
    Sent { transfer_id: Uuid, to: Uuid },
    /// The receiver's side of a transfer.
    Received { transfer_id: Uuid, from: Uuid },
    /// A reversal, which cannot be reversed.
    Reversal,
}

/// A recorded movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedMovement {
    /// The version of its event in the account's stream.
    pub version: i64,
    /// The id of its event.
    pub event_id: Uuid,
    /// What it was.
    pub kind: MovementKind,
    /// Its amount.
    pub amount: Amount,
}

impl RecordedMovement {
    /// The movement that an event records; `None` if the event moves no money.
    pub fn of_event(event: &Event, version: i64, event_id: Uuid) -> Option<Self> {
        let (kind, amount) = match event {
            Event::AccountOpened(opened) => (MovementKind::Credit, Amount::try_from(opened.initial_deposit).ok()?),
            Event::MoneyDeposited(deposited) => (MovementKind::Credit, deposited.amount),
            Event::MoneyWithdrawn(withdrawn) => (MovementKind::Debit, withdrawn.amount),
            Event::HoldCaptured(captured) => (MovementKind::Debit, captured.amount),
            Event::TransferSent(sent) => {
                (MovementKind::Sent { transfer_id: sent.transfer_id, to: sent.to }, sent.amount)
            }
            Event::TransferReceived(received) => {
                (MovementKind::Received { transfer_id: received.transfer_id, from: received.from }, received.amount)
            }
            Event::MovementReversed(reversed) => (MovementKind::Reversal, reversed.amount),
            Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => return None,
        };
        Some(Self { version, event_id, kind, amount })
    }
}

impl MovementReversed {
    /// Whether this event counts against its movement. Of the reversal of a transfer that is the event of the account that sent it, so
    /// that both ways to address the transfer have one sum.
    pub fn is_counted(&self) -> bool {
        self.transfer_id.is_none() || self.effect == Effect::Credit
    }
}

impl ReverseTransfer {
    /// The side against which the reversals of the transfer count: that of the account that sent it.
    pub fn counted_side(&self) -> ReversedSide {
        self.sent
    }
}

impl OpenedAccount {
    /// The event that reverses a movement of this account alone.
    pub(crate) fn reverse(&self, reverse: &Reverse, now: DateTime<Utc>) -> Result<Event, Rejection> {
        let Reverse { original, reversed, amount, reason, .. } = reverse;
        let original = original.ok_or(Rejection::TransactionNotFound)?;
        self.must_be_open()?;
        let effect = match original.kind {
            MovementKind::Credit => Effect::Debit,
            MovementKind::Debit => Effect::Credit,
            MovementKind::Sent { .. } | MovementKind::Received { .. } | MovementKind::Reversal => {
                return Err(Rejection::NotReversible);
            }
        };
        let amount = self.reversible(original.amount, *reversed, *amount)?;
        match effect {
            Effect::Debit => self.debit(amount, now)?,
            Effect::Credit => self.credit(amount)?,
        }
        Ok(Event::MovementReversed(MovementReversed {
            reverses_version: original.version,
            reverses_event_id: original.event_id,
            effect,
            amount,
            transfer_id: None,
            reason: reason.clone(),
        }))
    }

    /// The amount that a reversal pays back: the wanted one, or all that is left.
    fn reversible(&self, original: Amount, reversed: i64, wanted: Option<Amount>) -> Result<Amount, Rejection> {
        let left = original.minor_units() - reversed;
        let all = Amount::try_from(left).map_err(|_| Rejection::AlreadyReversed)?;
        match wanted {
            Some(amount) if amount > all => {
                Err(Rejection::ExceedsReversible { reversible: left, amount, currency: self.currency })
            }
            Some(amount) => Ok(amount),
            None => Ok(all),
        }
    }
}

/// The events that reverse a transfer: of the account that sent it, which is credited, and of the one that received it, which pays
/// back. In a refusal, the account that pays back is the sender.
///
/// # Errors
/// The refusal that ranks first among those of both accounts.
pub fn decide_transfer(
    sender: &Account,
    receiver: &Account,
    reverse: &ReverseTransfer,
    now: DateTime<Utc>,
) -> Result<(Event, Event), TransferRejection> {
    let ReverseTransfer { transfer_id, sent, received, original, reversed, amount, reason, .. } = reverse;
    let open = |account: &Account| account.opened().and_then(OpenedAccount::must_be_open);
    let amount = sender.opened().and_then(|opened| opened.reversible(*original, *reversed, *amount));
    let funds = amount.and_then(|amount| receiver.opened()?.debit(amount, now));
    let room = amount.and_then(|amount| sender.opened()?.credit(amount));
    let of_payer =
        [open(receiver).err(), funds.err()].map(|rejection| rejection.map(|rejection| Side::Sender.rejects(rejection)));
    let of_payee =
        [open(sender).err(), room.err()].map(|rejection| rejection.map(|rejection| Side::Receiver.rejects(rejection)));
    let refusals = of_payer.into_iter().chain(of_payee).chain([currencies_differ(sender, receiver)]);
    if let Some(first) = refusals.flatten().min() {
        return Err(first);
    }
    let amount = amount.map_err(|rejection| Side::Sender.rejects(rejection))?;
    let reversed = |side: &ReversedSide, effect| {
        Event::MovementReversed(MovementReversed {
            reverses_version: side.version,
            reverses_event_id: side.event_id,
            effect,
            amount,
            transfer_id: Some(*transfer_id),
            reason: reason.clone(),
        })
    };
    Ok((reversed(sent, Effect::Credit), reversed(received, Effect::Debit)))
}
