//! A file of real movements, parsed once: each account with its movements in the file's order, and
//! the commands that play them.
//!
//! Ids and keys are derived from the file alone, so the same file played again makes the same
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

/// An account and its movements, oldest first, never empty.
pub struct Account {
    pub number: String,
    pub movements: Vec<Movement>,
}

/// A command to send, and the balance that its receipt has to show.
pub struct Command {
    pub name: String,
    pub path: String,
    pub key: String,
    pub body: Value,
    pub balance: u64,
}

/// Reads a CSV file, packed with gzip or not, into accounts in the order of their first lines.
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
        "its first line must name the columns {}, but reads {:?}",
        COLUMNS.join(","),
        columns.join(","),
    );
    let mut accounts: Vec<Account> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, line) in lines.deserialize::<Movement>().enumerate() {
        let movement = line?;
        movement.check().with_context(|| format!("movement {}", index + 1))?;
        let place = *places.entry(movement.account.clone()).or_insert_with(|| {
            accounts.push(Account { number: movement.account.clone(), movements: Vec::new() });
            accounts.len() - 1
        });
        accounts[place].movements.push(movement);
    }
    ensure!(!accounts.is_empty(), "it holds no movement");
    Ok(accounts)
}

impl Movement {
    fn check(&self) -> Result<()> {
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        ensure!(
            self.date.len() == 6 && self.date.bytes().all(|b| b.is_ascii_digit()),
            "date {:?} is not of the form yymmdd",
            self.date
        );
        ensure!(
            visible(&self.trans_id) && self.trans_id.len() <= 255,
            "trans_id {:?} is no Idempotency-Key: 1 to 255 visible ASCII characters",
            self.trans_id
        );
        ensure!(visible(&self.account), "account {:?} is no account number", self.account);
        ensure!(self.delta_minor != 0, "delta_minor is 0, which moves nothing");
        Ok(())
    }
}

impl Account {
    /// The same id for the same number, for ever.
    pub fn id(&self) -> Uuid {
        let name = format!("passbook/replay/{}", self.number);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }

    /// The opening, then every movement in order.
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
        parse(format!("{HEAD}{lines}").as_bytes()).expect("a file that can be read")
    }

    fn complaint(text: &str) -> String {
        format!("{:#}", parse(text.as_bytes()).err().expect("a file that is refused"))
    }

    #[test]
    fn movements_are_grouped_by_account_in_the_order_of_the_file() {
        let accounts = accounts("930101,1,7,500,500\n930101,2,8,90,90\n930102,3,7,-200,300\n");
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts[0].number, "7");
        assert_eq!(accounts[0].movements.len(), 2);
        assert_eq!(accounts[0].closing_balance(), 300);
    }

    #[test]
    fn an_account_is_opened_first_and_its_signs_become_deposits_and_withdrawals() {
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
    fn an_account_number_has_the_same_id_for_ever() {
        let account = Account { number: "2378".to_owned(), movements: Vec::new() };
        assert_eq!(account.id().to_string(), "6f701b09-b40e-5778-bc77-d2241d30d8bf");
    }

    #[test]
    fn wrong_columns_are_named() {
        assert!(complaint("a,b\n1,2\n").contains("date,trans_id,account,delta_minor,balance_minor, but reads \"a,b\""));
    }

    #[test]
    fn a_file_without_movements_is_refused() {
        assert_eq!(complaint(HEAD), "it holds no movement");
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        let cases = [
            ("930101,1,7,0,500\n", "movement 1: delta_minor is 0"),
            ("1993-01-01,1,7,5,5\n", "movement 1: date"),
            ("930101,a b,7,5,5\n", "movement 1: trans_id"),
            ("930101,1,7,five,5\n", "line: 2"),
            ("930101,1,7,5,-5\n", "line: 2"),
        ];
        for (line, expected) in cases {
            let complaint = complaint(&format!("{HEAD}{line}"));
            assert!(complaint.contains(expected), "{complaint}");
        }
    }
}
