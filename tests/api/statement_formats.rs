//! Statements in the formats of other programs, read by such programs.

use std::{fs, path::PathBuf, process::Command};

use passbook_testkit::{ApiClient, App, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::statement::{ALL_DAYS, major_units, path};

const FORMATS: [&str; 6] = ["csv", "camt053", "mt940", "ofx", "hledger", "html"];

/// Texts that some format cannot contain as they are.
const REFERENCES: [&str; 8] = [
    "rent 2026/11",
    "a;b | c\nsecond line\r\nthird",
    "]]> <b>&amp;</b> \"quoted\"",
    "Grüße 😀 \u{202e}right to left",
    ":61:2611302611301C1,NMSC//1",
    "-}{1:F01}",
    "; comment\n    assets:x  1",
    "=1+1",
];

/// What another program reads in a statement.
fn read(format: &str, content: &[u8]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statement");
    fs::write(&file, content).unwrap();
    let tools = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(tools).join("statement-readers/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/statements/read.py");
    let output = Command::new(python)
        .arg(script)
        .arg(format)
        .arg(&file)
        .output()
        .expect("this test needs readers of statements: `scripts/install-deps --test` installs them");
    let text = String::from_utf8_lossy(content);
    assert!(output.status.success(), "{format}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A number without the zeros at its end: some programs drop them, and hledger adds a sign to no zero.
fn number(text: &Value) -> String {
    let text = text.as_str().unwrap();
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn numbers(texts: &Value) -> Vec<String> {
    texts.as_array().unwrap().iter().map(number).collect()
}

/// Compares every format with the JSON of the same statement.
async fn assert_formats(client: &ApiClient, account: Uuid, query: &str) {
    let statement = client.get(&path(account, query)).await.expect(200).body;
    let currency = statement["currency"].as_str().unwrap();
    let money = |minor_units: i64| number(&json!(major_units(&minor_units.to_string(), currency)));
    let lines = statement["lines"].as_array().unwrap();
    let is_debit =
        |kind: &Value| ["withdrawal", "transfer_out", "capture", "reversal_out"].contains(&kind.as_str().unwrap());
    let signed = |line: &Value| {
        let amount = line["amount"].as_i64().unwrap();
        money(if is_debit(&line["kind"]) { -amount } else { amount })
    };
    let amounts: Vec<String> = lines.iter().map(signed).collect();
    let view = client.get(&format!("/v1/accounts/{account}")).await.expect(200).body;
    let held = view["held"].as_i64().unwrap();
    for format in FORMATS {
        let response = client.get(&path(account, &format!("{query}&format={format}"))).await.expect(200);
        let found = read(format, &response.bytes);
        assert_eq!(numbers(&found["amounts"]), amounts, "{format}");
        let closing = statement["closing_balance"].as_i64().unwrap();
        assert_eq!(number(&found["closing"]), money(closing), "{format}");
        if let Some(opening) = found.get("opening") {
            assert_eq!(number(opening), money(statement["opening_balance"].as_i64().unwrap()), "{format}");
        }
        if let Some(available) = found.get("available") {
            let expected = if query == ALL_DAYS { closing - held } else { closing };
            assert_eq!(number(available), money(expected), "{format}");
        }
        if let Some(account_of_statement) = found.get("account") {
            assert_eq!(account_of_statement, &json!(account.simple().to_string()), "{format}");
        }
        if let Some(reversals) = found.get("reversals") {
            let expected: Vec<bool> = lines.iter().map(|line| !line["reverses_version"].is_null()).collect();
            assert_eq!(reversals, &json!(expected), "{format}");
        }
        if let Some(counterparties) = found.get("counterparties") {
            let expected: Vec<String> = lines
                .iter()
                .map(|line| line["counterparty_account_id"].as_str().unwrap_or_default().replace('-', ""))
                .collect();
            assert_eq!(counterparties, &json!(expected), "{format}");
        }
    }
}

/// An account with movements of every kind, an active hold and a freeze.
async fn account_with_every_kind(app: &App, currency: &str) -> (ApiClient, Uuid) {
    let client = app.client();
    let open =
        |balance: i64| client.open(json!({"currency": currency, "initial_deposit": balance, "owner": "ada & co"}));
    let (other, account) =
        (open(5_000).await.expect(201).uuid("/account_id"), open(1_234_567).await.expect(201).uuid("/account_id"));
    for (number, reference) in REFERENCES.iter().enumerate() {
        let body = json!({"amount": number + 1, "reference": reference});
        client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
    }
    let long = "x".repeat(200) + " end";
    client
        .command(&format!("/v1/accounts/{account}/withdrawals"), json!({"amount": 7, "reference": long}))
        .await
        .expect(201);
    client.transfer(other, account, 50).await.expect(201);
    client.transfer(account, other, 3).await.expect(201);
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    let hold = json!({"amount": 100, "expires_in_seconds": 600});
    let placed = client.command(&format!("/v1/accounts/{account}/holds"), hold).await.expect(201);
    let hold_id = placed.text("/hold/hold_id").to_owned();
    let capture = json!({"amount": 40, "final": false});
    client.command(&format!("/v1/accounts/{account}/holds/{hold_id}/capture"), capture).await.expect(201);
    client.command(&format!("/v1/accounts/{account}/transactions/2/reversal"), json!({"amount": 1})).await.expect(201);
    app.wait_until_projected().await;
    (client, account)
}

#[tokio::test]
async fn other_programs_read_the_statements_of_every_currency() {
    let app = spawn_app().await;
    for currency in ["EUR", "JPY", "KWD", "CLF"] {
        let (client, account) = account_with_every_kind(&app, currency).await;
        assert_formats(&client, account, ALL_DAYS).await;
    }
}

#[tokio::test]
async fn other_programs_read_statements_without_movements() {
    let app = spawn_app().await;
    let (client, account) = account_with_every_kind(&app, "EUR").await;
    for query in ["from=2001-01-01&to=2001-02-01", "from=2001-01-01&to=2001-01-01"] {
        assert_formats(&client, account, query).await;
    }
}

#[tokio::test]
async fn camt053_names_the_batch_of_each_command() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let deposit = |amount: i64| json!({"command": "deposit", "account_id": account, "amount": amount});
    let batch = json!({"mode": "atomic", "commands": [deposit(1), deposit(2)]});
    let batch = client.command("/v1/batches", batch).await.expect(201).text("/batch_id").replace('-', "");
    client.deposit(account, 3).await.expect(201);
    app.wait_until_projected().await;
    let statement = client.get(&path(account, &format!("{ALL_DAYS}&format=camt053"))).await.expect(200);
    assert_eq!(read("camt053", &statement.bytes)["batches"], json!(["", batch, batch, ""]));
}

#[tokio::test]
async fn mt940_refuses_amounts_that_it_cannot_contain() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(9_007_199_254_740_991).await;
    app.wait_until_projected().await;
    let get = async |format| app.client().get(&path(account, &format!("{ALL_DAYS}&format={format}"))).await;
    get("mt940").await.expect_problem(406, "not_acceptable");
    for format in FORMATS.into_iter().filter(|format| *format != "mt940") {
        let found = read(format, &get(format).await.expect(200).bytes);
        assert_eq!(found["closing"], "90071992547409.91", "{format}");
    }
}

#[tokio::test]
async fn format_is_a_parameter_or_a_media_type() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    for (format, media_type, extension) in [
        ("json", "application/json", None),
        ("csv", "text/csv", Some("csv")),
        ("camt053", "application/vnd.iso20022.camt.053+xml", Some("xml")),
        ("mt940", "text/x-mt940", Some("sta")),
        ("ofx", "application/x-ofx", Some("ofx")),
        ("hledger", "text/x-hledger", Some("journal")),
        ("html", "text/html", None),
    ] {
        let named = app.client().get(&path(account, &format!("{ALL_DAYS}&format={format}"))).await.expect(200);
        let accepted = app.client().with_header("accept", media_type).get(&path(account, ALL_DAYS)).await.expect(200);
        for response in [named, accepted] {
            let found = response.header("content-type").unwrap();
            assert_eq!(found.split(';').next().unwrap(), media_type);
            let file = extension.map(|extension| {
                format!("attachment; filename=\"statement-{account}-0001-01-01-9999-12-31.{extension}\"")
            });
            assert_eq!(response.header("content-disposition"), file.as_deref());
        }
    }
    let refused = app.client().get(&path(account, &format!("{ALL_DAYS}&format=pdf"))).await;
    assert_eq!(refused.expect_problem(400, "invalid_parameter").text("/errors/0/field"), "format");
}
