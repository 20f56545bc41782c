//! Generates random commands on accounts that all clients share.

use std::{collections::HashMap, sync::Mutex};

use passbook_testkit::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

/// The largest number of accounts in use at the same time.
const ACCOUNTS_MAX: usize = 30;

/// A command. Every attempt sends the same request.
#[derive(Clone, Debug)]
pub struct Command {
    /// The request id. Events carry it as the correlation id in their metadata.
    pub key: String,
    /// Whether `key` is also sent as the idempotency key. Only then is a retry after an unknown outcome safe.
    pub is_keyed: bool,
    pub path: String,
    pub body: Value,
    pub if_match: Option<i64>,
    /// The accounts that the command changes.
    pub accounts: Vec<Uuid>,
    /// The type of the event that it records in each account.
    pub event_types: &'static [&'static str],
}

impl Command {
    pub fn open(key: String, account: Uuid, initial_deposit: u64) -> Self {
        let body =
            json!({"account_id": account, "currency": "EUR", "owner": "chaos", "initial_deposit": initial_deposit});
        Self::new(key, "/v1/accounts".to_owned(), body, vec![account], &["AccountOpened"])
    }

    pub fn deposit(key: String, account: Uuid, amount: u64) -> Self {
        let path = format!("/v1/accounts/{account}/deposits");
        Self::new(key, path, json!({"amount": amount}), vec![account], &["MoneyDeposited"])
    }

    pub fn withdrawal(key: String, account: Uuid, amount: u64) -> Self {
        let path = format!("/v1/accounts/{account}/withdrawals");
        Self::new(key, path, json!({"amount": amount, "reference": "ätm"}), vec![account], &["MoneyWithdrawn"])
    }

    fn transfer(key: String, from: Uuid, to: Uuid, amount: u64) -> Self {
        let body = json!({"from": from, "to": to, "amount": amount});
        Self::new(key, "/v1/transfers".to_owned(), body, vec![from, to], &["TransferSent", "TransferReceived"])
    }

    fn status(key: String, account: Uuid, operation: &str, event_types: &'static [&'static str]) -> Self {
        let path = format!("/v1/accounts/{account}/{operation}");
        Self::new(key, path, json!({"reason": "chaos"}), vec![account], event_types)
    }

    fn new(key: String, path: String, body: Value, accounts: Vec<Uuid>, event_types: &'static [&'static str]) -> Self {
        Self { key, is_keyed: true, path, body, if_match: None, accounts, event_types }
    }
}

/// The accounts in use, each with the highest version that a response reported.
#[derive(Default)]
pub struct Accounts(Mutex<HashMap<Uuid, i64>>);

impl Accounts {
    /// Generates a random command.
    pub fn command(&self, rng: &mut Rng, key: String) -> Command {
        let known = self.known();
        if known.len() < 2 || (rng.chance(6) && known.len() < ACCOUNTS_MAX) {
            // Half of the accounts open with balance 0, so that some can be closed.
            let initial_deposit = if rng.chance(50) { 0 } else { rng.between(1, 5_000) };
            return Command::open(key, rng.uuid(), initial_deposit);
        }
        // A quarter of all commands go to the same account, to cause conflicts.
        let (account, version) = if rng.chance(25) { known[0] } else { *rng.pick(&known) };
        let amount = rng.between(1, 300);
        let mut command = match rng.below(100) {
            0..36 => Command::deposit(key, account, amount),
            36..66 => Command::withdrawal(key, account, amount),
            66..88 => match rng.pick(&known).0 {
                other if other != account => Command::transfer(key, account, other, amount),
                _ => Command::deposit(key, account, amount),
            },
            88..91 => Command::status(key, account, "freeze", &["AccountFrozen"]),
            91..96 => Command::status(key, account, "unfreeze", &["AccountUnfrozen"]),
            _ => Command::status(key, account, "close", &["AccountClosed"]),
        };
        if command.accounts.len() == 1 && rng.chance(10) {
            command.if_match = Some(version);
        }
        command.is_keyed = !rng.chance(30);
        command
    }

    /// Stores the version that a response reported. Forgets a closed account.
    pub fn update(&self, account: Uuid, version: i64, is_closed: bool) {
        let mut accounts = self.0.lock().unwrap();
        match is_closed {
            true => drop(accounts.remove(&account)),
            false => {
                let known = accounts.entry(account).or_default();
                *known = version.max(*known);
            }
        }
    }

    fn known(&self) -> Vec<(Uuid, i64)> {
        let mut known: Vec<(Uuid, i64)> = self.0.lock().unwrap().iter().map(|(id, version)| (*id, *version)).collect();
        known.sort_unstable();
        known
    }
}
