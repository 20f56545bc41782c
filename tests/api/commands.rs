//! Each command when it succeeds: status, headers, the exact receipt, and the recorded event.

use passbook_testkit::{
    Response,
    response::{is_id, is_time},
    spawn_app, spawn_app_in_one_partition,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Asserts the whole receipt of one event; of the event's id and time only the form.
#[track_caller]
fn assert_receipt(
    receipt: &Value,
    account: Uuid,
    event_type: &str,
    version: i64,
    status: &str,
    rest: (i64, &str, &str),
) {
    let (balance, currency, position) = rest;
    let event = &receipt["events"][0];
    assert!(is_id(&event["id"]) && is_time(&event["recorded_at"]), "{receipt}");
    let expected = json!({
        "account_id": account, "version": version, "status": status, "balance": balance, "available": balance,
        "currency": currency, "position": position,
        "events": [{
            "id": event["id"], "type": event_type, "version": version, "recorded_at": event["recorded_at"],
        }],
    });
    assert_eq!(*receipt, expected);
}

#[track_caller]
fn assert_headers(response: &Response, etag: Option<&str>, position: &str) {
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("etag"), etag);
    assert_eq!(response.header("passbook-position"), Some(position));
    assert_eq!(response.header("idempotency-replayed"), None);
}

#[tokio::test]
async fn open_gives_receipt_and_location() {
    let app = spawn_app_in_one_partition().await;
    let body = json!({"currency": "JPY", "owner": "customer-17", "initial_deposit": 10_000});
    let opened = app.client().open(body).await.expect(201);
    let account = opened.account_id();
    assert_headers(&opened, Some("\"1\""), "1");
    assert_eq!(opened.header("location"), Some(format!("/v1/accounts/{account}").as_str()));
    assert_receipt(&opened.body, account, "AccountOpened", 1, "open", (10_000, "JPY", "1"));
    let data = json!({"owner": "customer-17", "currency": "JPY", "initial_deposit": 10_000});
    assert_eq!(app.log().await.event_payloads(account), [("AccountOpened", data)]);
}

#[tokio::test]
async fn open_defaults_to_the_caller_as_owner_and_balance_0() {
    let app = spawn_app_in_one_partition().await;
    let opened = app.client().open(json!({"currency": "EUR"})).await.expect(201);
    assert!(is_id(&opened.body["account_id"]), "{}", opened.body);
    assert_eq!(opened.body["balance"], 0);
    let data = json!({"owner": "anonymous", "currency": "EUR", "initial_deposit": 0});
    assert_eq!(app.log().await.event_payloads(opened.account_id()), [("AccountOpened", data)]);
}

#[tokio::test]
async fn open_uses_the_given_account_id() {
    let app = spawn_app().await;
    let chosen = Uuid::from_u128(17);
    let opened = app.client().open(json!({"currency": "EUR", "account_id": chosen})).await.expect(201);
    assert_eq!(opened.account_id(), chosen);
    app.client().open(json!({"currency": "USD", "account_id": chosen})).await.expect_problem(409, "account_exists");
    assert_eq!(app.log().await.head.position, 1);
}

#[tokio::test]
async fn deposit_raises_the_balance() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(10_000).await;
    let body = json!({"amount": 5_000, "currency": "EUR", "reference": "salary ✓"});
    let deposited = client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
    assert_headers(&deposited, Some("\"2\""), "2");
    assert_eq!(deposited.header("location"), None);
    assert_receipt(&deposited.body, account, "MoneyDeposited", 2, "open", (15_000, "EUR", "2"));
    let data = json!({"amount": 5_000, "reference": "salary ✓"});
    assert_eq!(app.log().await.event_payloads(account)[1], ("MoneyDeposited", data));
}

#[tokio::test]
async fn withdrawal_can_take_the_whole_balance() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(10_000).await;
    let body = json!({"amount": 10_000, "reference": "cash"});
    let withdrawn = client.command(&format!("/v1/accounts/{account}/withdrawals"), body).await.expect(201);
    assert_headers(&withdrawn, Some("\"2\""), "2");
    assert_receipt(&withdrawn.body, account, "MoneyWithdrawn", 2, "open", (0, "EUR", "2"));
    let data = json!({"amount": 10_000, "reference": "cash"});
    assert_eq!(app.log().await.event_payloads(account)[1], ("MoneyWithdrawn", data));
}

#[tokio::test]
async fn channel_is_recorded_with_deposits_and_withdrawals() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    let channels = ["branch", "atm", "online"];
    for channel in channels {
        let body = || json!({"amount": 5, "channel": channel});
        client.command(&format!("/v1/accounts/{account}/deposits"), body()).await.expect(201);
        client.command(&format!("/v1/accounts/{account}/withdrawals"), body()).await.expect(201);
    }
    let log = app.log().await;
    let recorded = |channel| [("MoneyDeposited", channel), ("MoneyWithdrawn", channel)];
    let expected = channels.into_iter().flat_map(recorded);
    let expected: Vec<_> =
        expected.map(|(event_type, channel)| (event_type, json!({"amount": 5, "channel": channel}))).collect();
    assert_eq!(log.event_payloads(account)[1..], expected);
    assert!(log.events[1..].iter().all(|event| event.schema_version == 2));
}

#[tokio::test]
async fn transfer_changes_both_accounts_in_one_batch() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(10_000).await, client.open_with_balance(0).await);
    let body = json!({"from": from, "to": to, "amount": 2_500, "currency": "EUR", "reference": "rent"});
    let moved = client.command("/v1/transfers", body).await.expect(201);
    let transfer = moved.uuid("/transfer_id");
    assert_headers(&moved, None, "4");
    assert_eq!(moved.header("location"), Some(format!("/v1/transfers/{transfer}").as_str()));
    assert!(is_id(&moved.body["transfer_id"]));
    assert_receipt(&moved.body["from"], from, "TransferSent", 2, "open", (7_500, "EUR", moved.text("/from/position")));
    assert_receipt(&moved.body["to"], to, "TransferReceived", 2, "open", (2_500, "EUR", "4"));
    let expected = json!({
        "transfer_id": transfer, "amount": 2_500, "currency": "EUR", "position": "4",
        "from": moved.body["from"], "to": moved.body["to"],
    });
    assert_eq!(moved.body, expected);

    let log = app.log().await;
    let sent = json!({"transfer_id": transfer, "to": to, "amount": 2_500, "reference": "rent"});
    let received = json!({"transfer_id": transfer, "from": from, "amount": 2_500, "reference": "rent"});
    assert_eq!(log.event_payloads(from)[1], ("TransferSent", sent));
    assert_eq!(log.event_payloads(to)[1], ("TransferReceived", received));
    assert_eq!(log.events[2].recorded_at, log.events[3].recorded_at, "both sides have the time of one batch");
}

#[tokio::test]
async fn freeze_unfreeze_and_close_change_the_status() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let steps = [
        ("freeze", "AccountFrozen", "frozen", "lost card"),
        ("unfreeze", "AccountUnfrozen", "open", "card found"),
        ("close", "AccountClosed", "closed", "owner's request"),
    ];
    for (version, (verb, event_type, status, reason)) in (2..).zip(steps) {
        let path = format!("/v1/accounts/{account}/{verb}");
        let changed = client.command(&path, json!({"reason": reason})).await.expect(200);
        assert_headers(&changed, Some(&format!("\"{version}\"")), &version.to_string());
        let rest = (0, "EUR", &*version.to_string());
        assert_receipt(&changed.body, account, event_type, version, status, rest);
        let log = app.log().await;
        assert_eq!(log.event_payloads(account).last(), Some(&(event_type, json!({"reason": reason}))));
    }
}

#[tokio::test]
async fn status_commands_need_neither_reason_nor_body() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    for verb in ["freeze", "unfreeze", "close"] {
        client.send(reqwest::Method::POST, &format!("/v1/accounts/{account}/{verb}"), "").await.expect(200);
        assert_eq!(app.log().await.events.last().unwrap().json(), json!({}));
    }
}

#[tokio::test]
async fn owner_and_reference_may_have_their_maximum_length() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let opened = client.open(json!({"currency": "EUR", "owner": "ö".repeat(255)})).await.expect(201);
    let path = format!("/v1/accounts/{}/deposits", opened.account_id());
    client.command(&path, json!({"amount": 1, "reference": "😀".repeat(500)})).await.expect(201);
    let reference = &app.log().await.events[1].json()["reference"];
    assert_eq!(*reference, "😀".repeat(500));
}
