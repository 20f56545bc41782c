//! hledger proves the books of a random history of all commands in three currencies: its balances are those of the trial balance,
//! and the customers' deposits are the sum of all balances.

use std::{collections::BTreeMap, fs, process::Command};

use passbook_audit::verification::verify;
use passbook_testkit::{
    ApiClient, App, Rng,
    audit::audit,
    books_audit::{CUSTOMER_DEPOSITS, Sums, sums_until},
    spawn_app_with,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    journal::{ALL_DAYS, assert_equals_log, path},
    statement::major_units,
    trial_balance::{sums, trial_balance},
};

const CURRENCIES: [&str; 3] = ["EUR", "JPY", "KWD"];
const ACCOUNTS: usize = 24;
/// The commands of one batch.
const BATCH: usize = 250;
/// The number of events, unless the variable says another one.
const EVENTS: usize = 1_500;
const EVENTS_VARIABLE: &str = "PASSBOOK_TEST_BOOKS_EVENTS";

/// A balance by currency and ledger account, in major units. Balances of 0 are left out, as hledger does.
pub type Balances = BTreeMap<(String, String), String>;

/// An account of a history, as far as its commands need it.
struct Account {
    id: Uuid,
    version: u64,
    holds: Vec<Value>,
}

/// A random history. Some commands are refused.
pub struct History {
    accounts: Vec<Account>,
    rng: Rng,
    pub events: usize,
}

impl History {
    /// Opens the accounts, some of them empty.
    pub async fn new(app: &App, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut accounts = Vec::new();
        for number in 0..ACCOUNTS {
            let currency = CURRENCIES[number % CURRENCIES.len()];
            let initial_deposit = rng.below(2) * rng.between(1, 90_000);
            let opened = app.client().open(json!({"currency": currency, "initial_deposit": initial_deposit})).await;
            accounts.push(Account { id: opened.expect(201).account_id(), version: 1, holds: vec![] });
        }
        Self { accounts, rng, events: ACCOUNTS }
    }

    /// Executes commands in batches until the log has so many events.
    pub async fn run(&mut self, app: &App, events: usize) {
        let client = app.client();
        while self.events < events {
            let (accounts, commands): (Vec<usize>, Vec<Value>) = (0..BATCH).map(|_| self.command()).unzip();
            let results = client.batch("each", &commands).await.expect(200);
            for (result, account) in results.body["results"].as_array().unwrap().iter().zip(accounts) {
                self.remember(account, result);
            }
        }
        app.wait_until_projected().await;
    }

    fn remember(&mut self, account: usize, result: &Value) {
        let status = result["status"].as_u64().unwrap();
        assert!(status < 500, "{result}");
        let receipt = &result["receipt"];
        if let Some(hold) = receipt["hold"]["hold_id"].as_str().filter(|_| receipt["hold"]["status"] == "active") {
            self.accounts[account].holds.push(hold.into());
        }
        for side in [receipt, &receipt["from"], &receipt["to"]] {
            self.events += side["events"].as_array().map_or(0, Vec::len);
            let changed = self.accounts.iter_mut().find(|account| side["account_id"] == json!(account.id));
            if let Some(changed) = changed {
                changed.version = side["version"].as_u64().unwrap_or(changed.version);
            }
        }
    }

    /// A command, and the number of its account.
    fn command(&mut self) -> (usize, Value) {
        let rng = &mut self.rng;
        let number = rng.below(ACCOUNTS as u64) as usize;
        // Mostly another account of the same currency.
        let step = if rng.chance(90) { CURRENCIES.len() } else { 1 };
        let other = self.accounts[(number + step * rng.between(1, 5) as usize) % ACCOUNTS].id;
        let Account { id, version, ref holds, .. } = self.accounts[number];
        let amount = rng.between(1, 5_000);
        let hold = if holds.is_empty() { json!(Uuid::from_u128(1)) } else { rng.pick(holds).clone() };
        let reference = *rng.pick(&["rent", "a;b", "two\nlines", "Grüße 😀", ""]);
        let channel = *rng.pick(&["atm", "branch", "online"]);
        let mut command = match rng.below(20) {
            0..=5 => json!({"command": "deposit", "account_id": id, "amount": amount, "reference": reference}),
            6..=8 => json!({"command": "withdraw", "account_id": id, "amount": amount, "reference": reference}),
            9..=11 => json!({"command": "transfer", "from": id, "to": other, "amount": amount}),
            12 | 13 => json!({"command": "place_hold", "account_id": id, "amount": amount}),
            14 => json!({"command": "capture_hold", "account_id": id, "hold_id": hold, "amount": amount / 4 + 1}),
            15 => json!({"command": "capture_hold", "account_id": id, "hold_id": hold, "to": other, "final": false}),
            16 => json!({"command": "void_hold", "account_id": id, "hold_id": hold}),
            17 | 18 => json!({"command": "reverse", "account_id": id, "version": rng.between(1, version.max(1))}),
            _ => json!({"command": "set_limits", "account_id": id, "overdraft": amount}),
        };
        if matches!(command["command"].as_str(), Some("deposit" | "withdraw")) && rng.chance(75) {
            command["channel"] = json!(channel);
        }
        if command["command"] == "reverse" && rng.chance(60) {
            command["amount"] = json!(rng.between(1, 900));
        }
        (number, command)
    }
}

/// Runs hledger on a journal and returns its output.
fn hledger(journal: &[u8], arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.journal");
    fs::write(&file, journal).unwrap();
    let output = Command::new("hledger").arg("--file").arg(&file).args(arguments).output();
    let output = output.expect("this test needs hledger: `scripts/install-deps --test` installs it");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "hledger {arguments:?}: {error}\n{}", String::from_utf8_lossy(journal));
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that hledger accepts the journal: every transaction is balanced, and all accounts, currencies and dates are in order.
pub fn hledger_check(journal: &[u8]) {
    hledger(journal, &["check", "--strict", "ordereddates"]);
}

/// The balances that hledger finds in a journal.
pub fn hledger_balances(journal: &[u8], arguments: &[&str]) -> Balances {
    let arguments = [&["balance", "--flat", "--no-total", "--layout=bare", "--output-format=csv"], arguments].concat();
    let text = hledger(journal, &arguments);
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let mut balances = Balances::new();
    for row in rows.records() {
        let row = row.unwrap();
        // Currencies of an account without a balance in them are listed beside the others.
        if !is_zero(&row[2]) {
            balances.insert((row[1].to_owned(), row[0].to_owned()), row[2].trim_end_matches('.').to_owned());
        }
    }
    balances
}

fn is_zero(number: &str) -> bool {
    number.bytes().all(|byte| matches!(byte, b'0' | b'.' | b'-'))
}

/// The balances of a trial balance.
pub fn balances(sums: &Sums) -> Balances {
    let balance = |((currency, account), (debit, credit)): (&(String, String), &(i128, i128))| {
        let balance = major_units(&(debit - credit).to_string(), currency);
        (debit != credit).then(|| ((currency.clone(), account.clone()), balance))
    };
    sums.iter().filter_map(balance).collect()
}

/// Asserts that the trial balance, the journal in both formats, the overview and the log agree.
async fn assert_books(app: &App, client: &ApiClient) {
    let now = sums(&trial_balance(client, &format!("min_position={}", app.latest_position())).await.body);
    let log = audit(app).await;
    assert_eq!(now, sums_until(&log.events, None));
    let hledger = client.get(&path(&format!("{ALL_DAYS}&format=hledger"))).await.expect(200);
    hledger_check(&hledger.bytes);
    assert_eq!(hledger_balances(&hledger.bytes, &[]), balances(&now));
    assert_equals_log(&client.get(&path(ALL_DAYS)).await.expect(200).lines(), &log, |_| true);
    let overview = client.get("/v1/overview").await.expect(200);
    for currency in CURRENCIES {
        let of = |account: &str| {
            now.get(&(currency.to_owned(), account.to_owned())).map_or(0, |(debit, credit)| debit - credit)
        };
        assert_eq!(overview.body["money"][currency], (-of(CUSTOMER_DEPOSITS)).to_string());
        assert_eq!(of("liabilities:transfers-in-transit"), 0);
        for account in ["assets:cash:atm", "assets:cash:unspecified", "liabilities:captures"] {
            assert_ne!(of(account), 0, "the history has no {account} in {currency}");
        }
    }
    for event_type in ["HoldCaptured", "MovementReversed", "TransferSent", "HoldReleased"] {
        let number = log.events.iter().filter(|event| event.event_type == event_type).count();
        assert!(number >= 5, "{number} {event_type}");
    }
}

async fn books_of_a_random_history_are_proved(partitions: &str) {
    let events = std::env::var(EVENTS_VARIABLE).map_or(EVENTS, |number| number.parse().unwrap());
    let app = spawn_app_with(&[partitions]).await;
    let mut history = History::new(&app, 20).await;
    history.run(&app, events).await;
    assert_books(&app, &app.client()).await;
    let report = verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
    assert!(report.events >= events as i64, "{} events", report.events);
}

#[tokio::test]
async fn hledger_proves_the_books_of_a_random_history() {
    books_of_a_random_history_are_proved("--partitions=1").await;
}

#[tokio::test]
async fn hledger_proves_the_books_over_several_partitions() {
    books_of_a_random_history_are_proved("--partitions=4").await;
}
