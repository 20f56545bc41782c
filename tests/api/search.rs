//! Searches compared with naive filters over all rows, on random banks.

use std::collections::HashMap;

use passbook_testkit::{ApiClient, App, rng::Rng, spawn_app_with};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use uuid::Uuid;

const ACCOUNTS: usize = 40;
const MOVEMENTS: usize = 300;
const SEARCHES: usize = 60;
/// Owners with wildcards of LIKE, letters outside of ASCII, and letters whose upper case is longer.
const OWNERS: [&str; 12] = [
    "ada",
    "ADA-Lovelace",
    "Ada%",
    "ada_1",
    "ada\\x",
    "Ödön",
    "öDÖNke",
    "straße 5",
    "STRASSE 5b",
    "Σίσυφος",
    "сбербанк",
    "0190-shop",
];
const LONG: &str = "A reference that is longer than the part of it that the index has: 2026/";
const REFERENCES: [&str; 12] = [
    "Invoice 17",
    "INVOICE 18",
    "invoice",
    "100%",
    "100_5",
    "1005",
    "Überweisung",
    "ÜBER\nzwei Zeilen",
    "straße",
    "a\\b",
    "A reference that is longer than the part of it that the index has: 2026/1",
    "A REFERENCE that is longer than the part of it that the index has: 2026/27",
];
/// Beginnings of the texts above, in any case, and texts that are no beginning.
const TEXTS: [&str; 24] = [
    "a", "ADA", "ada%", "ada_", "ada\\", "%", "_", "öd", "Ödönk", "STRASS", "strass", "σίΣ", "СБЕР", "0190", "0190-",
    "inv", "100", "100_", "100%", "über", "ÜBER\n", "A\\", "voice", LONG,
];

pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// All rows of a list, page by page. `path` has a query.
pub async fn all(client: &ApiClient, path: &str) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    for _ in 0..1_000 {
        let page = client.get(&format!("{path}{after}")).await.expect(200);
        rows.extend(page.data().iter().cloned());
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
    panic!("the list {path} has no end");
}

fn begins(text: &Value, beginning: &str) -> bool {
    text.as_str().is_some_and(|text| text.to_uppercase().starts_with(&beginning.to_uppercase()))
}

async fn random_bank(app: &App, rng: &mut Rng) -> HashMap<Uuid, Value> {
    let client = app.client();
    let mut accounts = Vec::new();
    for _ in 0..ACCOUNTS {
        let mut body = json!({
            "owner": rng.pick(&OWNERS), "currency": rng.pick(&["EUR", "CHF"]), "initial_deposit": rng.below(3) * 50
        });
        for (key, values) in [("branch", ["17", "18"]), ("ä.b", ["\"", "x"])] {
            if rng.chance(50) {
                body["metadata"][key] = json!(rng.pick(&values));
            }
        }
        accounts.push(client.open(body).await.expect(201).account_id());
    }
    let mut commands = Vec::new();
    for _ in 0..MOVEMENTS {
        let (from, to) = (*rng.pick(&accounts), *rng.pick(&accounts));
        let amount = 1 + rng.below(60);
        let mut command = match rng.below(4) {
            0 => json!({"command": "withdraw", "account_id": from, "amount": amount}),
            1 => json!({"command": "transfer", "from": from, "to": to, "amount": amount}),
            _ => json!({"command": "deposit", "account_id": from, "amount": amount}),
        };
        if rng.chance(70) {
            command["reference"] = json!(rng.pick(&REFERENCES));
        }
        commands.push(command);
    }
    for commands in commands.chunks(60) {
        client.batch("each", commands).await.expect(200);
    }
    for account in &accounts[..3] {
        client.set_limits(*account, json!({"overdraft": 1_000})).await.expect(200);
        client.withdraw(*account, 500).await;
        client.freeze(*account).await;
    }
    app.wait_until_projected().await;
    let rows = all(&client, "/v1/accounts?limit=1000").await;
    rows.into_iter().map(|row| (row["account_id"].as_str().unwrap().parse().unwrap(), row)).collect()
}

/// A random condition: the text of its parameter, and whether a row matches it.
type Condition = (String, Box<dyn Fn(&Value) -> bool>);

fn account_conditions(rng: &mut Rng, ids: &[Uuid]) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = Vec::new();
    let currency = *rng.pick(&["EUR", "CHF"]);
    conditions.push((format!("currency={currency}"), Box::new(move |row| row["currency"] == currency)));
    if rng.chance(30) {
        let owner = *rng.pick(&OWNERS);
        conditions.push((format!("owner={}", encoded(owner)), Box::new(move |row| row["owner"] == owner)));
    }
    if rng.chance(20) {
        let status = *rng.pick(&["open", "frozen"]);
        conditions.push((format!("status={status}"), Box::new(move |row| row["status"] == status)));
    }
    if rng.chance(30) {
        let least = rng.below(300) as i64 - 150;
        conditions.push((format!("min_balance={least}"), Box::new(move |row| row["balance"].as_i64() >= Some(least))));
    }
    if rng.chance(30) {
        let most = rng.below(300) as i64 - 150;
        let is_below = move |row: &Value| row["balance"].as_i64() <= Some(most);
        if !conditions.iter().any(|(name, _)| name.starts_with("min_balance")) {
            conditions.push((format!("max_balance={most}"), Box::new(is_below)));
        }
    }
    if rng.chance(50) {
        let id = rng.pick(ids).to_string();
        let start = rng.below(30) as usize;
        let text = match rng.below(3) {
            0 => id[start..(start + 4 + rng.below(8) as usize).min(36)].to_ascii_uppercase(),
            1 => id.replace('-', "")[start..].to_owned(),
            _ => (*rng.pick(&TEXTS)).to_owned(),
        };
        let digits = text.replace('-', "").to_lowercase();
        let is_part = digits.len() >= 4 && digits.bytes().all(|c| c.is_ascii_hexdigit());
        let query = format!("q={}", encoded(&text));
        conditions.push((
            query,
            Box::new(move |row| {
                let id = row["account_id"].as_str().unwrap().replace('-', "");
                begins(&row["owner"], &text) || is_part && id.contains(&digits)
            }),
        ));
    }
    for (key, values) in [("branch", ["17", "18"]), ("ä.b", ["\"", "x"])] {
        if rng.chance(25) {
            let value = *rng.pick(&values);
            let query = format!("metadata.{}={}", encoded(key), encoded(value));
            conditions.push((query, Box::new(move |row| row["metadata"][key] == value)));
        }
    }
    conditions
}

fn query_of(conditions: &[Condition]) -> String {
    conditions.iter().map(|(query, _)| query.as_str()).collect::<Vec<_>>().join("&")
}

async fn search_accounts(app: &App, rng: &mut Rng, accounts: &HashMap<Uuid, Value>) {
    let client = app.client();
    let ids: Vec<Uuid> = accounts.keys().copied().collect();
    for _ in 0..SEARCHES {
        let conditions = account_conditions(rng, &ids);
        let mut expected: Vec<&Value> =
            accounts.values().filter(|row| conditions.iter().all(|(_, matches)| matches(row))).collect();
        let (sort, limit) =
            (*rng.pick(&["", "balance", "-balance", "last_activity_at", "-last_activity_at"]), rng.below(9) + 1);
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        match sort {
            "balance" | "-balance" => {
                let sign = if sort == "balance" { 1 } else { -1 };
                expected.sort_by_key(|row| (sign * row["balance"].as_i64().unwrap(), text(row, "account_id")));
            }
            "last_activity_at" => expected.sort_by_key(|row| (text(row, "last_activity_at"), text(row, "account_id"))),
            "-last_activity_at" => {
                expected.sort_by_key(|row| text(row, "account_id"));
                expected.sort_by_key(|row| std::cmp::Reverse(text(row, "last_activity_at")));
            }
            _ => expected.sort_by_key(|row| std::cmp::Reverse((text(row, "opened_at"), text(row, "account_id")))),
        }
        let sort = if sort.is_empty() { String::new() } else { format!("&sort={sort}") };
        let path = format!("/v1/accounts?{}{sort}&limit={limit}", query_of(&conditions));
        let found = all(&client, &path).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{path}");
    }
}

/// All transactions of the bank, from the list of each account.
async fn naive_transactions(client: &ApiClient, accounts: &HashMap<Uuid, Value>) -> Vec<Value> {
    let mut rows = Vec::new();
    for account in accounts.keys() {
        for mut row in all(client, &format!("/v1/accounts/{account}/transactions?limit=1000")).await {
            row["account_id"] = json!(account);
            rows.push(row);
        }
    }
    rows
}

fn movement_conditions(rng: &mut Rng, rows: &[Value]) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = Vec::new();
    if rng.chance(50) {
        let beginning = *rng.pick(&TEXTS);
        let query = format!("reference={}", encoded(beginning));
        conditions.push((query, Box::new(move |row| begins(&row["reference"], beginning))));
    }
    if rng.chance(40) {
        let least = rng.below(60) as i64;
        conditions.push((format!("min_amount={least}"), Box::new(move |row| row["amount"].as_i64() >= Some(least))));
    } else if rng.chance(40) {
        let most = rng.below(60) as i64;
        conditions.push((format!("max_amount={most}"), Box::new(move |row| row["amount"].as_i64() <= Some(most))));
    }
    let mut times = [rng.pick(rows), rng.pick(rows)].map(|row| row["recorded_at"].as_str().unwrap().to_owned());
    times.sort();
    let [from, to] = times;
    if rng.chance(30) {
        conditions.push((format!("from={from}"), Box::new(move |row| row["recorded_at"].as_str() >= Some(&from))));
    }
    if rng.chance(30) {
        conditions.push((format!("to={to}"), Box::new(move |row| row["recorded_at"].as_str() < Some(&to))));
    }
    conditions
}

async fn search_transactions(app: &App, rng: &mut Rng, accounts: &HashMap<Uuid, Value>) {
    let client = app.client();
    let rows = naive_transactions(&client, accounts).await;
    let key = |row: &Value| (row["account_id"].to_string(), row["version"].as_i64().unwrap());
    for _ in 0..SEARCHES {
        let mut conditions = movement_conditions(rng, &rows);
        let of = |accounts: &HashMap<Uuid, Value>, row: &Value, member: &str| {
            let account: Uuid = row["account_id"].as_str().unwrap().parse().unwrap();
            accounts[&account][member].clone()
        };
        if rng.chance(40) {
            let (owner, accounts) = (*rng.pick(&OWNERS), accounts.clone());
            let query = format!("owner={}", encoded(owner));
            conditions.push((query, Box::new(move |row| of(&accounts, row, "owner") == owner)));
        }
        if rng.chance(30) {
            let (currency, accounts) = (*rng.pick(&["EUR", "CHF"]), accounts.clone());
            conditions.push((
                format!("currency={currency}"),
                Box::new(move |row| of(&accounts, row, "currency") == currency),
            ));
        }
        let mut expected: Vec<&Value> =
            rows.iter().filter(|row| conditions.iter().all(|(_, matches)| matches(row))).collect();
        let path = format!("/v1/transactions?{}&limit={}", query_of(&conditions), rng.below(40) + 1);
        let found = all(&client, &path.replace("?&", "?")).await;
        let times: Vec<&str> = found.iter().map(|row| row["recorded_at"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|one, next| one >= next), "{path} is the newest first");
        let mut found: Vec<&Value> = found.iter().collect();
        found.sort_by_key(|row| key(row));
        expected.sort_by_key(|row| key(row));
        assert_eq!(found, expected, "{path}");
    }
    // The list of one account has the same filters.
    for _ in 0..SEARCHES / 4 {
        let account = *rng.pick(&accounts.keys().copied().collect::<Vec<_>>());
        let conditions = movement_conditions(rng, &rows);
        let of_account = rows.iter().filter(|row| row["account_id"] == json!(account));
        let mut expected: Vec<i64> = of_account
            .filter(|row| conditions.iter().all(|(_, matches)| matches(row)))
            .map(|row| row["version"].as_i64().unwrap())
            .collect();
        expected.sort_by_key(|version| -version);
        let path = format!("/v1/accounts/{account}/transactions?limit=7&{}", query_of(&conditions));
        let path = path.trim_end_matches('&');
        let found: Vec<i64> = all(&client, path).await.iter().map(|row| row["version"].as_i64().unwrap()).collect();
        assert_eq!(found, expected, "{path}");
    }
}

async fn random_searches(partitions: u32, seed: u64) {
    let app = spawn_app_with(&[&format!("--partitions={partitions}")]).await;
    let mut rng = Rng::new(seed);
    let accounts = random_bank(&app, &mut rng).await;
    assert_eq!(accounts.len(), ACCOUNTS);
    search_accounts(&app, &mut rng, &accounts).await;
    search_transactions(&app, &mut rng, &accounts).await;
}

#[tokio::test]
async fn searches_of_random_banks_agree_with_naive_filters() {
    random_searches(1, 17).await;
}

#[tokio::test]
async fn searches_of_random_banks_in_partitions_agree_with_naive_filters() {
    random_searches(4, 18).await;
}
