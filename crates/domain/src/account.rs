//! The account aggregate: `decide` checks a command against the state, `evolve` applies an event to it.
//!
//! `evolve` never fails and checks nothing; `decide` checks and changes nothing. The state holds only the fields that a decision
//! needs. Everything else belongs to a view.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    command::{AccountCommand, Movement},
    event::{AccountOpened, Event, MoneyMoved, StatusChanged},
    money::{Amount, Currency, MINOR_UNITS_MAX, in_major_units},
};

/// The version of [`Account`] in snapshots. Raise it with every change of the serialized form: snapshots of another version
/// are ignored, and the state is folded from the events.
pub const STATE_VERSION: i16 = 1;

/// The state of an account, folded from its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// No event yet.
    #[default]
    Unopened,
    /// Open, frozen or closed.
    Opened(OpenedAccount),
}

/// The state of an account after its opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedAccount {
    /// The customer that owns the account, as an opaque id.
    pub owner: Arc<str>,
    /// Never changes.
    pub currency: Currency,
    /// Open, frozen or closed.
    pub status: Status,
    /// Minor units, from 0 to [`MINOR_UNITS_MAX`].
    pub balance: i64,
}

/// The status of an opened account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AccountStatus)]
pub enum Status {
    /// Money can move.
    Open,
    /// No money moves until the account is unfrozen.
    Frozen,
    /// Final: a closed account is never reopened.
    Closed,
}

impl Status {
    /// The name of the status in JSON and in the read tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Frozen => "frozen",
            Status::Closed => "closed",
        }
    }

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Status::Open, Status::Frozen, Status::Closed].into_iter().find(|status| status.as_str() == name)
    }
}

/// Why the state refuses a command. The variants are in order of rank: if several apply, the first one is returned.
///
/// A refusal is stored with its idempotency key, so the JSON must stay readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    /// An account is opened only once.
    #[error("An account with this id already exists.")]
    AccountExists,
    /// No account was opened with this id.
    #[error("No account has this id.")]
    AccountNotFound,
    /// A closed account stays closed.
    #[error("The account is closed. A closed account cannot be reopened.")]
    AccountClosed,
    /// Money cannot move, and the account cannot be closed or frozen again.
    #[error("The account is frozen. Unfreeze it before you move money or close it.")]
    AccountFrozen,
    /// Only a frozen account can be unfrozen.
    #[error("The account is not frozen, so it cannot be unfrozen.")]
    AccountNotFrozen,
    /// The currency of an account never changes.
    #[error("The account has another currency than the request or the other account.")]
    CurrencyMismatch,
    /// The balance is smaller than the amount.
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
    /// The state after one more event.
    #[must_use]
    pub fn evolve(self, event: &Event) -> Self {
        match (self, event) {
            (Account::Unopened, Event::AccountOpened(opened)) => Account::Opened(OpenedAccount {
                owner: opened.owner.clone(),
                currency: opened.currency,
                status: Status::Open,
                balance: opened.initial_deposit,
            }),
            // A verified log has no event before the opening.
            (Account::Unopened, _) => Account::Unopened,
            (Account::Opened(opened), event) => Account::Opened(opened.evolve(event)),
        }
    }

    /// The event that the command causes.
    ///
    /// # Errors
    /// Why the state refuses the command.
    pub fn decide(&self, command: &AccountCommand) -> Result<Event, Rejection> {
        match command {
            AccountCommand::Open { owner, currency, initial_deposit } => match self {
                Account::Unopened => Ok(Event::AccountOpened(AccountOpened {
                    owner: owner.clone(),
                    currency: *currency,
                    initial_deposit: *initial_deposit,
                })),
                Account::Opened(_) => Err(Rejection::AccountExists),
            },
            AccountCommand::Deposit(movement, channel) => {
                self.open_for(movement)?.credit(movement.amount)?;
                Ok(Event::MoneyDeposited(MoneyMoved::new(movement, *channel)))
            }
            AccountCommand::Withdraw(movement, channel) => {
                self.open_for(movement)?.debit(movement.amount)?;
                Ok(Event::MoneyWithdrawn(MoneyMoved::new(movement, *channel)))
            }
            AccountCommand::Freeze { reason } => {
                self.opened()?.must_be_open()?;
                Ok(Event::AccountFrozen(StatusChanged { reason: reason.clone() }))
            }
            AccountCommand::Unfreeze { reason } => match self.opened()?.status {
                Status::Open => Err(Rejection::AccountNotFrozen),
                Status::Frozen => Ok(Event::AccountUnfrozen(StatusChanged { reason: reason.clone() })),
                Status::Closed => Err(Rejection::AccountClosed),
            },
            AccountCommand::Close { reason } => {
                let opened = self.opened()?;
                opened.must_be_open()?;
                match opened.balance {
                    0 => Ok(Event::AccountClosed(StatusChanged { reason: reason.clone() })),
                    balance => Err(Rejection::BalanceNotZero { balance, currency: opened.currency }),
                }
            }
        }
    }

    /// The state after the opening.
    ///
    /// # Errors
    /// [`Rejection::AccountNotFound`] before the opening.
    pub fn opened(&self) -> Result<&OpenedAccount, Rejection> {
        match self {
            Account::Unopened => Err(Rejection::AccountNotFound),
            Account::Opened(opened) => Ok(opened),
        }
    }

    /// Whether the account was opened for this owner.
    pub fn belongs_to(&self, owner: &str) -> bool {
        matches!(self, Account::Opened(opened) if *opened.owner == *owner)
    }

    /// The state, if the account accepts movements in the currency of `movement`.
    pub(crate) fn open_for(&self, movement: &Movement) -> Result<&OpenedAccount, Rejection> {
        let opened = self.opened()?;
        opened.must_be_open()?;
        match movement.currency {
            Some(currency) if currency != opened.currency => Err(Rejection::CurrencyMismatch),
            Some(_) | None => Ok(opened),
        }
    }
}

impl OpenedAccount {
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

    /// Checks that the balance can grow by `amount`.
    pub(crate) fn credit(&self, amount: Amount) -> Result<(), Rejection> {
        if self.balance > MINOR_UNITS_MAX - amount.minor_units() {
            return Err(Rejection::BalanceLimitExceeded);
        }
        Ok(())
    }

    /// Checks that the balance covers `amount`.
    pub(crate) fn debit(&self, amount: Amount) -> Result<(), Rejection> {
        if self.balance < amount.minor_units() {
            let (balance, currency) = (self.balance, self.currency);
            return Err(Rejection::InsufficientFunds { balance, amount, currency });
        }
        Ok(())
    }
}
