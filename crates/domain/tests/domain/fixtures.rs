//! Commands and events for the tests: functions named by a verb build commands, those in the past tense build events.

use passbook_domain::{
    AccountCommand, Amount, Currency, Event, Rejection, Transfer,
    command::Movement,
    event::{AccountOpened, MoneyMoved, StatusChanged, TransferReceived, TransferSent},
};
use uuid::{Uuid, uuid};

pub const FROM: Uuid = uuid!("01900000-0000-7000-8000-000000000001");
pub const TO: Uuid = uuid!("01900000-0000-7000-8000-000000000002");
pub const TRANSFER: Uuid = uuid!("01900000-0000-7000-8000-00000000000f");
pub const OWNER: &str = "customer-17";

pub fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).unwrap()
}

pub fn movement(minor_units: i64) -> Movement {
    Movement { amount: amount(minor_units), currency: None, reference: None }
}

pub fn in_currency(currency: Currency, minor_units: i64) -> Movement {
    Movement { currency: Some(currency), ..movement(minor_units) }
}

// Commands.

pub fn open(initial_deposit: i64) -> AccountCommand {
    AccountCommand::Open { owner: OWNER.into(), currency: Currency::EUR, initial_deposit }
}

pub fn deposit(minor_units: i64) -> AccountCommand {
    AccountCommand::Deposit(movement(minor_units), None)
}

pub fn withdraw(minor_units: i64) -> AccountCommand {
    AccountCommand::Withdraw(movement(minor_units), None)
}

pub fn freeze() -> AccountCommand {
    AccountCommand::Freeze { reason: Some("lost card".into()) }
}

pub fn unfreeze() -> AccountCommand {
    AccountCommand::Unfreeze { reason: Some("card found".into()) }
}

pub fn close() -> AccountCommand {
    AccountCommand::Close { reason: Some("asked by its owner".into()) }
}

pub fn transfer(movement: Movement) -> Transfer {
    Transfer { transfer_id: TRANSFER, from: FROM, to: TO, movement }
}

// Refusals, on accounts in EUR.

pub fn insufficient_funds(balance: i64, minor_units: i64) -> Rejection {
    Rejection::InsufficientFunds { balance, amount: amount(minor_units), currency: Currency::EUR }
}

pub fn balance_not_zero(balance: i64) -> Rejection {
    Rejection::BalanceNotZero { balance, currency: Currency::EUR }
}

// Events.

pub fn opened(initial_deposit: i64) -> Event {
    opened_in(Currency::EUR, initial_deposit)
}

pub fn opened_in(currency: Currency, initial_deposit: i64) -> Event {
    Event::AccountOpened(AccountOpened { owner: OWNER.into(), currency, initial_deposit })
}

pub fn deposited(minor_units: i64) -> Event {
    Event::MoneyDeposited(MoneyMoved { amount: amount(minor_units), reference: None, channel: None })
}

pub fn withdrawn(minor_units: i64) -> Event {
    Event::MoneyWithdrawn(MoneyMoved { amount: amount(minor_units), reference: None, channel: None })
}

pub fn sent(minor_units: i64) -> Event {
    Event::TransferSent(TransferSent { transfer_id: TRANSFER, to: TO, amount: amount(minor_units), reference: None })
}

pub fn received(minor_units: i64) -> Event {
    let amount = amount(minor_units);
    Event::TransferReceived(TransferReceived { transfer_id: TRANSFER, from: FROM, amount, reference: None })
}

pub fn frozen() -> Event {
    Event::AccountFrozen(StatusChanged { reason: Some("lost card".into()) })
}

pub fn unfrozen() -> Event {
    Event::AccountUnfrozen(StatusChanged { reason: Some("card found".into()) })
}

pub fn closed() -> Event {
    Event::AccountClosed(StatusChanged { reason: Some("asked by its owner".into()) })
}
