//! Account statements: content, formats and refusals.

use chrono::{DateTime, NaiveDate, Utc};
use passbook_testkit::{ApiClient, App, Response, log::Event, spawn_app, spawn_app_in_one_partition};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::random_history::{account_events, expected_statement};

pub const ALL_DAYS: &str = "from=0001-01-01&to=9999-12-31";

pub fn path(account: Uuid, query: &str) -> String {
    format!("/v1/accounts/{account}/statement?{query}")
}

const CSV_COLUMNS: [&str; 10] = [
    "Date (UTC)",
    "Transaction",
    "Amount",
    "Balance",
    "Reference",
    "Counterparty",
    "Transfer",
    "Hold",
    "Version",
    "Event",
];

/// The rows of a CSV response, without the byte order mark.
pub fn rows(response: &Response) -> Vec<Vec<String>> {
    assert!(response.header("content-type").unwrap().starts_with("text/csv"));
    let bytes = response.bytes.strip_prefix("\u{feff}".as_bytes()).expect("a byte order mark");
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// Converts a JSON statement into the rows of its CSV form.
pub fn as_rows(body: &Value) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let money = |minor_units: &Value| major_units(&text(minor_units), &text(&body["currency"]));
    let row = |cells: [String; 4]| cells.into_iter().chain(vec![String::new(); 6]).collect::<Vec<_>>();
    let day = |value: &Value| value.as_str().unwrap().parse::<NaiveDate>().unwrap();
    let last_day = day(&body["to"]).pred_opt().unwrap().max(day(&body["from"])).to_string();
    let about =
        [("Account", "account_id"), ("Owner", "owner"), ("Currency", "currency"), ("From", "from"), ("Before", "to")];
    let mut rows: Vec<Vec<String>> =
        about.map(|(name, member)| row([name.to_owned(), text(&body[member]), "".into(), "".into()])).into();
    rows.push(row(Default::default()));
    rows.push(CSV_COLUMNS.map(str::to_owned).into());
    rows.push(row([text(&body["from"]), "Opening balance".into(), "".into(), money(&body["opening_balance"])]));
    for line in body["lines"].as_array().unwrap() {
        let kind = text(&line["kind"]);
        let is_debit = ["withdrawal", "transfer_out", "capture", "reversal_out"].contains(&&*kind);
        let amount = format!("{}{}", if is_debit { "-" } else { "" }, money(&line["amount"]));
        let label = kind.replace('_', " ");
        let optional = |member: &str| line[member].as_str().unwrap_or_default().to_owned();
        rows.push(vec![
            text(&line["recorded_at"])[..19].replace('T', " "),
            format!("{}{}", label[..1].to_uppercase(), &label[1..]),
            amount,
            money(&line["balance_after"]),
            optional("reference"),
            optional("counterparty_account_id"),
            optional("transfer_id"),
            optional("hold_id"),
            text(&line["version"]),
            text(&line["event_id"]),
        ]);
    }
    let out = money(&body["total_out"]);
    let out = if out.bytes().any(|digit| digit.is_ascii_digit() && digit != b'0') { format!("-{out}") } else { out };
    rows.push(row(["".into(), "Money in".into(), money(&body["total_in"]), "".into()]));
    rows.push(row(["".into(), "Money out".into(), out, "".into()]));
    rows.push(row([last_day, "Closing balance".into(), "".into(), money(&body["closing_balance"])]));
    rows
}

/// The digits of minor units with the decimal point of the currency.
pub fn major_units(minor_units: &str, currency: &str) -> String {
    let digits = match currency {
        "JPY" => return minor_units.to_owned(),
        "KWD" => 3,
        "CLF" => 4,
        _ => 2,
    };
    let (sign, magnitude) = minor_units.strip_prefix('-').map_or(("", minor_units), |magnitude| ("-", magnitude));
    let padded = format!("{magnitude:0>width$}", width = digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - digits);
    format!("{sign}{whole}.{fraction}")
}

/// Asserts the `Vary` header, so that no cache confuses the formats.
fn assert_vary(response: &Response) {
    let vary: Vec<_> = response.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["accept", "accept-encoding"]);
}

/// Opens an account with 100 and adds a movement of each kind, a freeze and an unfreeze: 7 events of this account.
async fn account_with_movements(app: &App) -> (ApiClient, Uuid, Vec<Event>) {
    let client = app.client();
    let other = client.open_with_balance(50).await;
    let account = client.open_with_balance(100).await;
    let body = json!({"amount": 20, "reference": "salary"});
    client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    client.withdraw(account, 5).await.expect(201);
    client.transfer(other, account, 50).await.expect(201);
    client.transfer(account, other, 7).await.expect(201);
    let events = account_events(&app.log().await, account);
    (client, account, events)
}

#[tokio::test]
async fn statement_lists_every_movement_oldest_first() {
    let app = spawn_app_in_one_partition().await;
    let (client, account, events) = account_with_movements(&app).await;
    let statement = client.get(&path(account, &format!("{ALL_DAYS}&min_position=10"))).await.expect(200);
    let mut expected = expected_statement(&events, DateTime::UNIX_EPOCH, DateTime::<Utc>::MAX_UTC);
    assert_eq!(expected["lines"].as_array().unwrap().len(), 5);
    for (member, value) in [
        ("account_id", json!(account)),
        ("currency", json!("EUR")),
        ("owner", json!("anonymous")),
        ("from", json!("0001-01-01")),
        ("to", json!("9999-12-31")),
        ("position", json!("10")),
    ] {
        expected[member] = value;
    }
    assert_eq!(statement.body, expected);
    assert_eq!((statement.position(), statement.header("content-type")), ("10", Some("application/json")));
    assert_eq!(statement.header("content-disposition"), None);
    assert_vary(&statement);
    let members = ["account_id", "opening_balance", "lines", "total_in", "closing_balance", "position"];
    let text = String::from_utf8(statement.bytes).unwrap();
    let offsets = members.map(|member| text.rfind(&format!("\"{member}\":")).unwrap());
    assert!(offsets.is_sorted(), "{text}");
}

#[tokio::test]
async fn statement_without_movements_has_balances_and_no_lines() {
    let app = spawn_app().await;
    let (client, account, _) = account_with_movements(&app).await;
    for (query, balance) in [
        ("from=2001-01-01&to=2001-01-01", 0),
        ("from=2001-01-01&to=2002-01-01", 0),
        ("from=9998-01-01&to=9999-12-31", 158),
        ("from=9999-12-31&to=9999-12-31", 158),
    ] {
        let statement = client.get(&path(account, &format!("{query}&min_position=10"))).await.expect(200);
        let expected = json!(["0", "0", balance, balance, []]);
        let members = ["total_in", "total_out", "opening_balance", "closing_balance", "lines"];
        assert_eq!(json!(members.map(|member| &statement.body[member])), expected, "{query}");
    }
}

#[tokio::test]
async fn invalid_periods_are_refused() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    let invalid = [
        "",
        "0000-00-00",
        "0000-01-01",
        "2026-02-30",
        "2026-13-01",
        "2026-1-01",
        "2026-01-1",
        "%2B12345-01-01",
        "+12345-01-01",
        "-2026-01-01",
        "2026-01-01T00:00:00Z",
        "20260101",
        " 2026-01-01",
        "today",
        "2026-01-0%C3%A9",
        "2026-01-%00",
    ];
    for day in invalid {
        for (query, field) in
            [(format!("from={day}&to=2026-02-01"), "from"), (format!("from=2026-01-01&to={day}"), "to")]
        {
            let refused = app.client().get(&path(account, &query)).await.expect_problem(400, "invalid_parameter");
            assert_eq!(refused.text("/errors/0/field"), field, "{query}");
        }
    }
    let reversed = app.client().get(&path(account, "from=2026-01-02&to=2026-01-01")).await;
    assert_eq!(reversed.expect_problem(400, "invalid_parameter").text("/errors/0/field"), "from");
    for query in [
        "",
        "from=2026-01-01",
        "to=2026-01-01",
        "from=2026-01-01&from=2026-01-01",
        "from=2026-01-01&to=2026-02-01&limit=5",
        "from=2026-01-01&to=2026-02-01&min_position=x",
    ] {
        app.client().get(&path(account, query)).await.expect_problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn statement_of_an_unknown_account_gives_404() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(1).await;
    let query = format!("{ALL_DAYS}&min_position=1");
    let refused = app.client().get(&path(app.new_account_id(), &query)).await.expect_problem(404, "account_not_found");
    assert_eq!(refused.position(), "1");
    app.client().get("/v1/accounts/1/statement").await.expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn statement_waits_for_min_position() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    let query = format!("{ALL_DAYS}&min_position=2");
    app.client().get(&path(account, &query)).await.expect_problem(503, "projection_behind");
    let position = app.client().deposit(account, 1).await.expect(201).position().to_owned();
    let statement = app.client().get(&path(account, &query)).await.expect(200);
    assert_eq!((statement.position(), &statement.body["closing_balance"]), (&*position, &json!(2)));
}

#[tokio::test]
async fn view_of_an_older_schema_serves_no_statement() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    app.sabotage("UPDATE projection SET schema_version = 1 WHERE name = 'transactions'").await;
    app.client().get(&path(account, ALL_DAYS)).await.expect_problem(503, "projection_behind");
}

#[tokio::test]
async fn csv_is_a_file_with_the_same_rows() {
    let app = spawn_app_in_one_partition().await;
    let (client, account, _) = account_with_movements(&app).await;
    let path = path(account, "from=2020-01-01&to=2199-01-01&min_position=10");
    let statement = client.get(&path).await.expect(200);
    let csv = client.with_header("accept", "text/csv").get(&path).await.expect(200);
    assert_eq!(rows(&csv), as_rows(&statement.body));
    assert_eq!(csv.position(), "10");
    assert_vary(&csv);
    let file = format!("attachment; filename=\"statement-{account}-2020-01-01-2199-01-01.csv\"");
    assert_eq!(csv.header("content-disposition"), Some(&*file));
    let text = String::from_utf8(csv.bytes).unwrap();
    assert!(text.starts_with(&format!("\u{feff}Account,{account},,,,,,,,\r\nOwner,")), "{text}");
    assert!(text.ends_with("Closing balance,,1.58,,,,,,\r\n"), "{text}");
}

#[tokio::test]
async fn csv_keeps_texts_and_defuses_formulas() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let harmless = ["a, b; c", "say \"x\"", "two\nlines", "two\r\nlines", "ends in '", "1-2=3", "Grüße €"];
    let formulas = ["=1+1", "+49 30", "-5", "@SUM(A1)", "\tx", "\rx", " =1", "\"=1\"", "'=1", "\u{ff1d}1"];
    for reference in harmless.iter().chain(&formulas) {
        let body = json!({"amount": 1, "reference": reference});
        client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
    }
    let csv =
        client.with_header("accept", "text/csv").get(&path(account, &format!("{ALL_DAYS}&min_position=18"))).await;
    let cells: Vec<String> = rows(&csv.expect(200))[8..25].iter().map(|row| row[4].clone()).collect();
    let defused = formulas.map(|formula| format!("'{formula}"));
    let expected: Vec<String> = harmless.map(String::from).into_iter().chain(defused).collect();
    assert_eq!(cells, expected);
}

#[tokio::test]
async fn format_is_negotiated_by_accept() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    let path = path(account, &format!("{ALL_DAYS}&min_position=1"));
    let get = async |accept| app.client().with_header("accept", accept).get(&path).await;
    for accept in ["*/*", "application/json", "text/csv;q=0.4, application/json;q=0.5", "image/png, */*;q=0.8", ""] {
        assert_eq!(get(accept).await.expect(200).header("content-type"), Some("application/json"), "{accept}");
    }
    for accept in
        ["text/csv", "text/*", "text/csv, */*", "application/json;q=0.4, text/csv;q=0.5", "Text/CSV;charset=utf-8"]
    {
        let kind = get(accept).await.expect(200).header("content-type").unwrap().to_owned();
        assert!(kind.starts_with("text/csv"), "{accept}");
    }
    for accept in ["text/plain", "application/pdf, image/*", "text/*;q=0, application/*;q=0"] {
        get(accept).await.expect_problem(406, "not_acceptable");
    }
    // An invalid query is refused before the format is negotiated.
    app.client()
        .with_header("accept", "text/plain")
        .get(&format!("/v1/accounts/{account}/statement"))
        .await
        .expect_problem(400, "invalid_parameter");
    let two =
        app.client().with_header("accept", "application/json;q=0.1").with_header("accept", "text/csv").get(&path).await;
    assert!(two.expect(200).header("content-type").unwrap().starts_with("text/csv"));
}

#[tokio::test]
async fn totals_may_exceed_the_balance_limit() {
    let app = spawn_app_in_one_partition().await;
    let most: i64 = 9_007_199_254_740_991;
    let account = app.client().open_with_balance(most).await;
    app.wait_until_projected().await;
    // Enough movements that the totals exceed 63 bits.
    let insert_movements = format!(
        "INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, '{account}', n, CASE n % 2 WHEN 0 THEN 'withdrawal' ELSE 'deposit' END, {most}, (n % 2) * {most},
                now(), gen_random_uuid(), 'open', n
         FROM generate_series(2, 2501) AS n"
    );
    app.tamper(&insert_movements).await;
    let statement = app.client().get(&path(account, ALL_DAYS)).await.expect(200);
    let text = String::from_utf8(statement.bytes).unwrap();
    let (total_in, total_out) = (1_251 * i128::from(most), 1_250 * i128::from(most));
    assert!(
        text.contains(&format!(
            "\"total_in\":\"{total_in}\",\"total_out\":\"{total_out}\",\"closing_balance\":{most},"
        ))
    );
}
