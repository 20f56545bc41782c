//! Metadata: texts that a client attaches to an account, a movement or a hold. They are stored and shown, and nothing depends on
//! them.

use passbook_testkit::{ApiClient, App, Response, spawn_app};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The commands that accept metadata: a path and a valid body without it.
fn commands(account: Uuid, other: Uuid) -> [(String, Value); 5] {
    [
        ("/v1/accounts".to_owned(), json!({"currency": "EUR", "initial_deposit": 5})),
        (format!("/v1/accounts/{account}/deposits"), json!({"amount": 5})),
        (format!("/v1/accounts/{account}/withdrawals"), json!({"amount": 5})),
        ("/v1/transfers".to_owned(), json!({"from": account, "to": other, "amount": 5})),
        (format!("/v1/accounts/{account}/holds"), json!({"amount": 5})),
    ]
}

fn with_metadata(body: &Value, metadata: Value) -> Value {
    let mut body = body.clone();
    body["metadata"] = metadata;
    body
}

async fn accounts(app: &App) -> (ApiClient, Uuid, Uuid) {
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(1_000).await);
    (client, account, other)
}

/// As many members as an object may have, with the longest key and the longest value. Characters count, not bytes.
fn largest() -> Value {
    let pairs = (0..20).map(|n| (format!("{n:02}{}", "ä".repeat(38)), json!("😀".repeat(500))));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

#[tokio::test]
async fn metadata_is_recorded_with_the_event_and_shown_by_the_views() {
    let app = spawn_app().await;
    let (client, account, other) = accounts(&app).await;
    let metadata = json!({"order": "17", "ünïcode": "", "a.b": "😀\n"});
    let mut receipts: Vec<Response> = Vec::new();
    for (path, body) in commands(account, other) {
        receipts.push(client.command(&path, with_metadata(&body, metadata.clone())).await.expect(201));
    }
    let log = app.log().await;
    let opened = receipts[0].account_id();
    let recorded: Vec<_> = log.event_payloads(account).into_iter().chain(log.event_payloads(opened)).collect();
    for event_type in ["AccountOpened", "MoneyDeposited", "MoneyWithdrawn", "TransferSent", "HoldPlaced"] {
        let data = &recorded.iter().rev().find(|(name, _)| *name == event_type).unwrap().1;
        assert_eq!(data["metadata"], metadata, "{event_type}");
    }
    assert_eq!(log.event_payloads(other).pop().unwrap().1["metadata"], metadata, "TransferReceived");

    let view = client.get_account(opened, receipts[0].position()).await.expect(200).body;
    assert_eq!(view["metadata"], metadata);
    let hold = receipts[4].uuid("/hold/hold_id");
    let path = format!("/v1/accounts/{account}/holds/{hold}?min_position={}", receipts[4].position());
    assert_eq!(client.get(&path).await.expect(200).body["metadata"], metadata);
    let path = format!("/v1/accounts/{account}/transactions?min_position={}", receipts[4].position());
    let transactions = client.get(&path).await.expect(200);
    for (row, kind) in transactions.data().iter().zip(["transfer_out", "withdrawal", "deposit"]) {
        assert_eq!((&row["kind"], &row["metadata"]), (&json!(kind), &metadata));
    }
    let path = format!("/v1/accounts/{other}/transactions?min_position={}", receipts[4].position());
    assert_eq!(client.get(&path).await.expect(200).data()[0]["metadata"], metadata);
}

#[tokio::test]
async fn empty_metadata_is_no_metadata() {
    let app = spawn_app().await;
    let (client, account, other) = accounts(&app).await;
    for (path, body) in commands(account, other) {
        for metadata in [json!({}), Value::Null] {
            client.command(&path, with_metadata(&body, metadata)).await.expect(201);
        }
    }
    let log = app.log().await;
    assert!(log.events.iter().all(|event| event.json().get("metadata").is_none()));
    let settled = client.deposit(account, 1).await.expect(201);
    assert_eq!(client.get_account(account, settled.position()).await.expect(200).body["metadata"], json!({}));
}

#[tokio::test]
async fn metadata_at_its_limits_is_accepted() {
    let app = spawn_app().await;
    let (client, account, other) = accounts(&app).await;
    for (path, body) in commands(account, other) {
        client.command(&path, with_metadata(&body, largest())).await.expect(201);
    }
    let recorded = app.log().await;
    let (_, data) = recorded.event_payloads(account).pop().unwrap();
    assert_eq!(data["metadata"], largest());
}

#[tokio::test]
async fn metadata_beyond_its_limits_is_refused() {
    let app = spawn_app().await;
    let (client, account, other) = accounts(&app).await;
    let before = app.log().await;
    let mut too_many = largest();
    too_many["another"] = json!("");
    let beyond = [
        too_many,
        json!({"": "x"}),
        json!({"k".repeat(41): "x"}),
        json!({"k": "x".repeat(501)}),
        json!({"k": "a\u{0}b"}),
        json!({"k\u{0}": "a"}),
    ];
    let malformed = [
        json!([]),
        json!(["k", "v"]),
        json!("k"),
        json!(17),
        json!({"k": 1}),
        json!({"k": null}),
        json!({"k": true}),
        json!({"k": ["v"]}),
        json!({"k": {"k": "v"}}),
    ];
    for (path, body) in commands(account, other) {
        for metadata in &beyond {
            let refused = client.command(&path, with_metadata(&body, metadata.clone())).await;
            let refused = refused.expect_problem(400, "invalid_parameter");
            assert_eq!(refused.body["errors"][0]["field"], "metadata", "{}", refused.body);
        }
        for metadata in &malformed {
            let keyed = client.with_key("malformed");
            keyed.command(&path, with_metadata(&body, metadata.clone())).await.expect_problem(400, "malformed_request");
        }
        // serde_json's own map would keep one of the two values.
        let body =
            with_metadata(&body, json!({})).to_string().replace("\"metadata\":{}", r#""metadata":{"k":"1","k":"2"}"#);
        assert!(body.contains(r#""k":"2""#));
        client.post(&path, body).await.expect_problem(400, "malformed_request");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn key_identifies_metadata_in_any_order_of_its_members() {
    let app = spawn_app().await;
    let (client, account, _) = accounts(&app).await;
    let keyed = client.with_key("deposit");
    let path = format!("/v1/accounts/{account}/deposits");
    let first = keyed.post(&path, r#"{"amount": 5, "metadata": {"a": "1", "b": "2"}}"#).await.expect(201);
    let again = keyed.post(&path, r#"{"metadata": {"b": "2", "a": "1"}, "amount": 5}"#).await.expect(201);
    assert!(again.is_replay());
    assert_eq!(again.body, first.body);
    for other in [r#"{"amount": 5}"#, r#"{"amount": 5, "metadata": {"a": "1", "b": "3"}}"#] {
        keyed.post(&path, other).await.expect_problem(422, "idempotency_key_reused");
    }
    let view = client.get_account(account, again.position()).await.expect(200).body;
    assert_eq!(view["balance"], 1_005);
}

#[tokio::test]
async fn other_commands_have_no_metadata() {
    let app = spawn_app().await;
    let (client, account, _) = accounts(&app).await;
    let hold = client.place_hold(account, json!({"amount": 5})).await.expect(201).uuid("/hold/hold_id");
    let before = app.log().await;
    for path in [
        "freeze".to_owned(),
        "unfreeze".to_owned(),
        "close".to_owned(),
        format!("holds/{hold}/capture"),
        format!("holds/{hold}/void"),
        "transactions/1/reversal".to_owned(),
    ] {
        let path = format!("/v1/accounts/{account}/{path}");
        client.command(&path, json!({"metadata": {"k": "v"}})).await.expect_problem(400, "malformed_request");
    }
    client.set_limits(account, json!({"metadata": {}})).await.expect_problem(400, "malformed_request");
    assert_eq!(app.log().await, before);
}
