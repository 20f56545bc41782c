//! The account for cqrs-es: commands, events, the aggregate and the view.
//!
//! Each event contains the balance after it, as in the crate's own demo. cqrs-es 0.5.0 applies an event when it is written
//! and again to the snapshot, so an aggregate that adds amounts would count an event twice.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, View};
use serde::{Deserialize, Serialize};

/// The greatest balance in minor units, the same as Passbook's.
const BALANCE_MAX: u64 = (1 << 53) - 1;

pub enum Command {
    Open { currency: String, initial_deposit: u64 },
    Deposit { amount: u64 },
    Withdraw { amount: u64 },
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Event {
    AccountOpened { currency: String, balance: u64 },
    MoneyDeposited { amount: u64, balance: u64 },
    MoneyWithdrawn { amount: u64, balance: u64 },
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    #[error("the account does not exist")]
    AccountNotFound,
    #[error("the account already exists")]
    AccountExists,
    #[error("the amount must be at least 1")]
    InvalidAmount,
    #[error("the balance is lower than the amount")]
    InsufficientFunds,
    #[error("the balance would exceed 2^53 - 1")]
    BalanceLimitExceeded,
}

#[derive(Debug, Default, Deserialize, Serialize)]
pub enum Account {
    #[default]
    Unopened,
    Open {
        balance: u64,
    },
}

impl Account {
    fn decide(&self, command: Command) -> Result<Event, Rejection> {
        match (self, command) {
            (Self::Unopened, Command::Open { currency, initial_deposit }) => {
                Ok(Event::AccountOpened { currency, balance: deposited(0, initial_deposit)? })
            }
            (Self::Unopened, Command::Deposit { .. } | Command::Withdraw { .. }) => Err(Rejection::AccountNotFound),
            (Self::Open { .. }, Command::Open { .. }) => Err(Rejection::AccountExists),
            (Self::Open { .. }, Command::Deposit { amount: 0 } | Command::Withdraw { amount: 0 }) => {
                Err(Rejection::InvalidAmount)
            }
            (Self::Open { balance }, Command::Deposit { amount }) => {
                Ok(Event::MoneyDeposited { amount, balance: deposited(*balance, amount)? })
            }
            (Self::Open { balance }, Command::Withdraw { amount }) => {
                let balance = balance.checked_sub(amount).ok_or(Rejection::InsufficientFunds)?;
                Ok(Event::MoneyWithdrawn { amount, balance })
            }
        }
    }
}

fn deposited(balance: u64, amount: u64) -> Result<u64, Rejection> {
    let sum = balance.checked_add(amount).filter(|sum| *sum <= BALANCE_MAX);
    sum.ok_or(Rejection::BalanceLimitExceeded)
}

impl Aggregate for Account {
    const TYPE: &'static str = "BankAccount";
    type Command = Command;
    type Event = Event;
    type Error = Rejection;
    type Services = ();

    async fn handle(&mut self, command: Command, (): &(), sink: &EventSink<Self>) -> Result<(), Rejection> {
        let event = self.decide(command)?;
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        *self = Self::Open { balance: event.balance() };
    }
}

impl Event {
    fn balance(&self) -> u64 {
        match self {
            Self::AccountOpened { balance, .. }
            | Self::MoneyDeposited { balance, .. }
            | Self::MoneyWithdrawn { balance, .. } => *balance,
        }
    }
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::AccountOpened { .. } => "AccountOpened".to_owned(),
            Self::MoneyDeposited { .. } => "MoneyDeposited".to_owned(),
            Self::MoneyWithdrawn { .. } => "MoneyWithdrawn".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

/// The response of `GET /v1/accounts/{id}`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct AccountView {
    account_id: String,
    currency: String,
    balance: u64,
    version: usize,
}

impl View<Account> for AccountView {
    fn update(&mut self, event: &EventEnvelope<Account>) {
        if let Event::AccountOpened { currency, .. } = &event.payload {
            self.account_id.clone_from(&event.aggregate_id);
            self.currency.clone_from(currency);
        }
        // Two events may arrive out of order, because the view is written after the event's commit.
        if event.sequence > self.version {
            self.version = event.sequence;
            self.balance = event.payload.balance();
        }
    }
}
