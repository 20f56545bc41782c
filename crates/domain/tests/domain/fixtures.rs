//! Commands and events for the tests: functions named by a verb build commands, those in the past tense build events.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use passbook_domain::{
    AccountCommand, Amount, Currency, Event, Limits, Metadata, Rejection, Transfer,
    command::{CaptureHold, Movement, PlaceHold},
    event::{
        AccountOpened, HoldCaptured, HoldPlaced, HoldReleased, MoneyMoved, ReleaseCause, StatusChanged,
        TransferReceived, TransferSent,
    },
    holds::hold_id,
};
use uuid::{Uuid, uuid};

pub const FROM: Uuid = uuid!("01900000-0000-7000-8000-000000000001");
pub const TO: Uuid = uuid!("01900000-0000-7000-8000-000000000002");
pub const TRANSFER: Uuid = uuid!("01900000-0000-7000-8000-00000000000f");
/// Makes the ids of holds.
pub const UNIQUE: Uuid = uuid!("01900000-0000-7000-8000-0000000000ff");
pub const OWNER: &str = "customer-17";
/// How long holds of these tests last.
pub const HOLD_SECONDS: u32 = 3_600;

/// The time of the events and decisions of most tests.
pub fn noon() -> DateTime<Utc> {
    time("2026-01-31T12:00:00Z")
}

pub fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// When a hold that was placed at noon is over.
pub fn expiry() -> DateTime<Utc> {
    noon() + TimeDelta::seconds(HOLD_SECONDS.into())
}

/// The id of the hold that is placed at this version.
pub fn hold_at(version: i64) -> Uuid {
    hold_id(version, UNIQUE)
}

pub fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    let pairs: BTreeMap<String, String> = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Metadata::new(pairs).unwrap()
}

pub fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).unwrap()
}

pub fn movement(minor_units: i64) -> Movement {
    Movement { amount: amount(minor_units), currency: None, reference: None, metadata: Metadata::default() }
}

pub fn in_currency(currency: Currency, minor_units: i64) -> Movement {
    Movement { currency: Some(currency), ..movement(minor_units) }
}

// Commands.

pub fn open(initial_deposit: i64) -> AccountCommand {
    let metadata = Metadata::default();
    AccountCommand::Open { owner: OWNER.into(), currency: Currency::EUR, initial_deposit, metadata }
}

pub fn deposit(minor_units: i64) -> AccountCommand {
    AccountCommand::Deposit(movement(minor_units), None)
}

pub fn withdraw(minor_units: i64) -> AccountCommand {
    AccountCommand::Withdraw(movement(minor_units), None)
}

pub fn place(minor_units: i64) -> AccountCommand {
    let (unique, expires_in_seconds) = (UNIQUE, HOLD_SECONDS);
    AccountCommand::PlaceHold(PlaceHold { unique, movement: movement(minor_units), expires_in_seconds })
}

/// A capture of the hold that was placed at this version, active or over.
pub fn capture_of(version: i64, minor_units: Option<i64>, is_final: bool) -> CaptureHold {
    let (hold_id, amount) = (hold_at(version), minor_units.map(amount));
    CaptureHold { hold_id, was_placed: true, amount, is_final, reference: None }
}

pub fn capture(version: i64, minor_units: Option<i64>, is_final: bool) -> AccountCommand {
    AccountCommand::CaptureHold(capture_of(version, minor_units, is_final))
}

pub fn void(version: i64) -> AccountCommand {
    AccountCommand::VoidHold { hold_id: hold_at(version), was_placed: true, reason: None }
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
    not_available(balance, balance, minor_units)
}

pub fn not_available(balance: i64, available: i64, minor_units: i64) -> Rejection {
    let (amount, available) = (amount(minor_units), Some(available));
    Rejection::InsufficientFunds { balance, available, amount, currency: Currency::EUR }
}

pub fn balance_not_zero(balance: i64) -> Rejection {
    Rejection::BalanceNotZero { balance, currency: Currency::EUR }
}

// Events.

pub fn opened(initial_deposit: i64) -> Event {
    opened_in(Currency::EUR, initial_deposit)
}

pub fn opened_in(currency: Currency, initial_deposit: i64) -> Event {
    let metadata = Metadata::default();
    Event::AccountOpened(AccountOpened { owner: OWNER.into(), currency, initial_deposit, metadata })
}

pub fn deposited(minor_units: i64) -> Event {
    Event::MoneyDeposited(moved(minor_units))
}

pub fn withdrawn(minor_units: i64) -> Event {
    Event::MoneyWithdrawn(moved(minor_units))
}

pub fn moved(minor_units: i64) -> MoneyMoved {
    MoneyMoved { amount: amount(minor_units), reference: None, channel: None, metadata: Metadata::default() }
}

pub fn sent(minor_units: i64) -> Event {
    Event::TransferSent(sent_side(minor_units))
}

pub fn sent_side(minor_units: i64) -> TransferSent {
    let (transfer_id, amount, metadata) = (TRANSFER, amount(minor_units), Metadata::default());
    TransferSent { transfer_id, to: TO, amount, reference: None, hold_id: None, is_final: None, metadata }
}

pub fn received(minor_units: i64) -> Event {
    Event::TransferReceived(received_side(minor_units))
}

pub fn received_side(minor_units: i64) -> TransferReceived {
    let (transfer_id, amount, metadata) = (TRANSFER, amount(minor_units), Metadata::default());
    TransferReceived { transfer_id, from: FROM, amount, reference: None, hold_id: None, metadata }
}

/// A hold that is placed at noon.
pub fn placed(version: i64, minor_units: i64) -> Event {
    let (hold_id, amount, metadata) = (hold_at(version), amount(minor_units), Metadata::default());
    Event::HoldPlaced(HoldPlaced { hold_id, amount, expires_at: expiry(), reference: None, metadata })
}

pub fn captured(version: i64, minor_units: i64, is_final: bool) -> Event {
    let (hold_id, amount) = (hold_at(version), amount(minor_units));
    Event::HoldCaptured(HoldCaptured { hold_id, amount, is_final, reference: None })
}

pub fn released(version: i64, minor_units: i64, cause: ReleaseCause) -> Event {
    let (hold_id, amount) = (hold_at(version), amount(minor_units));
    Event::HoldReleased(HoldReleased { hold_id, amount, cause, reason: None })
}

pub fn limits_set(limits: Limits) -> Event {
    Event::LimitsSet(limits)
}

pub fn overdraft(overdraft: i64) -> Limits {
    Limits { overdraft, ..Limits::default() }
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
