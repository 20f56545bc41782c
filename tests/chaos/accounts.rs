//! What clients know of the accounts that they share, and random commands on them.

use std::{collections::HashMap, sync::Mutex};

use passbook_testkit::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::{CommandRecord, Outcome, account_id, accounts_of, receipts_of},
    command::Command,
};

/// The largest number of accounts in use at the same time.
const ACCOUNTS_MAX: usize = 30;
/// How many holds and movements of an account clients remember.
const REMEMBERED_MAX: usize = 20;
/// The time until a hold expires while the workload runs.
const SHORT_HOLD_S_MAX: u64 = 4;
/// The time until a hold expires that is still active when the test ends.
const LONG_HOLD_S: u64 = 86_400;

/// The accounts in use.
#[derive(Default)]
pub struct Accounts(Mutex<HashMap<Uuid, Known>>);

/// What responses reported of an account.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The highest version.
    version: i64,
    /// The last holds that no response reported as over.
    holds: Vec<Uuid>,
    /// The versions of the last movements, reversals included.
    movements: Vec<i64>,
}

/// Which commands clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    All,
    /// Without holds, reversals and limits, which the previous release does not know.
    OfPreviousRelease,
}

impl Accounts {
    /// Generates a random command.
    pub fn command(&self, mix: Mix, rng: &mut Rng, key: String) -> Command {
        let all = self.known();
        if all.len() < 2 || (rng.chance(6) && all.len() < ACCOUNTS_MAX) {
            // Half of the accounts open with balance 0, so that some can be closed.
            let initial_deposit = if rng.chance(50) { 0 } else { rng.between(1, 5_000) };
            return Command::open(key, rng.uuid(), initial_deposit);
        }
        // A quarter of all commands go to the same account, to cause conflicts.
        let (account, known) = if rng.chance(25) { &all[0] } else { rng.pick(&all) };
        let (account, other) = (*account, rng.pick(&all).0);
        let amount = rng.between(1, 300);
        let kinds = if mix == Mix::All { 100 } else { 68 };
        let mut command = match rng.below(kinds) {
            0..26 => Command::deposit(key, account, amount),
            26..42 => Command::withdrawal(key, account, amount),
            42..56 if other != account => Command::transfer(key, account, other, amount),
            42..56 => Command::deposit(key, account, amount),
            56..59 => Command::freeze(key, account),
            59..64 => Command::unfreeze(key, account),
            64..68 => Command::close(key, account),
            68..80 => place_hold(rng, key, account, amount),
            number @ 80..92 => match pick_hold(rng, known, &all) {
                Some(hold) if number < 89 => capture(rng, key, (account, hold), amount, other),
                Some(hold) => Command::void(key, account, hold),
                None => place_hold(rng, key, account, amount),
            },
            92..98 => reversal(rng, key, account, known, amount),
            _ => set_limits(rng, key, account),
        };
        if command.accepts_condition() && rng.chance(10) {
            command.if_match = Some(known.version);
        }
        command.is_keyed = !rng.chance(30);
        command
    }

    /// Random commands of one batch. Some work on an account that an earlier one opens, or reverse a movement of an earlier one.
    pub fn batch(&self, rng: &mut Rng, key: &str, commands_max: u64) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        for number in 0..rng.between(1, commands_max) {
            let key = format!("{key}-{number}");
            let mut command = match commands.last() {
                Some(earlier) if rng.chance(20) => follow_up(rng, key, earlier),
                Some(_) | None => self.command(Mix::All, rng, key),
            };
            (command.if_match, command.is_keyed) = (None, true);
            commands.push(command);
        }
        commands
    }

    /// Learns from the outcome of a command.
    pub fn learn(&self, record: &CommandRecord) {
        let mut accounts = self.0.lock().unwrap();
        match &record.outcome {
            Outcome::Recorded(receipt) => {
                receipts_of(receipt).into_iter().for_each(|receipt| learn_receipt(&mut accounts, receipt));
            }
            Outcome::Rejected(code) => match (code.as_str(), record.command.hold) {
                ("account_closed", _) if record.command.accounts.len() == 1 => {
                    accounts.remove(&record.command.accounts[0]);
                }
                ("hold_not_active", Some(id)) => {
                    accounts.values_mut().for_each(|known| known.holds.retain(|known| *known != id));
                }
                _ => {}
            },
            Outcome::Unknown => {}
        }
    }

    fn known(&self) -> Vec<(Uuid, Known)> {
        let mut known: Vec<_> = self.0.lock().unwrap().iter().map(|(id, known)| (*id, known.clone())).collect();
        known.sort_unstable_by_key(|(id, _)| *id);
        known
    }
}

/// Learns from the receipt of one command.
fn learn_receipt(accounts: &mut HashMap<Uuid, Known>, receipt: &Value) {
    for account in accounts_of(receipt) {
        learn_account(accounts, account);
    }
    if let Some(hold) = receipt.get("hold")
        && let Some(known) = accounts.get_mut(&account_id(hold))
    {
        let id = hold["hold_id"].as_str().unwrap().parse().unwrap();
        known.holds.retain(|known| *known != id);
        if hold["status"] == "active" {
            remember(&mut known.holds, id);
        }
    }
}

/// Learns from the part of a receipt for one account. Forgets a closed account.
fn learn_account(accounts: &mut HashMap<Uuid, Known>, account: &Value) {
    if account["status"] == "closed" {
        accounts.remove(&account_id(account));
        return;
    }
    let known = accounts.entry(account_id(account)).or_default();
    known.version = known.version.max(account["version"].as_i64().unwrap());
    let last = account["events"].as_array().unwrap().last().unwrap();
    let moves_money = !matches!(
        last["type"].as_str().unwrap(),
        "HoldPlaced" | "HoldReleased" | "LimitsSet" | "AccountFrozen" | "AccountUnfrozen"
    );
    if moves_money {
        remember(&mut known.movements, last["version"].as_i64().unwrap());
    }
}

fn remember<T>(list: &mut Vec<T>, item: T) {
    if list.len() == REMEMBERED_MAX {
        list.remove(0);
    }
    list.push(item);
}

/// A command on the first account of an earlier command of the same batch.
fn follow_up(rng: &mut Rng, key: String, earlier: &Command) -> Command {
    let account = earlier.accounts[0];
    match rng.below(3) {
        0 => Command::deposit(key, account, rng.between(1, 300)),
        1 => Command::withdrawal(key, account, rng.between(1, 300)),
        // The movement of a new account; of others the version is one that is recorded already.
        _ => Command::reversal(key, account, 1, Some(rng.between(1, 50))),
    }
}

fn place_hold(rng: &mut Rng, key: String, account: Uuid, amount: u64) -> Command {
    let expires_in_seconds = if rng.chance(60) { rng.between(1, SHORT_HOLD_S_MAX) } else { LONG_HOLD_S };
    Command::place_hold(key, account, amount, expires_in_seconds)
}

/// A hold of the account, or sometimes of another one, which no command may find on this account.
fn pick_hold(rng: &mut Rng, known: &Known, all: &[(Uuid, Known)]) -> Option<Uuid> {
    let known = if rng.chance(4) { &rng.pick(all).1 } else { known };
    (!known.holds.is_empty()).then(|| *rng.pick(&known.holds))
}

fn capture(rng: &mut Rng, key: String, (account, hold): (Uuid, Uuid), amount: u64, other: Uuid) -> Command {
    let mut body = json!({});
    if rng.chance(60) {
        body["amount"] = json!(amount.div_ceil(2));
        body["final"] = json!(rng.chance(40));
    }
    if other != account && rng.chance(40) {
        body["to"] = json!(other);
    }
    Command::capture(key, account, hold, body)
}

/// A reversal of a known movement, or sometimes of an event that is none or is not recorded yet.
fn reversal(rng: &mut Rng, key: String, account: Uuid, known: &Known, amount: u64) -> Command {
    let version = match known.movements.is_empty() || rng.chance(15) {
        true => rng.between(1, known.version.unsigned_abs() + 1).cast_signed(),
        false => *rng.pick(&known.movements),
    };
    Command::reversal(key, account, version, rng.chance(50).then_some(amount))
}

fn set_limits(rng: &mut Rng, key: String, account: Uuid) -> Command {
    let mut body = json!({});
    for (name, percent, max) in [
        ("overdraft", 60, 1_000),
        ("per_movement", 20, 300),
        ("out_per_day", 25, 20_000),
        ("out_per_month", 15, 40_000),
    ] {
        if rng.chance(percent) {
            body[name] = json!(rng.between(max / 10, max));
        }
    }
    Command::set_limits(key, account, body)
}
