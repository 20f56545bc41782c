//! The books of the bank: double-entry postings that follow from events.
//!
//! Each event that moves money debits one ledger account and credits another one by the same amount, so it is balanced by itself,
//! whichever events a reader has seen. Amounts are in minor units: debits are positive, credits negative.

use crate::{EventType, command::Channel, event::Event};

/// An account of the general ledger. The names of its groups are those of plain-text accounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerAccount {
    /// What the bank owes its customers: the sum of their balances.
    CustomerDeposits,
    /// Money that was captured from holds and that the bank owes to those who captured it.
    Captures,
    /// Money that one customer's account has sent and the other one has not received. 0 as soon as both sides are recorded.
    TransfersInTransit,
    /// Cash of deposits and withdrawals, by channel; `None`: the client named no channel.
    Cash(Option<Channel>),
}

impl LedgerAccount {
    /// Every ledger account, in the order of their names.
    pub const ALL: [Self; 7] = [
        Self::Cash(Some(Channel::Atm)),
        Self::Cash(Some(Channel::Branch)),
        Self::Cash(Some(Channel::Online)),
        Self::Cash(None),
        Self::Captures,
        Self::CustomerDeposits,
        Self::TransfersInTransit,
    ];

    /// The name, as stored and as shown to clients. It never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CustomerDeposits => "liabilities:customer-deposits",
            Self::Captures => "liabilities:captures",
            Self::TransfersInTransit => "liabilities:transfers-in-transit",
            Self::Cash(Some(Channel::Branch)) => "assets:cash:branch",
            Self::Cash(Some(Channel::Atm)) => "assets:cash:atm",
            Self::Cash(Some(Channel::Online)) => "assets:cash:online",
            Self::Cash(None) => "assets:cash:unspecified",
        }
    }

    /// The account with this name; `None` if this release does not know it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|account| account.name() == name)
    }

    /// The ledger account against which a movement of this type moves the money of a customer. `None` if an event of this type
    /// moves no money, or is a reversal: its ledger account is that of the reversed movement.
    pub fn of_movement(event_type: EventType, channel: Option<Channel>) -> Option<Self> {
        match event_type {
            EventType::AccountOpened | EventType::MoneyDeposited | EventType::MoneyWithdrawn => {
                Some(Self::Cash(channel))
            }
            EventType::TransferSent | EventType::TransferReceived => Some(Self::TransfersInTransit),
            EventType::HoldCaptured => Some(Self::Captures),
            EventType::HoldPlaced
            | EventType::HoldReleased
            | EventType::MovementReversed
            | EventType::LimitsSet
            | EventType::AccountFrozen
            | EventType::AccountUnfrozen
            | EventType::AccountClosed
            | EventType::WebhookRegistered
            | EventType::WebhookPaused
            | EventType::WebhookResumed
            | EventType::WebhookDeleted => None,
        }
    }
}

/// One side of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The ledger account.
    pub account: LedgerAccount,
    /// In minor units: a debit is positive, a credit negative. Never 0.
    pub amount: i64,
}

impl Posting {
    /// The debited amount; 0 for a credit.
    pub fn debit(self) -> i64 {
        self.amount.max(0)
    }

    /// The credited amount; 0 for a debit.
    pub fn credit(self) -> i64 {
        (-self.amount).max(0)
    }
}

/// The postings of one event, whose amounts have the sum 0: of the customer's money, and of the other side.
pub type Postings = [Posting; 2];

/// A reversal has the ledger account of the movement that it reverses, and the caller did not supply it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger account of the reversed movement at version {0} is not known")]
pub struct OriginalRequired(pub i64);

/// The version of the movement whose ledger account [`postings`] needs; `None` if the event names its ledger account itself.
///
/// The reversal of a transfer names it: it goes back through the transfers in transit.
pub fn reversed_version(event: &Event) -> Option<i64> {
    match event {
        Event::MovementReversed(reversed) if reversed.transfer_id.is_none() => Some(reversed.reverses_version),
        Event::AccountOpened(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::TransferSent(_)
        | Event::TransferReceived(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::MovementReversed(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

/// The postings of an event; `None` if it moves no money. Holds move none: they only limit what debits may use.
///
/// `original` is the ledger account of the movement at [`reversed_version`].
///
/// # Errors
/// [`OriginalRequired`] if the event reverses a movement whose ledger account is not known.
pub fn postings(event: &Event, original: Option<LedgerAccount>) -> Result<Option<Postings>, OriginalRequired> {
    let change = event.balance_change();
    let other = match event {
        Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => {
            LedgerAccount::of_movement(event.event_type(), moved.channel)
        }
        Event::MovementReversed(reversed) => Some(match reversed.transfer_id {
            Some(_) => LedgerAccount::TransfersInTransit,
            None => original.ok_or(OriginalRequired(reversed.reverses_version))?,
        }),
        Event::AccountOpened(_)
        | Event::TransferSent(_)
        | Event::TransferReceived(_)
        | Event::HoldPlaced(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::LimitsSet(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => LedgerAccount::of_movement(event.event_type(), None),
    };
    let Some(other) = other.filter(|_| change != 0) else { return Ok(None) };
    // What a customer gains, the bank owes: a credit.
    Ok(Some([
        Posting { account: LedgerAccount::CustomerDeposits, amount: -change },
        Posting { account: other, amount: change },
    ]))
}
