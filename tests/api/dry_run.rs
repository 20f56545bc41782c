//! `?dry_run=true`: the response that a command would get, without recording anything.

use passbook_testkit::{ApiClient, App, spawn_app, spawn_app_in_one_partition};
use serde_json::{Value, json};
use uuid::Uuid;

/// Asserts the members that all receipts of dry runs have in common.
#[track_caller]
fn assert_dry_receipt(receipt: &Value, event_type: &str, version: i64, position: &str) {
    assert_eq!(receipt["events"], json!([{"type": event_type, "version": version}]));
    assert_eq!(receipt["version"], version);
    assert_eq!(receipt["position"], position);
}

async fn three_accounts(app: &App) -> (ApiClient, Uuid, Uuid, Uuid) {
    let client = app.client();
    let (open, frozen) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    let empty = client.open_with_balance(0).await;
    client.freeze(frozen).await.expect(200);
    (client, open, frozen, empty)
}

#[tokio::test]
async fn every_command_supports_dry_run() {
    let app = spawn_app_in_one_partition().await;
    let (client, open, frozen, empty) = three_accounts(&app).await;
    let before = app.log().await;
    let dry = client.dry_run();

    let opened = dry.open(json!({"currency": "EUR", "initial_deposit": 7})).await.expect(200);
    assert_dry_receipt(&opened.body, "AccountOpened", 1, "4");
    assert_eq!((opened.header("location"), opened.position()), (None, "4"));
    assert_eq!(opened.body["balance"], 7);

    let cases = [
        (dry.deposit(open, 50).await, "MoneyDeposited", 2, 150, "open"),
        (dry.withdraw(open, 50).await, "MoneyWithdrawn", 2, 50, "open"),
        (dry.freeze(open).await, "AccountFrozen", 2, 100, "frozen"),
        (dry.unfreeze(frozen).await, "AccountUnfrozen", 3, 0, "open"),
        (dry.close(empty).await, "AccountClosed", 2, 0, "closed"),
    ];
    for (response, event_type, version, balance, status) in cases {
        let response = response.expect(200);
        assert_dry_receipt(&response.body, event_type, version, "4");
        assert_eq!((&response.body["balance"], &response.body["status"]), (&json!(balance), &json!(status)));
        assert_eq!((response.position(), response.header("etag")), ("4", Some(format!("\"{version}\"").as_str())));
    }

    let moved = dry.transfer(open, empty, 50).await.expect(200);
    assert_dry_receipt(&moved.body["from"], "TransferSent", 2, "4");
    assert_dry_receipt(&moved.body["to"], "TransferReceived", 2, "4");
    assert_eq!((moved.text("/position"), moved.position(), moved.header("location")), ("4", "4", None));
    assert_eq!((&moved.body["from"]["balance"], &moved.body["to"]["balance"]), (&json!(50), &json!(50)));
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn dry_run_gets_the_refusal_of_the_command() {
    let app = spawn_app().await;
    let (client, open, frozen, _) = three_accounts(&app).await;
    let before = app.log().await;
    let dry = client.dry_run();
    dry.open(json!({"currency": "EUR", "account_id": open})).await.expect_problem(409, "account_exists");
    dry.withdraw(open, 101).await.expect_problem(422, "insufficient_funds");
    dry.deposit(frozen, 1).await.expect_problem(422, "account_frozen");
    dry.transfer(open, frozen, 1).await.expect_problem(422, "account_frozen");
    dry.close(open).await.expect_problem(422, "balance_not_zero");
    dry.unfreeze(open).await.expect_problem(422, "account_not_frozen");
    dry.if_match("\"7\"").freeze(open).await.expect_problem(412, "version_mismatch");
    dry.deposit(Uuid::from_u128(404), 1).await.expect_problem(404, "account_not_found");
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn dry_run_ignores_idempotency_keys() {
    let app = spawn_app().await;
    let (client, open, ..) = three_accounts(&app).await;
    let keyed = client.with_key("one");
    assert!(!keyed.dry_run().deposit(open, 50).await.expect(200).is_replay());
    assert!(!keyed.deposit(open, 50).await.expect(201).is_replay(), "the dry run did not record the key");
    let tried = keyed.dry_run().deposit(open, 60).await.expect(200);
    assert_eq!((tried.is_replay(), &tried.body["balance"]), (false, &json!(210)));
}

#[tokio::test]
async fn dry_run_refuses_a_malformed_key() {
    let app = spawn_app().await;
    let (client, open, ..) = three_accounts(&app).await;
    client.with_key("two words").dry_run().deposit(open, 50).await.expect_problem(400, "invalid_idempotency_key");
}

#[tokio::test]
async fn dry_runs_do_not_affect_concurrent_commands() {
    let app = spawn_app().await;
    let (client, open, ..) = three_accounts(&app).await;
    let dry = client.dry_run();
    let tries = futures_util::future::join_all((0..16).map(|_| dry.withdraw(open, 100)));
    let deposits = futures_util::future::join_all((0..16).map(|_| client.deposit(open, 1)));
    let (tries, deposits) = tokio::join!(tries, deposits);
    assert!(tries.iter().all(|response| response.status == 200));
    assert!(deposits.iter().all(|response| response.status == 201));
    let log = passbook_testkit::audit::audit(&app).await;
    assert_eq!(log.head.position, 4 + 16);
}

#[tokio::test]
async fn only_exact_values_of_dry_run_are_accepted() {
    let app = spawn_app().await;
    let client = app.client();
    let before = app.log().await;
    for query in ["dry_run", "dry_run=", "dry_run=1", "dry_run=True", "dryrun=true", "dry_run=true&dry_run=true"] {
        let path = format!("/v1/accounts?{query}");
        client.post(&path, r#"{"currency": "EUR"}"#).await.expect_problem(400, "invalid_parameter");
    }
    assert_eq!(app.log().await, before);
    client.post("/v1/accounts?dry_run=false", r#"{"currency": "EUR"}"#).await.expect(201);
}
