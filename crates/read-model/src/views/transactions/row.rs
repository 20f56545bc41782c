//! The row that the view stores for an event: the transaction, and the state of the account after it.

use uuid::Uuid;

use super::view::{Kind, TransactionView};
use crate::decoded_event::DecodedEvent;
use passbook_domain::{Event, Status};

/// The part of a row that follows from the event alone.
pub(super) struct Entry<'a> {
    pub(super) kind: &'static str,
    /// Change of the balance in minor units; 0 if no money moved.
    pub(super) balance_change: i64,
    pub(super) transfer_id: Option<Uuid>,
    pub(super) counterparty: Option<Uuid>,
    pub(super) reference: Option<&'a str>,
}

/// The state of an account after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AccountState {
    pub(super) balance: i64,
    pub(super) transaction_count: i64,
    pub(super) status: &'static str,
}

impl Default for AccountState {
    fn default() -> Self {
        Self { balance: 0, transaction_count: 0, status: Status::Open.as_str() }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn from_event(event: &'a Event) -> Self {
        let (kind, transfer, reference) = match event {
            Event::AccountOpened(opened) if opened.initial_deposit == 0 => ("opening", None, &None),
            Event::AccountOpened(_) => (Kind::OpeningDeposit.as_str(), None, &None),
            Event::MoneyDeposited(moved) => (Kind::Deposit.as_str(), None, &moved.reference),
            Event::MoneyWithdrawn(moved) => (Kind::Withdrawal.as_str(), None, &moved.reference),
            Event::TransferSent(sent) => {
                (Kind::TransferOut.as_str(), Some((sent.transfer_id, sent.to)), &sent.reference)
            }
            Event::TransferReceived(received) => {
                (Kind::TransferIn.as_str(), Some((received.transfer_id, received.from)), &received.reference)
            }
            Event::AccountFrozen(_) => ("freeze", None, &None),
            Event::AccountUnfrozen(_) => ("unfreeze", None, &None),
            Event::AccountClosed(_) => ("close", None, &None),
        };
        let (transfer_id, counterparty) = transfer.unzip();
        Self {
            kind,
            balance_change: event.balance_change(),
            transfer_id,
            counterparty,
            reference: reference.as_deref(),
        }
    }

    pub(super) fn moves_money(&self) -> bool {
        self.balance_change != 0
    }
}

impl AccountState {
    /// The state after one more event, whose entry is `entry`.
    #[must_use]
    pub(super) fn evolve(self, event: &Event, entry: &Entry<'_>) -> Self {
        let status = match event {
            Event::AccountOpened(_) | Event::AccountUnfrozen(_) => Status::Open.as_str(),
            Event::AccountFrozen(_) => Status::Frozen.as_str(),
            Event::AccountClosed(_) => Status::Closed.as_str(),
            Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_) => self.status,
        };
        Self {
            balance: self.balance + entry.balance_change,
            transaction_count: self.transaction_count + i64::from(entry.moves_money()),
            status,
        }
    }
}

/// The transaction that queries return for an event.
pub(super) fn transaction(decoded: &DecodedEvent, entry: &Entry<'_>, after: AccountState) -> TransactionView {
    let recorded = &decoded.recorded;
    TransactionView {
        version: recorded.version,
        kind: entry.kind.to_owned(),
        amount: entry.balance_change.abs(),
        balance_after: after.balance,
        transfer_id: entry.transfer_id,
        counterparty_account_id: entry.counterparty,
        reference: entry.reference.map(ToOwned::to_owned),
        recorded_at: recorded.recorded_at,
        event_id: recorded.id,
    }
}
