//! The account: what its events mean (`evolve`) and what is allowed (`decide`).
//!
//! `evolve` never fails and never judges; `decide` judges and never changes. The state holds only what a decision
//! needs; everything else is a view.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    command::{Action, Movement},
    event::{AccountOpened, Event, MoneyMoved, StatusChanged},
    money::{Amount, Currency, MINOR_UNITS_MAX, in_major_units},
};

/// The version of [`Account`]'s shape in snapshots. Raise it with every change of the shape: snapshots of another
/// shape are ignored and rebuilt from the events.
pub const STATE_VERSION: i16 = 1;

/// An account as folded from its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// No event yet.
    #[default]
    Unopened,
    /// Opened once, whatever happened since.
    Opened(Book),
}

/// What decisions about an opened account rest on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The customer that the account belongs to, an opaque id.
    pub owner: Arc<str>,
    /// For life.
    pub currency: Currency,
    /// Open, frozen or closed.
    pub status: Status,
    /// Minor units, from 0 to [`MINOR_UNITS_MAX`].
    pub balance: i64,
}

/// Where an opened account stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Money moves.
    Open,
    /// No money moves until it is unfrozen.
    Frozen,
    /// Over, for ever.
    Closed,
}

impl Status {
    /// The status as it is written in JSON and in the read tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Frozen => "frozen",
            Status::Closed => "closed",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Status::Open, Status::Frozen, Status::Closed].into_iter().find(|status| status.as_str() == name)
    }
}

/// Why a command is refused by the state. In order of rank: where several hold, the first is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejection {
    /// An account is opened once.
    #[error("An account with this id already exists.")]
    AccountExists,
    /// Nothing was ever opened under this id.
    #[error("No account has this id.")]
    AccountNotFound,
    /// A closed account stays closed.
    #[error("The account is closed. A closed account cannot be reopened.")]
    AccountClosed,
    /// No money moves, and the account cannot be closed or frozen again.
    #[error("The account is frozen. Unfreeze it before you move money or close it.")]
    AccountFrozen,
    /// Only a frozen account can be unfrozen.
    #[error("The account is not frozen, so it cannot be unfrozen.")]
    AccountNotFrozen,
    /// An account has one currency for life.
    #[error("The account has another currency than the request or the other account.")]
    CurrencyMismatch,
    /// More is asked than is there.
    #[error(
        "The balance of {} does not cover {}.",
        in_major_units(*balance, *currency),
        in_major_units(amount.minor_units(), *currency)
    )]
    InsufficientFunds {
        /// The balance, in minor units.
        balance: i64,
        /// The amount to be debited.
        amount: Amount,
        /// The account's currency.
        currency: Currency,
    },
    /// Only an empty account can be closed.
    #[error(
        "The account has a balance of {}. Only an account with a zero balance can be closed.",
        in_major_units(*balance, *currency)
    )]
    BalanceNotZero {
        /// The balance, in minor units.
        balance: i64,
        /// The account's currency.
        currency: Currency,
    },
    /// The balance would pass [`MINOR_UNITS_MAX`].
    #[error("The balance would exceed {MINOR_UNITS_MAX} minor units.")]
    BalanceLimitExceeded,
}

impl Account {
    /// The state after one more fact.
    #[must_use]
    pub fn evolve(self, event: &Event) -> Self {
        match (self, event) {
            (Account::Unopened, Event::AccountOpened(opened)) => Account::Opened(Book {
                owner: opened.owner.clone(),
                currency: opened.currency,
                status: Status::Open,
                balance: opened.initial_deposit,
            }),
            // A log that verifies has no event before the opening.
            (Account::Unopened, _) => Account::Unopened,
            (Account::Opened(book), event) => Account::Opened(book.evolve(event)),
        }
    }

    /// The fact that follows from `action`, or why it is refused.
    pub fn decide(&self, action: &Action) -> Result<Event, Rejection> {
        match action {
            Action::Open { owner, currency, initial_deposit } => match self {
                Account::Unopened => Ok(Event::AccountOpened(AccountOpened {
                    owner: owner.clone(),
                    currency: *currency,
                    initial_deposit: *initial_deposit,
                })),
                Account::Opened(_) => Err(Rejection::AccountExists),
            },
            Action::Deposit(movement, channel) => {
                self.open_for(movement)?.credit(movement.amount)?;
                Ok(Event::MoneyDeposited(MoneyMoved::new(movement, *channel)))
            }
            Action::Withdraw(movement, channel) => {
                self.open_for(movement)?.debit(movement.amount)?;
                Ok(Event::MoneyWithdrawn(MoneyMoved::new(movement, *channel)))
            }
            Action::Freeze { reason } => {
                self.book()?.must_be_open()?;
                Ok(Event::AccountFrozen(StatusChanged { reason: reason.clone() }))
            }
            Action::Unfreeze { reason } => match self.book()?.status {
                Status::Open => Err(Rejection::AccountNotFrozen),
                Status::Frozen => Ok(Event::AccountUnfrozen(StatusChanged { reason: reason.clone() })),
                Status::Closed => Err(Rejection::AccountClosed),
            },
            Action::Close { reason } => {
                let book = self.book()?;
                book.must_be_open()?;
                match book.balance {
                    0 => Ok(Event::AccountClosed(StatusChanged { reason: reason.clone() })),
                    balance => Err(Rejection::BalanceNotZero { balance, currency: book.currency }),
                }
            }
        }
    }

    /// The book of an opened account.
    pub fn book(&self) -> Result<&Book, Rejection> {
        match self {
            Account::Unopened => Err(Rejection::AccountNotFound),
            Account::Opened(book) => Ok(book),
        }
    }

    /// Whether it is an account of this customer; one that was never opened is nobody's.
    pub fn belongs_to(&self, owner: &str) -> bool {
        matches!(self, Account::Opened(book) if *book.owner == *owner)
    }

    /// The book, if money in the currency of `movement` may move on it.
    pub(super) fn open_for(&self, movement: &Movement) -> Result<&Book, Rejection> {
        let book = self.book()?;
        book.must_be_open()?;
        match movement.currency {
            Some(currency) if currency != book.currency => Err(Rejection::CurrencyMismatch),
            Some(_) | None => Ok(book),
        }
    }
}

impl Book {
    fn evolve(mut self, event: &Event) -> Self {
        match event {
            Event::AccountOpened(_) => {}
            Event::MoneyDeposited(deposited) => self.balance += deposited.amount.minor_units(),
            Event::MoneyWithdrawn(withdrawn) => self.balance -= withdrawn.amount.minor_units(),
            Event::TransferSent(sent) => self.balance -= sent.amount.minor_units(),
            Event::TransferReceived(received) => self.balance += received.amount.minor_units(),
            Event::AccountFrozen(_) => self.status = Status::Frozen,
            Event::AccountUnfrozen(_) => self.status = Status::Open,
            Event::AccountClosed(_) => self.status = Status::Closed,
        }
        self
    }

    fn must_be_open(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Open => Ok(()),
            Status::Frozen => Err(Rejection::AccountFrozen),
            Status::Closed => Err(Rejection::AccountClosed),
        }
    }

    /// Refuses what the balance cannot take in.
    pub(super) fn credit(&self, amount: Amount) -> Result<(), Rejection> {
        if self.balance > MINOR_UNITS_MAX - amount.minor_units() {
            return Err(Rejection::BalanceLimitExceeded);
        }
        Ok(())
    }

    /// Refuses what the balance does not cover.
    pub(super) fn debit(&self, amount: Amount) -> Result<(), Rejection> {
        if self.balance < amount.minor_units() {
            let (balance, currency) = (self.balance, self.currency);
            return Err(Rejection::InsufficientFunds { balance, amount, currency });
        }
        Ok(())
    }
}
