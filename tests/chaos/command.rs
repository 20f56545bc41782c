//! Random commands on accounts that all clients share.

use std::{collections::HashMap, sync::Mutex};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::dice::Dice;

/// So many accounts at the most are in use at once.
const ACCOUNTS_MAX: usize = 30;

/// A command as it is sent, each time alike.
#[derive(Clone, Debug)]
pub struct Command {
    /// Stands in the metadata of its events.
    pub key: String,
    /// Whether it may be sent again when nobody knows what became of it: the key goes with it as its idempotency key.
    pub is_keyed: bool,
    pub path: String,
    pub body: Value,
    pub if_match: Option<i64>,
    /// The accounts that it changes.
    pub accounts: Vec<Uuid>,
    /// What is recorded of it in each of them.
    pub facts: &'static [&'static str],
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

    fn withdrawal(key: String, account: Uuid, amount: u64) -> Self {
        let path = format!("/v1/accounts/{account}/withdrawals");
        Self::new(key, path, json!({"amount": amount, "reference": "ätm"}), vec![account], &["MoneyWithdrawn"])
    }

    fn transfer(key: String, from: Uuid, to: Uuid, amount: u64) -> Self {
        let body = json!({"from": from, "to": to, "amount": amount});
        Self::new(key, "/v1/transfers".to_owned(), body, vec![from, to], &["TransferSent", "TransferReceived"])
    }

    fn status(key: String, account: Uuid, operation: &str, fact: &'static [&'static str]) -> Self {
        let path = format!("/v1/accounts/{account}/{operation}");
        Self::new(key, path, json!({"reason": "chaos"}), vec![account], fact)
    }

    fn new(key: String, path: String, body: Value, accounts: Vec<Uuid>, facts: &'static [&'static str]) -> Self {
        Self { key, is_keyed: true, path, body, if_match: None, accounts, facts }
    }
}

/// The accounts in use, and the version that each was last told to have.
#[derive(Default)]
pub struct Accounts(Mutex<HashMap<Uuid, i64>>);

impl Accounts {
    /// A random command.
    pub fn command(&self, dice: &mut Dice, key: String) -> Command {
        let known = self.known();
        if known.len() < 2 || (dice.chance(6) && known.len() < ACCOUNTS_MAX) {
            // Some without money, which can be closed.
            let initial_deposit = if dice.chance(50) { 0 } else { dice.between(1, 5_000) };
            return Command::open(key, dice.uuid(), initial_deposit);
        }
        // One is in everybody's mind.
        let (account, version) = if dice.chance(25) { known[0] } else { *dice.pick(&known) };
        let amount = dice.between(1, 300);
        let mut command = match dice.below(100) {
            0..36 => Command::deposit(key, account, amount),
            36..66 => Command::withdrawal(key, account, amount),
            66..88 => match dice.pick(&known).0 {
                other if other != account => Command::transfer(key, account, other, amount),
                _ => Command::deposit(key, account, amount),
            },
            88..91 => Command::status(key, account, "freeze", &["AccountFrozen"]),
            91..96 => Command::status(key, account, "unfreeze", &["AccountUnfrozen"]),
            _ => Command::status(key, account, "close", &["AccountClosed"]),
        };
        if command.accounts.len() == 1 && dice.chance(10) {
            command.if_match = Some(version);
        }
        command.is_keyed = !dice.chance(30);
        command
    }

    /// An account is at this version now.
    pub fn note(&self, account: Uuid, version: i64, is_closed: bool) {
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
