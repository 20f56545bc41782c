//! Decisions about batches of which all or none is executed, about dry runs of several commands, and about keys.

mod atomic;
mod dry_runs;
mod keys;
mod ledger;
mod properties;
mod reversals;

use passbook_domain::{AccountCommand, Amount, Command, Currency, Transfer, command::Movement, metadata::Metadata};
use uuid::Uuid;

use self::ledger::{Ledger, single};
use crate::{
    command::{Error, Refusal, Refused},
    pending::CommandResult,
    receipt::{AccountReceipt, BatchReceipt, Receipt},
    reversal_lookup::Reversal,
};

/// The account with this number.
fn account(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn movement(amount: i64) -> Movement {
    let amount = Amount::try_from(amount).expect("an amount");
    Movement { amount, currency: None, reference: None, metadata: Metadata::default() }
}

fn open(number: u128, initial_deposit: i64) -> Command {
    let currency: Currency = serde_json::from_str("\"EUR\"").expect("a currency");
    let command =
        AccountCommand::Open { owner: "ada".into(), currency, initial_deposit, metadata: Metadata::default() };
    Command::Account { account_id: account(number), command }
}

fn deposit(number: u128, amount: i64) -> Command {
    Command::Account { account_id: account(number), command: AccountCommand::Deposit(movement(amount), None) }
}

fn withdraw(number: u128, amount: i64) -> Command {
    Command::Account { account_id: account(number), command: AccountCommand::Withdraw(movement(amount), None) }
}

fn transfer(from: u128, to: u128, amount: i64) -> Command {
    transfer_under(Uuid::from_u128(7_000 + from * 10 + to), from, to, amount)
}

fn transfer_under(transfer_id: Uuid, from: u128, to: u128, amount: i64) -> Command {
    Command::Transfer(Transfer { transfer_id, from: account(from), to: account(to), movement: movement(amount) })
}

/// All that is left of a movement, or an amount.
fn reversal(number: u128, version: i64, amount: Option<i64>) -> Reversal {
    let amount = amount.map(|amount| Amount::try_from(amount).expect("an amount"));
    Reversal { account_id: account(number), version, amount, reason: None }
}

/// A log with three accounts of 100 EUR each.
fn three_accounts(partitions: i16) -> Ledger {
    let mut ledger = Ledger::new(partitions);
    ledger.execute((1..=3).map(|number| single(open(number, 100))).collect());
    ledger
}

fn batch(result: &CommandResult) -> &BatchReceipt {
    let outcome = result.as_ref().expect("the batch is executed");
    let Receipt::Batch(batch) = &outcome.receipt else { panic!("no batch: {outcome:?}") };
    batch
}

fn receipt(result: &CommandResult) -> &AccountReceipt {
    account_receipt(&result.as_ref().expect("the command is executed").receipt)
}

fn account_receipt(receipt: &Receipt) -> &AccountReceipt {
    let Receipt::Account(account) = receipt else { panic!("no receipt of one account: {receipt:?}") };
    account
}

fn refused(result: &CommandResult) -> &Refused {
    let Err(Error::Refused(refused)) = result else { panic!("not refused: {result:?}") };
    refused
}

/// The code of a refusal, as it is recorded.
fn code(refused: &Refused) -> String {
    let Refusal::Rejected(rejection) = refused.reason else { panic!("{refused:?}") };
    let json = serde_json::to_value(rejection).expect("JSON");
    json["code"].as_str().expect("a code").to_owned()
}
