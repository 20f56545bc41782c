//! What the view keeps of an event: why the account changed, and what it was after it.

use uuid::Uuid;

use super::{Kind, TransactionView};
use crate::projection::Applicable;
use passbook_domain::{Event, Status};

/// What an event did.
pub(super) struct Entry<'a> {
    pub(super) kind: &'static str,
    /// What the balance gained, in minor units; 0 where no money moved.
    pub(super) gain: i64,
    pub(super) transfer_id: Option<Uuid>,
    pub(super) counterparty: Option<Uuid>,
    pub(super) reference: Option<&'a str>,
}

/// What an account is after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    pub(super) balance: i64,
    pub(super) transaction_count: i64,
    pub(super) status: &'static str,
}

impl Default for Standing {
    fn default() -> Self {
        Self { balance: 0, transaction_count: 0, status: Status::Open.as_str() }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
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
        Self { kind, gain: event.gain(), transfer_id, counterparty, reference: reference.as_deref() }
    }

    pub(super) fn moves_money(&self) -> bool {
        self.gain != 0
    }
}

impl Standing {
    /// What the account is after one more event, with the entry made of it.
    #[must_use]
    pub(super) fn after(self, event: &Event, entry: &Entry<'_>) -> Self {
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
            balance: self.balance + entry.gain,
            transaction_count: self.transaction_count + i64::from(entry.moves_money()),
            status,
        }
    }
}

/// The row of the view, but for what the account was.
pub(super) fn row(applicable: &Applicable, entry: &Entry<'_>, after: Standing) -> TransactionView {
    let recorded = &applicable.recorded;
    TransactionView {
        version: recorded.version,
        kind: entry.kind.to_owned(),
        amount: entry.gain.abs(),
        balance_after: after.balance,
        transfer_id: entry.transfer_id,
        counterparty_account_id: entry.counterparty,
        reference: entry.reference.map(ToOwned::to_owned),
        recorded_at: recorded.recorded_at,
        event_id: recorded.id,
    }
}
