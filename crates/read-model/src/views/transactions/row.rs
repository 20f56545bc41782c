//! The row that the view stores for an event: the transaction, and the state of the account after it.

use uuid::Uuid;

use super::view::{Kind, TransactionView};
use crate::{decoded_event::DecodedEvent, views::columns::json};
use passbook_domain::{Channel, Event, Holds, Metadata, Status, reversal::Effect};

/// The part of a row that follows from the event alone.
pub(super) struct Entry<'a> {
    pub(super) kind: &'static str,
    /// Change of the balance in minor units; 0 if no money moved.
    pub(super) balance_change: i64,
    pub(super) details: Details<'a>,
}

/// What an event says about its movement. Events that move no money have none, except that events of a hold name it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Details<'a> {
    pub(crate) transfer_id: Option<Uuid>,
    pub(crate) counterparty: Option<Uuid>,
    pub(crate) hold_id: Option<Uuid>,
    pub(crate) reverses_version: Option<i64>,
    pub(crate) reference: Option<&'a str>,
    pub(crate) channel: Option<Channel>,
    pub(super) metadata: Option<&'a Metadata>,
}

/// The state of an account after an event, as its row stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowState {
    pub(super) balance: i64,
    pub(super) transaction_count: i64,
    pub(super) status: &'static str,
    pub(super) overdraft: i64,
    /// The last version up to this one that changed a hold.
    pub(super) holds_version: Option<i64>,
}

/// The state of the fold of an account: that of its last row, and the holds without a recorded end.
#[derive(Clone, Debug, Default)]
pub(super) struct AccountState {
    pub(super) row: RowState,
    pub(super) holds: Holds,
}

impl Default for RowState {
    fn default() -> Self {
        Self { balance: 0, transaction_count: 0, status: Status::Open.as_str(), overdraft: 0, holds_version: None }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn from_event(event: &'a Event) -> Self {
        Self { kind: kind(event), balance_change: event.balance_change(), details: Details::from_event(event) }
    }

    pub(super) fn moves_money(&self) -> bool {
        self.balance_change != 0
    }
}

/// Why an event moves money, or what else it does.
pub(crate) fn kind(event: &Event) -> &'static str {
    match event {
        Event::AccountOpened(opened) if opened.initial_deposit == 0 => "opening",
        Event::AccountOpened(_) => Kind::OpeningDeposit.as_str(),
        Event::MoneyDeposited(_) => Kind::Deposit.as_str(),
        Event::MoneyWithdrawn(_) => Kind::Withdrawal.as_str(),
        Event::TransferSent(_) => Kind::TransferOut.as_str(),
        Event::TransferReceived(_) => Kind::TransferIn.as_str(),
        Event::HoldCaptured(_) => Kind::Capture.as_str(),
        Event::MovementReversed(reversed) => match reversed.effect {
            Effect::Credit => Kind::ReversalIn.as_str(),
            Effect::Debit => Kind::ReversalOut.as_str(),
        },
        Event::HoldPlaced(_) => "hold",
        Event::HoldReleased(_) => "release",
        Event::LimitsSet(_) => "limits",
        Event::AccountFrozen(_) => "freeze",
        Event::AccountUnfrozen(_) => "unfreeze",
        Event::AccountClosed(_) => "close",
    }
}

impl<'a> Details<'a> {
    pub(crate) fn from_event(event: &'a Event) -> Self {
        let none = Self::default();
        match event {
            // The metadata of the opening is that of the account.
            Event::AccountOpened(_) => none,
            Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => Self {
                reference: moved.reference.as_deref(),
                channel: moved.channel,
                metadata: Some(&moved.metadata),
                ..none
            },
            Event::TransferSent(sent) => Self {
                transfer_id: Some(sent.transfer_id),
                counterparty: Some(sent.to),
                hold_id: sent.hold_id,
                reference: sent.reference.as_deref(),
                metadata: Some(&sent.metadata),
                ..none
            },
            Event::TransferReceived(received) => Self {
                transfer_id: Some(received.transfer_id),
                counterparty: Some(received.from),
                hold_id: received.hold_id,
                reference: received.reference.as_deref(),
                metadata: Some(&received.metadata),
                ..none
            },
            Event::HoldCaptured(captured) => {
                Self { hold_id: Some(captured.hold_id), reference: captured.reference.as_deref(), ..none }
            }
            Event::MovementReversed(reversed) => {
                Self { transfer_id: reversed.transfer_id, reverses_version: Some(reversed.reverses_version), ..none }
            }
            Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => none,
        }
    }
}

impl AccountState {
    /// Folds one more event, whose entry is `entry`. Returns the holds for the row of the event, if it changes them.
    pub(super) fn evolve(&mut self, decoded: &DecodedEvent, entry: &Entry<'_>) -> Option<String> {
        let DecodedEvent { recorded, event, .. } = decoded;
        let row = &mut self.row;
        row.balance += entry.balance_change;
        row.transaction_count += i64::from(entry.moves_money());
        match event {
            Event::AccountOpened(_) | Event::AccountUnfrozen(_) => row.status = Status::Open.as_str(),
            Event::AccountFrozen(_) => row.status = Status::Frozen.as_str(),
            Event::AccountClosed(_) => row.status = Status::Closed.as_str(),
            Event::LimitsSet(limits) => row.overdraft = limits.overdraft,
            Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_)
            | Event::HoldPlaced(_)
            | Event::HoldCaptured(_)
            | Event::HoldReleased(_)
            | Event::MovementReversed(_) => {}
        }
        event.own_hold()?;
        row.holds_version = Some(recorded.version);
        self.holds.evolve(event, recorded.recorded_at);
        Some(json(&self.holds))
    }
}

/// The transaction that queries return for an event.
pub(super) fn transaction(decoded: &DecodedEvent, entry: &Entry<'_>, after: RowState) -> TransactionView {
    let (recorded, details) = (&decoded.recorded, entry.details);
    TransactionView {
        version: recorded.version,
        kind: entry.kind.to_owned(),
        amount: entry.balance_change.abs(),
        balance_after: after.balance,
        transfer_id: details.transfer_id,
        counterparty_account_id: details.counterparty,
        hold_id: details.hold_id,
        reverses_version: details.reverses_version,
        reversed: None,
        reference: details.reference.map(ToOwned::to_owned),
        channel: details.channel.map(|channel| channel.as_str().to_owned()),
        metadata: details.metadata.cloned().unwrap_or_default(),
        recorded_at: recorded.recorded_at,
        event_id: recorded.id,
        batch_id: None,
    }
}
