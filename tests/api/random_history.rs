//! Random command sequences on a few accounts, and the views and statements expected from their events. The fold shares
//! no code with the service.

use chrono::{DateTime, Utc};
use passbook_testkit::{
    App,
    audit::{balance_change, fold},
    log::{Event, Log},
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use uuid::Uuid;

pub const ACCOUNTS: usize = 3;

/// A command on accounts that are named by their index.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    Deposit(usize, i64),
    Withdraw(usize, i64),
    Transfer(usize, usize, i64),
    Freeze(usize),
    Unfreeze(usize),
    Close(usize),
}

/// The opening balances of the accounts and the commands that follow.
#[derive(Clone, Debug)]
pub struct History {
    opening_balances: [i64; ACCOUNTS],
    commands: Vec<Command>,
}

/// Generates histories. Some accounts open with a balance of 0, and some commands are refused.
pub fn history(commands: usize) -> impl Strategy<Value = History> {
    let account = || 0..ACCOUNTS;
    let amount = || 1..300i64;
    let command = prop_oneof![
        6 => (account(), amount()).prop_map(|(account, amount)| Command::Deposit(account, amount)),
        5 => (account(), amount()).prop_map(|(account, amount)| Command::Withdraw(account, amount)),
        5 => (account(), account(), amount()).prop_map(|(from, to, amount)| Command::Transfer(from, to, amount)),
        1 => account().prop_map(Command::Freeze),
        2 => account().prop_map(Command::Unfreeze),
        1 => account().prop_map(Command::Close),
    ];
    let opening = || prop_oneof![Just(0), 1..500i64];
    ([opening(), opening(), opening()], vec(command, commands / 2..commands))
        .prop_map(|(opening_balances, commands)| History { opening_balances, commands })
}

impl History {
    /// Sends the commands one after the other and returns the account ids.
    pub async fn run(&self, app: &App) -> Vec<Uuid> {
        let client = app.client();
        let mut accounts = Vec::new();
        for balance in self.opening_balances {
            accounts.push(client.open_with_balance(balance).await);
        }
        for command in &self.commands {
            let response = match *command {
                Command::Deposit(account, amount) => client.deposit(accounts[account], amount).await,
                Command::Withdraw(account, amount) => client.withdraw(accounts[account], amount).await,
                Command::Transfer(from, to, amount) => client.transfer(accounts[from], accounts[to], amount).await,
                Command::Freeze(account) => client.freeze(accounts[account]).await,
                Command::Unfreeze(account) => client.unfreeze(accounts[account]).await,
                Command::Close(account) => client.close(accounts[account]).await,
            };
            assert!(response.status < 500, "{command:?} {}", response.body);
        }
        accounts
    }
}

/// The events of one account.
pub fn account_events(log: &Log, account: Uuid) -> Vec<Event> {
    log.events.iter().filter(|event| event.stream_id == account).cloned().collect()
}

/// The account view expected from these events of one account; `None` without events.
pub fn expected_view(events: &[Event]) -> Option<Value> {
    let (first, last) = (events.first()?, events.last()?);
    let account = fold(events).remove(&first.stream_id)?;
    let closed = events.iter().find(|event| event.event_type == "AccountClosed");
    Some(json!({
        "account_id": first.stream_id,
        "owner": account.owner,
        "currency": account.currency,
        "status": account.status,
        "balance": account.balance,
        "held": 0,
        "available": account.balance,
        "overdraft": 0,
        "metadata": {},
        "version": account.version,
        "transaction_count": account.transaction_count,
        "opened_at": format_time(first.recorded_at),
        "last_activity_at": format_time(last.recorded_at),
        "closed_at": closed.map(|event| format_time(event.recorded_at)),
    }))
}

/// The statement of a period expected from the events of one account.
pub fn expected_statement(events: &[Event], from: DateTime<Utc>, to: DateTime<Utc>) -> Value {
    let mut balance = 0;
    let (mut opening, mut total_in, mut total_out, mut lines) = (0, 0_i64, 0_i64, vec![]);
    for event in events.iter().filter(|event| event.recorded_at < to) {
        let change = balance_change(event);
        balance += change;
        if event.recorded_at < from {
            opening = balance;
        } else if change != 0 {
            total_in += change.max(0);
            total_out -= change.min(0);
            lines.push(line(events, event, balance));
        }
    }
    json!({
        "opening_balance": opening, "lines": lines, "total_in": total_in.to_string(), "total_out": total_out.to_string(),
        "closing_balance": balance,
    })
}

/// The line of one of the events of an account.
fn line(events: &[Event], event: &Event, balance: i64) -> Value {
    let data = event.json();
    let kind = match (event.event_type.as_str(), data["effect"].as_str()) {
        ("AccountOpened", _) => "opening_deposit",
        ("MoneyDeposited", _) => "deposit",
        ("MoneyWithdrawn", _) => "withdrawal",
        ("TransferSent", _) => "transfer_out",
        ("TransferReceived", _) => "transfer_in",
        ("HoldCaptured", _) => "capture",
        ("MovementReversed", Some("credit")) => "reversal_in",
        ("MovementReversed", Some("debit")) => "reversal_out",
        unknown => panic!("{unknown:?} moves no money"),
    };
    let other_account = |data: &Value| if data["to"].is_null() { data["from"].clone() } else { data["to"].clone() };
    let reversed = events.iter().find(|original| data["reverses_version"] == original.version);
    // The metadata of an opening is that of the account.
    let metadata = data["metadata"].as_object().filter(|_| kind != "opening_deposit");
    json!({
        "version": event.version, "kind": kind, "amount": balance_change(event).abs(), "balance_after": balance,
        "transfer_id": data["transfer_id"], "reference": data["reference"], "hold_id": data["hold_id"],
        "counterparty_account_id": reversed.map_or_else(|| other_account(&data), |original| other_account(&original.json())),
        "reverses_version": data["reverses_version"], "channel": data["channel"],
        "metadata": metadata.cloned().unwrap_or_default(),
        "recorded_at": format_time(event.recorded_at), "event_id": event.id,
    })
}

/// Formats a time as the contract requires.
pub fn format_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
