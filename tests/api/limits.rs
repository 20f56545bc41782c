//! Limits and the overdraft: exact, decided with the money, and shown with their usage. Balances are compared after each step.

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use passbook_testkit::{ApiClient, Response, spawn_app};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const CEILING: i64 = 9_007_199_254_740_991;

async fn money(client: &ApiClient, account: Uuid, after: &Response) -> [i64; 3] {
    let view = client.get_account(account, after.position()).await.expect(200).body;
    ["balance", "available", "overdraft"].map(|member| view[member].as_i64().unwrap())
}

async fn usage(client: &ApiClient, account: Uuid, after: &Response) -> Value {
    let path = format!("/v1/accounts/{account}/limits?min_position={}", after.position());
    client.get(&path).await.expect(200).body
}

fn midnight(date: NaiveDate) -> String {
    date.format("%Y-%m-%dT00:00:00.000000Z").to_string()
}

/// The end of the day and of the month of a moment in UTC.
fn ends(at: DateTime<Utc>) -> [String; 2] {
    let today = at.date_naive();
    let next_month = today.with_day(1).unwrap().checked_add_months(Months::new(1)).unwrap();
    [midnight(today.succ_opt().unwrap()), midnight(next_month)]
}

/// When the last event of a receipt was recorded.
fn recorded_at(receipt: &Response) -> DateTime<Utc> {
    receipt.text("/events/0/recorded_at").parse().unwrap()
}

#[tokio::test]
async fn overdraft_lets_the_balance_go_down_to_its_negative() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.withdraw(account, 101).await.expect_problem(422, "insufficient_funds");
    let set = client.set_limits(account, json!({"overdraft": 300})).await.expect(200);
    assert_eq!(set.body["events"][0]["type"], "LimitsSet");
    assert_eq!(
        (&set.body["balance"], &set.body["available"], &set.body["version"]),
        (&json!(100), &json!(400), &json!(2))
    );
    assert_eq!(set.header("etag"), Some("\"2\""));
    assert_eq!(money(&client, account, &set).await, [100, 400, 300]);
    let refused = client.withdraw(account, 401).await.expect_problem(422, "insufficient_funds");
    assert_eq!((&refused.body["balance"], &refused.body["available"]), (&json!(100), &json!(400)));
    let withdrawn = client.withdraw(account, 350).await.expect(201);
    assert_eq!((&withdrawn.body["balance"], &withdrawn.body["available"]), (&json!(-250), &json!(50)));
    assert_eq!(money(&client, account, &withdrawn).await, [-250, 50, 300]);
    let used = usage(&client, account, &withdrawn).await;
    assert_eq!(used["overdraft"], json!({"maximum": 300, "used": 250, "remaining": 50, "resets_at": null}));

    // A lower overdraft stops further debits only.
    let lowered = client.set_limits(account, json!({"overdraft": 200})).await.expect(200);
    assert_eq!(money(&client, account, &lowered).await, [-250, -50, 200]);
    let refused = client.withdraw(account, 1).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["available"], -50);
    client.place_hold(account, json!({"amount": 1})).await.expect_problem(422, "insufficient_funds");
    client.close(account).await.expect_problem(422, "balance_not_zero");
    let paid = client.deposit(account, 251).await.expect(201);
    assert_eq!(money(&client, account, &paid).await, [1, 201, 200]);
    let none = client.set_limits(account, json!({})).await.expect(200);
    assert_eq!(money(&client, account, &none).await, [1, 1, 0]);
}

#[tokio::test]
async fn balance_plus_overdraft_never_passes_the_ceiling() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let too_much = json!({"overdraft": CEILING - 99});
    client.set_limits(account, too_much).await.expect_problem(422, "balance_limit_exceeded");
    let set = client.set_limits(account, json!({"overdraft": CEILING - 100})).await.expect(200);
    assert_eq!(money(&client, account, &set).await, [100, CEILING, CEILING - 100]);
    client.deposit(account, 1).await.expect_problem(422, "balance_limit_exceeded");
    let withdrawn = client.withdraw(account, CEILING).await.expect(201);
    assert_eq!(money(&client, account, &withdrawn).await, [100 - CEILING, 0, CEILING - 100]);
}

#[tokio::test]
async fn largest_movement_limits_withdrawals_transfers_and_holds() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(1_000).await);
    client.set_limits(account, json!({"per_movement": 100})).await.expect(200);
    for refused in [
        client.withdraw(account, 101).await,
        client.transfer(account, other, 101).await,
        client.place_hold(account, json!({"amount": 101})).await,
    ] {
        let refused = refused.expect_problem(422, "limit_exceeded");
        assert_eq!((&refused.body["limit"], &refused.body["maximum"]), (&json!("per_movement"), &json!(100)));
        assert_eq!((&refused.body["used"], &refused.body["resets_at"]), (&json!(0), &Value::Null));
        assert_eq!(refused.account_id(), account);
    }
    // Money that arrives is not limited.
    client.deposit(account, 500).await.expect(201);
    client.transfer(other, account, 500).await.expect(201);
    client.withdraw(account, 100).await.expect(201);
    client.transfer(account, other, 100).await.expect(201);
    let placed = client.place_hold(account, json!({"amount": 100})).await.expect(201);
    assert_eq!(money(&client, account, &placed).await, [1_800, 1_700, 0]);
    let used = usage(&client, account, &placed).await;
    assert_eq!(used["per_movement"], json!({"maximum": 100, "used": 0, "remaining": 100, "resets_at": null}));
    assert_eq!((&used["out_per_day"], &used["out_per_month"]), (&Value::Null, &Value::Null));
    assert_eq!(used["overdraft"], Value::Null);
}

#[tokio::test]
async fn periods_count_what_left_the_account_before_the_limit_was_set() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    client.withdraw(account, 30).await.expect(201);
    client.transfer(account, other, 20).await.expect(201);
    let hold = client.place_hold(account, json!({"amount": 40})).await.expect(201).uuid("/hold/hold_id");
    let set = client.set_limits(account, json!({"out_per_day": 100, "out_per_month": 150})).await.expect(200);
    let [day, month] = ends(recorded_at(&set));
    let shown = usage(&client, account, &set).await;
    assert_eq!(shown["out_per_day"], json!({"maximum": 100, "used": 90, "remaining": 10, "resets_at": day}));
    assert_eq!(shown["out_per_month"], json!({"maximum": 150, "used": 90, "remaining": 60, "resets_at": month}));
    let refused = client.withdraw(account, 11).await.expect_problem(422, "limit_exceeded");
    for (member, expected) in
        [("limit", json!("out_per_day")), ("maximum", json!(100)), ("used", json!(90)), ("resets_at", json!(day))]
    {
        assert_eq!(refused.body[member], expected, "{member} of {}", refused.body);
    }
    assert_eq!(money(&client, account, &refused).await, [950, 910, 0]);

    // A capture does not count again, and what it releases is given back.
    client.capture_hold(account, hold, json!({"amount": 15})).await.expect(201);
    let exact = client.withdraw(account, 35).await.expect(201);
    assert_eq!(usage(&client, account, &exact).await["out_per_day"]["remaining"], 0);
    client.transfer(account, other, 1).await.expect_problem(422, "limit_exceeded");
    client.place_hold(account, json!({"amount": 1})).await.expect_problem(422, "limit_exceeded");

    // Without the limit of the day, that of the month is exceeded. A void gives back, too.
    client.set_limits(account, json!({"out_per_month": 150})).await.expect(200);
    let hold = client.place_hold(account, json!({"amount": 50})).await.expect(201).uuid("/hold/hold_id");
    let refused = client.withdraw(account, 1).await.expect_problem(422, "limit_exceeded");
    assert_eq!((&refused.body["limit"], &refused.body["resets_at"]), (&json!("out_per_month"), &json!(month)));
    client.void_hold(account, hold).await.expect(200);
    let last = client.withdraw(account, 50).await.expect(201);
    assert_eq!(usage(&client, account, &last).await["out_per_month"]["used"], 150);
    assert_eq!(money(&client, account, &last).await, [850, 850, 0]);
}

#[tokio::test]
async fn limits_are_replaced_as_a_whole() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let all = json!({"overdraft": 1, "per_movement": 0, "out_per_day": 3, "out_per_month": CEILING});
    client.set_limits(account, all.clone()).await.expect(200);
    assert_eq!(app.log().await.event_payloads(account).pop(), Some(("LimitsSet", all)));
    client.withdraw(account, 1).await.expect_problem(422, "limit_exceeded");
    let set = client.set_limits(account, json!({"out_per_day": 2, "per_movement": null})).await.expect(200);
    let data = json!({"overdraft": 0, "out_per_day": 2});
    assert_eq!(app.log().await.event_payloads(account).pop(), Some(("LimitsSet", data)));
    let shown = usage(&client, account, &set).await;
    assert_eq!(shown["out_per_day"]["maximum"], 2);
    for absent in ["overdraft", "per_movement", "out_per_month"] {
        assert_eq!(shown[absent], Value::Null, "{absent}");
    }
    // A frozen account gets limits, a closed one does not.
    client.freeze(account).await.expect(200);
    client.set_limits(account, json!({"out_per_day": 100})).await.expect(200);
    client.unfreeze(account).await.expect(200);
    client.withdraw(account, 100).await.expect(201);
    client.close(account).await.expect(200);
    client.set_limits(account, json!({})).await.expect_problem(422, "account_closed");
    client.set_limits(Uuid::from_u128(404), json!({})).await.expect_problem(404, "account_not_found");
    let path = format!("/v1/accounts/{}/limits", Uuid::from_u128(404));
    client.get(&path).await.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn setting_limits_obeys_keys_conditions_and_dry_runs() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let before = app.log().await;
    let dry = client.dry_run().set_limits(account, json!({"overdraft": 5})).await.expect(200);
    assert_eq!(
        (&dry.body["available"], &dry.body["events"]),
        (&json!(105), &json!([{"type": "LimitsSet", "version": 2}]))
    );
    let stale = client.if_match("\"7\"").set_limits(account, json!({"overdraft": 5})).await;
    assert_eq!(stale.expect_problem(412, "version_mismatch").body["current_version"], 1);
    assert_eq!(app.log().await, before);
    let keyed = client.with_key("limits");
    let first = keyed.set_limits(account, json!({"overdraft": 5, "out_per_day": 1})).await.expect(200);
    client.set_limits(account, json!({"overdraft": 9})).await.expect(200);
    let again = keyed.set_limits(account, json!({"out_per_day": 1, "overdraft": 5})).await.expect(200);
    assert_eq!((again.is_replay(), &again.body), (true, &first.body));
    let settled = client.deposit(account, 1).await.expect(201);
    assert_eq!(money(&client, account, &settled).await, [101, 110, 9], "the replay set nothing");
    let reused = keyed.set_limits(account, json!({"overdraft": 5})).await;
    reused.expect_problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn invalid_limits_are_refused() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let before = app.log().await;
    for field in ["overdraft", "per_movement", "out_per_day", "out_per_month"] {
        for value in [json!(-1), json!(CEILING + 1), json!(1.5), json!("1"), json!(true), json!([])] {
            let refused = client.set_limits(account, json!({field: value})).await.expect_problem(400, "invalid_amount");
            assert_eq!(refused.body["errors"][0]["field"], field);
        }
    }
    client.set_limits(account, json!({"per_day": 1})).await.expect_problem(400, "malformed_request");
    let path = format!("/v1/accounts/{account}/limits");
    for method in [Method::POST, Method::PATCH, Method::DELETE] {
        client.send(method, &path, "{}").await.expect_problem(405, "method_not_allowed");
    }
    client.get(&format!("{path}?limit=1")).await.expect_problem(400, "invalid_parameter");
    assert_eq!(app.log().await, before);
}
