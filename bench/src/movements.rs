//! Parses a file of recorded movements, and creates their commands.
//!
//! Account ids and idempotency keys are derived from the file alone, so that a second run of the same file sends the same
//! commands.

use std::collections::{HashMap, HashSet};
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
    pub date: String,
    pub trans_id: String,
    account: String,
    pub delta_minor: i64,
    pub balance_minor: u64,
}

/// The movements of a file, in the order of the file.
pub struct Recording {
    movements: Vec<Movement>,
}

/// An account with at least one movement, oldest first.
pub struct Account {
    pub number: String,
    pub movements: Vec<Movement>,
}

/// Reads a CSV file, optionally compressed with gzip.
pub fn read(path: &Path) -> Result<Recording> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut magic = Vec::new();
    (&mut file).take(2).read_to_end(&mut magic).with_context(|| format!("cannot read {name}"))?;
    file.rewind().with_context(|| format!("cannot read {name}"))?;
    let recording = if magic == GZIP_MAGIC { parse(MultiGzDecoder::new(BufReader::new(file))) } else { parse(file) };
    recording.with_context(|| format!("cannot replay {name}"))
}

fn parse(text: impl Read) -> Result<Recording> {
    let mut lines = csv::Reader::from_reader(text);
    let columns: Vec<_> = lines.headers()?.iter().map(str::to_owned).collect();
    ensure!(
        COLUMNS.iter().all(|needed| columns.iter().any(|column| column == needed)),
        "the first line must contain the columns {}, but it is {:?}",
        COLUMNS.join(","),
        columns.join(","),
    );
    let mut movements = Vec::new();
    for (index, line) in lines.deserialize::<Movement>().enumerate() {
        let movement = line?;
        movement.check().with_context(|| format!("movement {}", index + 1))?;
        movements.push(movement);
    }
    ensure!(!movements.is_empty(), "the file contains no movement");
    Ok(Recording { movements })
}

/// The id of an account, derived from its number.
fn account_id(number: &str) -> Uuid {
    let name = format!("passbook/replay/{number}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

impl Recording {
    pub fn movements(&self) -> usize {
        self.movements.len()
    }

    /// The commands of a batch: a deposit or a withdrawal for each movement, and before an account's first one its opening.
    pub fn commands(&self) -> impl Iterator<Item = Value> {
        let mut opened = HashSet::new();
        self.movements.iter().flat_map(move |movement| {
            let opening = opened.insert(&movement.account).then(|| movement.opening());
            opening.into_iter().chain([movement.command()])
        })
    }

    /// The accounts in the order of their first movements.
    pub fn into_accounts(self) -> Vec<Account> {
        let mut accounts: Vec<Account> = Vec::new();
        let mut indexes: HashMap<String, usize> = HashMap::new();
        for movement in self.movements {
            let account = *indexes.entry(movement.account.clone()).or_insert_with(|| {
                accounts.push(Account { number: movement.account.clone(), movements: Vec::new() });
                accounts.len() - 1
            });
            accounts[account].movements.push(movement);
        }
        accounts
    }
}

impl Account {
    pub fn id(&self) -> Uuid {
        account_id(&self.number)
    }
}

impl Movement {
    fn opening(&self) -> Value {
        json!({
            "command": "open",
            "idempotency_key": format!("open-{}", self.account),
            "account_id": account_id(&self.account),
            "currency": "CZK",
        })
    }

    fn command(&self) -> Value {
        json!({
            "command": if self.delta_minor > 0 { "deposit" } else { "withdraw" },
            "idempotency_key": self.trans_id,
            "account_id": account_id(&self.account),
            "amount": self.delta_minor.unsigned_abs(),
            "currency": "CZK",
            "reference": self.date,
        })
    }

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

#[cfg(test)]
mod tests {
    use super::{Recording, account_id, parse};

    const HEAD: &str = "date,trans_id,account,delta_minor,balance_minor\n";

    fn recording(lines: &str) -> Recording {
        parse(format!("{HEAD}{lines}").as_bytes()).expect("a valid file")
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse(text.as_bytes()).err().expect("an invalid file"))
    }

    #[test]
    fn movements_are_grouped_by_account_in_file_order() {
        let accounts = recording("930101,1,7,500,500\n930101,2,8,90,90\n930102,3,7,-200,300\n").into_accounts();
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts[0].number, "7");
        let balances: Vec<_> = accounts[0].movements.iter().map(|movement| movement.balance_minor).collect();
        assert_eq!(balances, [500, 300]);
    }

    #[test]
    fn an_account_is_opened_before_its_first_movement() {
        let recording = recording("930101,1,7,500,500\n930101,2,8,90,90\n930102,3,7,-200,300\n");
        let commands: Vec<_> = recording.commands().collect();
        let names: Vec<_> = commands.iter().map(|command| command["command"].as_str().expect("a name")).collect();
        assert_eq!(names, ["open", "deposit", "open", "deposit", "withdraw"]);
        let keys: Vec<_> = commands.iter().map(|command| command["idempotency_key"].as_str().expect("a key")).collect();
        assert_eq!(keys, ["open-7", "1", "open-8", "2", "3"]);
        assert_eq!(commands[4]["account_id"], account_id("7").to_string());
        assert_eq!(commands[4]["amount"], 200);
    }

    #[test]
    fn the_id_of_an_account_number_never_changes() {
        assert_eq!(account_id("2378").to_string(), "6f701b09-b40e-5778-bc77-d2241d30d8bf");
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
