//! The trial balance: what each movement debits and credits, by day, over partitions, and for whom.

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate, TimeDelta, Utc};
use passbook_testkit::{
    ApiClient, Response,
    audit::{audit, audit_views},
    books_audit::{CUSTOMER_DEPOSITS, Sums, sums_until},
    spawn_app, spawn_app_in_one_partition, spawn_app_with, spawn_auth_app,
};
use serde_json::{Value, json};

use crate::domain_history::DomainHistory;

const COMMANDS: usize = 150;

/// The trial balance at the latest position of the test.
pub async fn trial_balance(client: &ApiClient, query: &str) -> Response {
    client.get(&format!("/v1/books/trial-balance?{query}")).await.expect(200)
}

/// The debits and credits of a trial balance. Asserts that they are equal in every currency and agree with the totals and balances.
pub fn sums(body: &Value) -> Sums {
    let number = |row: &Value, member: &str| row[member].as_str().unwrap().parse::<i128>().unwrap();
    let mut sums = Sums::new();
    let mut totals: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for row in body["data"].as_array().unwrap() {
        let (debit, credit) = (number(row, "debit"), number(row, "credit"));
        assert_eq!(number(row, "balance"), debit - credit, "{row}");
        let [currency, account] = ["currency", "ledger_account"].map(|member| row[member].as_str().unwrap().to_owned());
        let total = totals.entry(currency.clone()).or_default();
        *total = (total.0 + debit, total.1 + credit);
        assert!(sums.insert((currency, account), (debit, credit)).is_none(), "{row}");
    }
    for total in body["totals"].as_array().unwrap() {
        let (debit, credit) = (number(total, "debit"), number(total, "credit"));
        assert_eq!(totals.remove(total["currency"].as_str().unwrap()), Some((debit, credit)), "{total}");
        assert_eq!(debit, credit, "{total}");
    }
    assert!(totals.is_empty());
    sums
}

fn row(currency: &str, ledger_account: &str, debit: &str, credit: &str, balance: &str) -> Value {
    json!({"currency": currency, "ledger_account": ledger_account, "debit": debit, "credit": credit, "balance": balance})
}

#[tokio::test]
async fn each_movement_is_debited_and_credited() {
    let app = spawn_app().await;
    let client = app.client();
    let pay = async |account, command: &str, body: Value| {
        client.command(&format!("/v1/accounts/{account}/{command}"), body).await.expect(201)
    };
    let account = client.open_with_balance(1_000).await;
    let other = client.open_with_balance(0).await;
    client.open(json!({"currency": "JPY"})).await.expect(201);
    pay(account, "deposits", json!({"amount": 70, "channel": "atm"})).await;
    pay(account, "deposits", json!({"amount": 5, "channel": "branch"})).await;
    pay(account, "withdrawals", json!({"amount": 30, "channel": "online"})).await;
    client.transfer(account, other, 200).await.expect(201);
    let hold = pay(account, "holds", json!({"amount": 100})).await.uuid("/hold/hold_id");
    client.capture_hold(account, hold, json!({"amount": 40, "final": false})).await.expect(201);
    client.capture_hold(account, hold, json!({"amount": 10, "final": false, "to": other})).await.expect(201);
    client.void_hold(account, hold).await.expect(200);
    // Of the deposit at a cash machine, the withdrawal, the transfer, and the capture.
    for (version, amount) in [(2, 20), (4, 30), (5, 50), (7, 7)] {
        client.reverse(account, version, json!({"amount": amount})).await.expect(201);
    }
    let last = client.freeze(account).await.expect(200);
    let balance = trial_balance(&client, &format!("min_position={}", last.position())).await;
    let expected = json!({
        "date": null,
        "data": [
            row("EUR", "assets:cash:atm", "70", "20", "50"),
            row("EUR", "assets:cash:branch", "5", "0", "5"),
            row("EUR", "assets:cash:online", "30", "30", "0"),
            row("EUR", "assets:cash:unspecified", "1000", "0", "1000"),
            row("EUR", "liabilities:captures", "7", "40", "-33"),
            row("EUR", CUSTOMER_DEPOSITS, "350", "1372", "-1022"),
            row("EUR", "liabilities:transfers-in-transit", "260", "260", "0"),
            row("JPY", CUSTOMER_DEPOSITS, "0", "0", "0"),
        ],
        "totals": [
            {"currency": "EUR", "debit": "1722", "credit": "1722"},
            {"currency": "JPY", "debit": "0", "credit": "0"},
        ],
    });
    assert_eq!(balance.body, expected);
    assert_eq!(balance.position(), app.latest_position());
    let log = audit(&app).await;
    assert_eq!(sums(&balance.body), sums_until(&log.events, None));
}

#[tokio::test]
async fn empty_bank_has_an_empty_trial_balance() {
    let app = spawn_app_with(&["--partitions=4"]).await;
    for query in ["", "date=2026-01-31", "date=9999-12-31"] {
        let balance = trial_balance(&app.client(), query).await;
        assert_eq!((&balance.body["data"], &balance.body["totals"]), (&json!([]), &json!([])));
    }
}

#[tokio::test]
async fn trial_balance_of_a_past_day_never_changes() {
    for seed in [3, 4] {
        let app = spawn_app_in_one_partition().await;
        let mut history = DomainHistory::new(&app, seed, COMMANDS);
        history.append_to(&app).await;
        let client = app.client();
        let log = app.log().await;
        let days: Vec<NaiveDate> = log.events.iter().map(|event| event.recorded_at.date_naive()).collect();
        let (first, last) = (*days.first().unwrap(), *days.last().unwrap());
        let samples = [first.pred_opt().unwrap(), first, days[days.len() / 3], days[days.len() / 2], last];
        let mut before = Vec::new();
        for day in samples {
            let balance = trial_balance(&client, &format!("date={day}")).await.body;
            assert_eq!(sums(&balance), sums_until(&log.events, Some(day)), "{day}");
            before.push(balance);
        }
        let account = *history.accounts.keys().next().unwrap();
        client.set_limits(account, json!({})).await.expect(200);
        let deposited = client.deposit(account, 17).await.expect(201);
        let yesterday = (Utc::now() - TimeDelta::days(1)).date_naive();
        for (day, before) in samples.into_iter().zip(&before) {
            assert_eq!(&trial_balance(&client, &format!("date={day}")).await.body, before, "{day}");
        }
        let [now, today, later] = ["", "date=9999-12-31", "date=2100-01-01"];
        let minimum = format!("min_position={}", deposited.position());
        for query in [now, today, later] {
            let balance = trial_balance(&client, &format!("{query}&{minimum}")).await.body;
            assert_eq!(sums(&balance), sums_until(&app.log().await.events, None), "{query}");
        }
        let until_yesterday = trial_balance(&client, &format!("date={yesterday}")).await.body;
        assert_eq!(sums(&until_yesterday), sums_until(&log.events, Some(yesterday)));
        audit_views(&app).await;
    }
}

#[tokio::test]
async fn past_day_waits_for_the_view_and_is_settled_in_the_log() {
    let app = spawn_app_with(&["--partitions=4"]).await;
    let client = app.client();
    client.open_with_balance(10).await;
    let yesterday = Utc::now().date_naive() - Days::new(1);
    let balance = trial_balance(&client, &format!("date={yesterday}")).await;
    assert_eq!(balance.body["data"], json!([]));
    // Partitions without events can no longer get one before today.
    let heads = app.log().await.heads;
    assert!(heads.iter().all(|head| head.recorded_at.date_naive() >= yesterday), "{heads:?}");
    app.sabotage("UPDATE projection SET state = 'failed' WHERE name = 'ledger_totals' AND partition = 2").await;
    for query in ["", &format!("date={yesterday}")] {
        let refused = client.get(&format!("/v1/books/trial-balance?{query}")).await;
        refused.expect_problem(503, "projection_behind");
    }
}

#[tokio::test]
async fn sums_of_the_books_may_exceed_every_balance() {
    let app = spawn_app().await;
    let client = app.client();
    let most = 9_007_199_254_740_991_i128;
    for _ in 0..3 {
        client.open_with_balance(most as i64).await;
    }
    let body = trial_balance(&client, &format!("min_position={}", app.latest_position())).await.body;
    assert_eq!(body["totals"][0]["debit"], (3 * most).to_string());
    assert_eq!(sums(&body), sums_until(&app.log().await.events, None));
}

#[tokio::test]
async fn invalid_queries_of_the_trial_balance_are_refused() {
    let app = spawn_app().await;
    for query in [
        "date=",
        "date=yesterday",
        "date=2026-02-30",
        "date=0000-01-01",
        "date=2026-01-31T00:00:00Z",
        "date=%2B2026-01-31",
        "date=2026-01-31&date=2026-01-31",
        "min_position=x",
        "limit=1",
        "from=2026-01-31",
    ] {
        let refused = app.client().get(&format!("/v1/books/trial-balance?{query}")).await;
        let refused = refused.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.text("/errors/0/field"), query.split('=').next().unwrap(), "{query}");
    }
}

#[tokio::test]
async fn books_need_the_scope_for_any_account() {
    let auth = spawn_auth_app().await;
    auth.customer("ada").open_with_balance(5).await;
    let journal = "/v1/books/journal?from=2020-01-01&to=2200-01-01";
    for path in ["/v1/books/trial-balance", journal] {
        auth.customer("ada").get(path).await.expect_problem(403, "forbidden");
        auth.client_with_scope("ben", "audit:read operations accounts:write:any")
            .get(path)
            .await
            .expect_problem(403, "forbidden");
        auth.client_with_scope("clerk", "accounts:read:any").get(path).await.expect(200);
        auth.app.client().get(path).await.expect_problem(401, "unauthenticated");
    }
}
