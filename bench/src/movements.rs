//! Parses a file of recorded movements into accounts, and creates their commands.
//!
//! Account ids and idempotency keys are derived from the file alone, so that a second run of the same file sends the same
//! commands.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

const COLUMNS: [&str; 5] = ["date", "trans_id", "account", "delta_minor", "balance_minor"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One line of the file. Amounts are in the currency's minor unit.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Movement {
    date: String,
    trans_id: String,
    account: String,
    delta_minor: i64,
    balance_minor: u64,
}

/// An account with at least one movement, oldest first.
pub struct Account {
    pub number: String,
    pub movements: Vec<Movement>,
}

/// A command, and the balance that its receipt must have.
pub struct Command {
    pub name: String,
    pub path: String,
    pub key: String,
    pub body: Value,
    pub balance: u64,
}

/// Reads a CSV file, optionally compressed with gzip. The accounts are in the order of their first lines.
pub fn read(path: &Path) -> Result<Vec<Account>> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut magic = Vec::new();
    (&mut file).take(2).read_to_end(&mut magic).with_context(|| format!("cannot read {name}"))?;
    file.rewind().with_context(|| format!("cannot read {name}"))?;
    let accounts = if magic == GZIP_MAGIC { parse(MultiGzDecoder::new(BufReader::new(file))) } else { parse(file) };
    accounts.with_context(|| format!("cannot replay {name}"))
}

fn parse(text: impl Read) -> Result<Vec<Account>> {
    let mut lines = csv::Reader::from_reader(text);
    let columns: Vec<_> = lines.headers()?.iter().map(str::to_owned).collect();
    ensure!(
        COLUMNS.iter().all(|needed| columns.iter().any(|column| column == needed)),
        "the first line must contain the columns {}, but it is {:?}",
        COLUMNS.join(","),
        columns.join(","),
    );
    let mut accounts: Vec<Account> = Vec::new();
    let mut indexes: HashMap<String, usize> = HashMap::new();
    for (index, line) in lines.deserialize::<Movement>().enumerate() {
        let movement = line?;
        movement.check().with_context(|| format!("movement {}", index + 1))?;
        let account = *indexes.entry(movement.account.clone()).or_insert_with(|| {
            accounts.push(Account { number: movement.account.clone(), movements: Vec::new() });
            accounts.len() - 1
        });
        accounts[account].movements.push(movement);
    }
    ensure!(!accounts.is_empty(), "the file contains no movement");
    Ok(accounts)
}

impl Movement {
    fn check(&self) -> Result<()> {
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        ensure!(
            self.date.len() == 6 && self.date.bytes().all(|b| b.is_ascii_digit()),
            "date {:?} must have the form yymmdd",
            self.date
        );
        ensure!(
            visible(&self.trans_id) && self.trans_id.len() <= 255,
            "trans_id {:?} must be a valid Idempotency-Key: 1 to 255 visible ASCII characters",
            self.trans_id
        );
        ensure!(visible(&self.account), "account {:?} must consist of visible ASCII characters", self.account);
        ensure!(self.delta_minor != 0, "delta_minor must not be 0");
        Ok(())
    }
}

impl Account {
    /// The account's id, derived from its number.
    pub fn id(&self) -> Uuid {
        let name = format!("passbook/replay/{}", self.number);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }

    /// The command that opens the account, then one command per movement.
    pub fn commands(&self) -> impl Iterator<Item = Command> {
        let id = self.id();
        let opening = Command {
            name: format!("opening of account {}", self.number),
            path: "/v1/accounts".to_owned(),
            key: format!("open-{}", self.number),
            body: json!({ "account_id": id.to_string(), "currency": "CZK" }),
            balance: 0,
        };
        let movements = self.movements.iter().map(move |movement| {
            let route = if movement.delta_minor > 0 { "deposits" } else { "withdrawals" };
            Command {
                name: format!("movement {} of account {}", movement.trans_id, self.number),
                path: format!("/v1/accounts/{id}/{route}"),
                key: movement.trans_id.clone(),
                body: json!({
                    "amount": movement.delta_minor.unsigned_abs(),
                    "currency": "CZK",
                    "reference": movement.date,
                }),
                balance: movement.balance_minor,
            }
        });
        std::iter::once(opening).chain(movements)
    }

    pub fn closing_balance(&self) -> u64 {
        self.movements.last().map_or(0, |movement| movement.balance_minor)
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, parse};

    const HEAD: &str = "date,trans_id,account,delta_minor,balance_minor\n";

    fn accounts(lines: &str) -> Vec<Account> {
        parse(format!("{HEAD}{lines}").as_bytes()).expect("a valid file")
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse(text.as_bytes()).err().expect("an invalid file"))
    }

    #[test]
    fn movements_are_grouped_by_account_in_file_order() {
        let accounts = accounts("930101,1,7,500,500\n930101,2,8,90,90\n930102,3,7,-200,300\n");
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts[0].number, "7");
        assert_eq!(accounts[0].movements.len(), 2);
        assert_eq!(accounts[0].closing_balance(), 300);
    }

    #[test]
    fn commands_are_an_opening_then_deposits_and_withdrawals() {
        let accounts = accounts("930101,1,7,500,500\n930102,3,7,-200,300\n");
        let commands: Vec<_> = accounts[0].commands().collect();
        let id = accounts[0].id();
        assert_eq!(commands[0].key, "open-7");
        assert_eq!(commands[0].body["account_id"], id.to_string());
        assert_eq!(commands[1].path, format!("/v1/accounts/{id}/deposits"));
        assert_eq!(commands[2].path, format!("/v1/accounts/{id}/withdrawals"));
        assert_eq!((commands[2].key.as_str(), commands[2].balance), ("3", 300));
        assert_eq!(commands[2].body["amount"], 200);
    }

    #[test]
    fn the_id_of_an_account_number_never_changes() {
        let account = Account { number: "2378".to_owned(), movements: Vec::new() };
        assert_eq!(account.id().to_string(), "6f701b09-b40e-5778-bc77-d2241d30d8bf");
    }

    #[test]
    fn an_error_names_the_expected_and_the_found_columns() {
        assert!(error("a,b\n1,2\n").contains("date,trans_id,account,delta_minor,balance_minor, but it is \"a,b\""));
    }

    #[test]
    fn a_file_without_movements_is_invalid() {
        assert_eq!(error(HEAD), "the file contains no movement");
    }

    #[test]
    fn an_error_names_the_invalid_line() {
        let cases = [
            ("930101,1,7,0,500\n", "movement 1: delta_minor must not be 0"),
            ("1993-01-01,1,7,5,5\n", "movement 1: date"),
            ("930101,a b,7,5,5\n", "movement 1: trans_id"),
            ("930101,1,7,five,5\n", "line: 2"),
            ("930101,1,7,5,-5\n", "line: 2"),
        ];
        for (line, expected) in cases {
            let error = error(&format!("{HEAD}{line}"));
            assert!(error.contains(expected), "{error}");
        }
    }
}
