//! Random histories over a few accounts, and what the log says of them, folded by the test itself.

use chrono::{DateTime, Utc};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    App,
    audit::{fold, signed_amount},
    log::{Event, Log},
};

pub const ACCOUNTS: usize = 3;

/// What is asked of which account.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Deposit(usize, i64),
    Withdraw(usize, i64),
    Transfer(usize, usize, i64),
    Freeze(usize),
    Unfreeze(usize),
    Close(usize),
}

/// A history: how the accounts are opened, and what is asked of them then.
#[derive(Clone, Debug)]
pub struct History {
    openings: [i64; ACCOUNTS],
    deeds: Vec<Deed>,
}

/// Openings with and without a deposit; some deeds are refused.
pub fn history(deeds: usize) -> impl Strategy<Value = History> {
    let account = || 0..ACCOUNTS;
    let amount = || 1..300i64;
    let deed = prop_oneof![
        6 => (account(), amount()).prop_map(|(account, amount)| Deed::Deposit(account, amount)),
        5 => (account(), amount()).prop_map(|(account, amount)| Deed::Withdraw(account, amount)),
        5 => (account(), account(), amount()).prop_map(|(from, to, amount)| Deed::Transfer(from, to, amount)),
        1 => account().prop_map(Deed::Freeze),
        2 => account().prop_map(Deed::Unfreeze),
        1 => account().prop_map(Deed::Close),
    ];
    let opening = || prop_oneof![Just(0), 1..500i64];
    ([opening(), opening(), opening()], vec(deed, deeds / 2..deeds))
        .prop_map(|(openings, deeds)| History { openings, deeds })
}

impl History {
    /// Lets it happen, one command after the other, and says to which accounts.
    pub async fn happen(&self, app: &App) -> Vec<Uuid> {
        let teller = app.teller();
        let mut accounts = Vec::new();
        for opening in self.openings {
            accounts.push(teller.account_with(opening).await);
        }
        for deed in &self.deeds {
            let answer = match *deed {
                Deed::Deposit(account, amount) => teller.deposit(accounts[account], amount).await,
                Deed::Withdraw(account, amount) => teller.withdraw(accounts[account], amount).await,
                Deed::Transfer(from, to, amount) => teller.transfer(accounts[from], accounts[to], amount).await,
                Deed::Freeze(account) => teller.freeze(accounts[account]).await,
                Deed::Unfreeze(account) => teller.unfreeze(accounts[account]).await,
                Deed::Close(account) => teller.close(accounts[account]).await,
            };
            assert!(answer.status < 500, "{deed:?} {}", answer.body);
        }
        accounts
    }
}

/// The events of one account.
pub fn events_of(log: &Log, account: Uuid) -> Vec<Event> {
    log.events.iter().filter(|event| event.stream_id == account).cloned().collect()
}

/// The view that these events of one account make, or nothing.
pub fn view_of(events: &[Event]) -> Option<Value> {
    let (first, last) = (events.first()?, events.last()?);
    let account = fold(events).remove(&first.stream_id)?;
    let closed = events.iter().find(|event| event.event_type == "AccountClosed");
    Some(json!({
        "account_id": first.stream_id,
        "owner": account.owner,
        "currency": account.currency,
        "status": account.status,
        "balance": account.balance,
        "version": account.version,
        "transaction_count": account.transaction_count,
        "opened_at": written(first.recorded_at),
        "last_activity_at": written(last.recorded_at),
        "closed_at": closed.map(|event| written(event.recorded_at)),
    }))
}

/// The statement over these times that the events of one account make, up to a position.
pub fn statement_of(events: &[Event], from: DateTime<Utc>, to: DateTime<Utc>) -> Value {
    let mut balance = 0;
    let (mut opening, mut total_in, mut total_out, mut lines) = (0, 0, 0, vec![]);
    for event in events.iter().filter(|event| event.recorded_at < to) {
        let gain = signed_amount(event);
        balance += gain;
        if event.recorded_at < from {
            opening = balance;
        } else if gain != 0 {
            total_in += gain.max(0);
            total_out -= gain.min(0);
            lines.push(line(event, balance));
        }
    }
    json!({
        "opening_balance": opening, "lines": lines, "total_in": total_in, "total_out": total_out,
        "closing_balance": balance,
    })
}

fn line(event: &Event, balance: i64) -> Value {
    let data = event.json();
    let kind = match event.event_type.as_str() {
        "AccountOpened" => "opening_deposit",
        "MoneyDeposited" => "deposit",
        "MoneyWithdrawn" => "withdrawal",
        "TransferSent" => "transfer_out",
        _ => "transfer_in",
    };
    let other = if data["to"].is_null() { &data["from"] } else { &data["to"] };
    json!({
        "version": event.version, "kind": kind, "amount": signed_amount(event).abs(), "balance_after": balance,
        "transfer_id": data["transfer_id"], "counterparty_account_id": other, "reference": data["reference"],
        "recorded_at": written(event.recorded_at), "event_id": event.id,
    })
}

/// As the contract writes times.
pub fn written(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
