//! Batches with mode `each`: every command succeeds or fails by itself, with the status of the single command.

use passbook_testkit::{Response, audit::audit, spawn_app, spawn_app_with};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::partitions::{FOUR, open_in};

fn deposit(account: Uuid, amount: i64) -> Value {
    json!({"command": "deposit", "account_id": account, "amount": amount})
}

/// The command with an idempotency key.
fn keyed(command: &Value, key: &str) -> Value {
    let mut command = command.clone();
    command["idempotency_key"] = json!(key);
    command
}

fn statuses(response: &Response) -> Vec<i64> {
    response.results().iter().map(|result| result["status"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn every_command_has_the_status_and_receipt_of_the_single_one() {
    let app = spawn_app().await;
    let client = app.client();
    let (one, two, new) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await, Uuid::now_v7());
    let hold = client.place_hold(one, json!({"amount": 100})).await.expect(201).uuid("/hold/hold_id");
    let other = client.place_hold(one, json!({"amount": 50})).await.expect(201).uuid("/hold/hold_id");
    let commands = [
        json!({"command": "open", "account_id": new, "currency": "EUR"}),
        json!({"command": "deposit", "account_id": one, "amount": 5, "channel": "atm", "metadata": {"a": "b"}}),
        json!({"command": "withdraw", "account_id": one, "amount": 5, "reference": "cash"}),
        json!({"command": "transfer", "from": one, "to": two, "amount": 7}),
        json!({"command": "freeze", "account_id": two}),
        json!({"command": "unfreeze", "account_id": two, "reason": "done"}),
        json!({"command": "close", "account_id": new}),
        json!({"command": "place_hold", "account_id": one, "amount": 9, "expires_in_seconds": 60}),
        json!({"command": "capture_hold", "account_id": one, "hold_id": hold, "amount": 10, "final": false, "to": two}),
        json!({"command": "void_hold", "account_id": one, "hold_id": other, "reason": "cancelled"}),
        json!({"command": "reverse", "account_id": two, "version": 2, "amount": 1}),
        json!({"command": "set_limits", "account_id": one, "overdraft": 10, "per_movement": 500}),
        json!({"command": "deposit", "account_id": Uuid::from_u128(404), "amount": 1}),
        json!({"command": "withdraw", "account_id": one, "amount": 501}),
    ];
    let done = client.batch("each", &commands).await.expect(200);
    assert_eq!(statuses(&done), [201, 201, 201, 201, 200, 200, 200, 201, 201, 200, 201, 200, 404, 422]);
    let receipt = |index: usize| &done.results()[index]["receipt"];
    assert_eq!(receipt(3)["to"]["balance"], 7);
    assert_eq!(receipt(7)["hold"]["amount"], 9);
    assert_eq!(receipt(8)["hold"]["remaining"], 90);
    assert_eq!(receipt(10)["transfer_id"], receipt(3)["transfer_id"]);
    assert_eq!(done.results()[12]["problem"]["code"], "account_not_found");
    let limited = &done.results()[13]["problem"];
    assert_eq!((&limited["code"], &limited["limit"]), (&json!("limit_exceeded"), &json!("per_movement")));
    assert_eq!((&limited["instance"], &limited["index"]), (&json!("/v1/batches"), &Value::Null));
    assert_eq!(done.text("/position"), done.position());
    let view = client.get_account(one, done.position()).await.expect(200);
    assert_eq!(view.body["balance"], 1_000 - 7 - 10 + 1);
    let log = audit(&app).await;
    let batched = log.events.iter().filter(|event| event.metadata.contains("\"batch_id\":")).count();
    assert_eq!((batched, log.events.len()), (15, 19));
}

#[tokio::test]
async fn invalid_values_fail_by_themselves() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    let cases = [
        (json!({"command": "deposit", "account_id": account, "amount": 0}), "invalid_amount", "amount"),
        (json!({"command": "deposit", "account_id": account, "amount": "5"}), "invalid_amount", "amount"),
        (json!({"command": "deposit", "account_id": account}), "malformed_request", "amount"),
        (json!({"command": "deposit", "account_id": "x", "amount": 5}), "invalid_parameter", "account_id"),
        (json!({"command": "deposit", "account_id": 17, "amount": 5}), "malformed_request", "account_id"),
        (json!({"command": "deposit", "amount": 5}), "malformed_request", "account_id"),
        (
            json!({"command": "deposit", "account_id": account, "amount": 5, "reference": 5}),
            "malformed_request",
            "reference",
        ),
        (
            json!({"command": "deposit", "account_id": account, "amount": 5, "currency": "XXQ"}),
            "invalid_currency",
            "currency",
        ),
        (json!({"command": "open", "currency": "HRK"}), "invalid_currency", "currency"),
        (json!({"command": "reverse", "account_id": account, "version": 0}), "invalid_parameter", "version"),
        (json!({"command": "reverse", "account_id": account, "version": "1"}), "invalid_parameter", "version"),
        (json!({"command": "close", "account_id": account, "reason": "x".repeat(501)}), "invalid_parameter", "reason"),
        (keyed(&deposit(account, 5), "two words"), "invalid_idempotency_key", "idempotency_key"),
        (keyed(&deposit(account, 5), ""), "invalid_idempotency_key", "idempotency_key"),
    ];
    let mut commands = vec![json!({"command": "transfer", "from": account, "to": account, "amount": 1})];
    commands.extend(cases.iter().map(|(command, ..)| command.clone()));
    commands.push(deposit(account, 5));
    let done = client.batch("each", &commands).await.expect(200);
    assert_eq!(done.results()[0]["problem"]["code"], "same_account");
    for (result, (command, code, field)) in done.results()[1..].iter().zip(&cases) {
        assert_eq!((&result["status"], &result["problem"]["code"]), (&json!(400), &json!(code)), "{command}");
        assert_eq!(result["problem"]["errors"][0]["field"], *field, "{command} {result}");
    }
    assert_eq!(done.results().last().unwrap()["receipt"]["balance"], 15);
    let none = client.batch("each", &commands[..3]).await.expect(200);
    assert_eq!(none.text("/position"), none.position());
    assert_eq!(audit(&app).await.event_payloads(account).len(), 2);
}

#[tokio::test]
async fn position_of_a_batch_without_a_judged_command_can_be_read() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let account = open_in(&client, 3, 10).await;
    app.wait_until_projected().await;
    let invalid = client.batch("each", &[deposit(account, 0)]).await.expect(200);
    assert_eq!((invalid.text("/position"), invalid.position()), ("0:0", "0:0"));
    client.get_account(account, invalid.position()).await.expect(200);
    let mixed = client.batch("each", &[deposit(account, 0), deposit(account, 1)]).await.expect(200);
    assert_eq!((mixed.text("/position"), mixed.position()), ("3:2", "3:2"));
    client.get_account(account, mixed.position()).await.expect(200);
}

#[tokio::test]
async fn keys_of_commands_are_recorded_and_replayed() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let withdraw = json!({"command": "withdraw", "account_id": account, "amount": 6});
    let commands = [keyed(&deposit(account, 5), "one"), keyed(&withdraw, "two"), deposit(account, 1)];
    let first = client.batch("each", &commands).await.expect(200);
    assert_eq!(statuses(&first), [201, 422, 201]);
    assert!(first.results().iter().all(|result| result.get("replayed").is_none()));
    let again = client.batch("each", &commands).await.expect(200);
    assert_eq!(statuses(&again), [201, 422, 201], "the refusal stays although the balance is 6 now");
    assert_eq!(again.results()[0]["replayed"], true);
    assert_eq!(again.results()[0]["receipt"], first.results()[0]["receipt"]);
    assert_eq!(again.results()[1]["replayed"], true);
    assert_eq!(again.results()[2]["receipt"]["balance"], 7);
    // Another order of members and white space is the same request; another amount is not.
    let reordered = format!(
        r#"{{"mode":"each","commands":[{{ "amount" : 5,"idempotency_key":"one","account_id":"{account}", "command":"deposit"}}]}}"#
    );
    assert_eq!(client.post("/v1/batches", reordered).await.expect(200).results()[0]["replayed"], true);
    let other = client.batch("each", &[keyed(&deposit(account, 6), "one")]).await.expect(200);
    assert_eq!(other.results()[0]["problem"]["code"], "idempotency_key_reused");
    assert_eq!(audit(&app).await.event_payloads(account).len(), 4);
}

#[tokio::test]
async fn single_command_is_another_request_than_the_same_item() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    client.batch("each", &[keyed(&deposit(account, 5), "item")]).await.expect(200);
    client.with_key("item").deposit(account, 5).await.expect_problem(422, "idempotency_key_reused");
    client.with_key("single").deposit(account, 5).await.expect(201);
    let refused = client.batch("each", &[keyed(&deposit(account, 5), "single")]).await.expect(200);
    assert_eq!(refused.results()[0]["problem"]["code"], "idempotency_key_reused");
    // Lines of JSON are the same requests as items.
    let line = client.batch_lines(keyed(&deposit(account, 5), "item").to_string()).await.expect(200);
    assert_eq!(line.lines()[0]["replayed"], true);
    assert_eq!(audit(&app).await.event_payloads(account).len(), 3);
}

#[tokio::test]
async fn repeated_key_within_a_batch_is_a_replay_or_a_refusal() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let one = keyed(&deposit(account, 5), "one");
    let commands = [one.clone(), one.clone(), keyed(&deposit(account, 6), "one"), one];
    let done = client.batch("each", &commands).await.expect(200);
    assert_eq!(statuses(&done), [201, 201, 422, 201]);
    assert_eq!(done.results()[0].get("replayed"), None);
    assert_eq!((&done.results()[1]["replayed"], &done.results()[3]["replayed"]), (&json!(true), &json!(true)));
    assert_eq!(done.results()[3]["receipt"], done.results()[0]["receipt"]);
    assert_eq!(audit(&app).await.event_payloads(account).len(), 2);
}

#[tokio::test]
async fn opening_with_a_key_never_opens_two_accounts() {
    let app = spawn_app().await;
    let client = app.client();
    let open = keyed(&json!({"command": "open", "currency": "EUR"}), "opening");
    let first = client.batch("each", &[open.clone(), open.clone()]).await.expect(200);
    let again = client.batch("each", &[open]).await.expect(200);
    let opened = &first.results()[0]["receipt"]["account_id"];
    assert_eq!(&first.results()[1]["receipt"]["account_id"], opened);
    assert_eq!(&again.results()[0]["receipt"]["account_id"], opened);
    assert_eq!(audit(&app).await.head.position, 1);
}

#[tokio::test]
async fn dry_run_sees_the_earlier_commands_and_records_nothing() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, new) = (client.open_with_balance(10).await, Uuid::now_v7());
    let before = app.log().await;
    let commands = [
        keyed(&json!({"command": "open", "account_id": new, "currency": "EUR"}), "open"),
        keyed(&json!({"command": "transfer", "from": account, "to": new, "amount": 10}), "pay"),
        json!({"command": "withdraw", "account_id": account, "amount": 1}),
        json!({"command": "withdraw", "account_id": new, "amount": 10}),
        json!({"command": "withdraw", "account_id": new, "amount": 0}),
    ];
    let tried = client.dry_run().batch("each", &commands).await.expect(200);
    assert_eq!(statuses(&tried), [200, 200, 422, 200, 400]);
    assert_eq!(tried.results()[3]["receipt"]["events"], json!([{"type": "MoneyWithdrawn", "version": 3}]));
    assert_eq!(app.log().await, before);
    let done = client.batch("each", &commands).await.expect(200);
    assert_eq!(statuses(&done), [201, 201, 422, 201, 400]);
    assert!(done.results().iter().all(|result| result.get("replayed").is_none()), "the dry run recorded no key");
}

#[tokio::test]
async fn short_results_have_index_status_and_version_or_code() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let commands = [
        deposit(account, 5),
        json!({"command": "withdraw", "account_id": account, "amount": 100}),
        json!({"command": "transfer", "from": account, "to": other, "amount": 5}),
        json!({"command": "freeze", "account_id": other}),
        deposit(account, 0),
    ];
    let minimal = client.with_header("prefer", "wait=10, return=minimal").batch("each", &commands).await.expect(200);
    assert_eq!(minimal.header("preference-applied"), Some("return=minimal"));
    let expected = json!([
        {"index": 0, "status": 201, "version": 2},
        {"index": 1, "status": 422, "code": "insufficient_funds"},
        {"index": 2, "status": 201},
        {"index": 3, "status": 200, "version": 3},
        {"index": 4, "status": 400, "code": "invalid_amount"},
    ]);
    assert_eq!(minimal.body["results"], expected);
    let full = client.with_header("prefer", "return=representation").batch("each", &commands[..1]).await.expect(200);
    assert_eq!(full.header("preference-applied"), None);
    assert_eq!(full.results()[0]["receipt"]["version"], 4);
}

#[tokio::test]
async fn short_results_say_which_commands_are_replayed() {
    let app = spawn_app().await;
    let client = app.client().with_header("prefer", "return=minimal");
    let account = client.open_with_balance(10).await;
    let withdraw = keyed(&json!({"command": "withdraw", "account_id": account, "amount": 100}), "refused");
    let first = client.batch("each", &[keyed(&deposit(account, 5), "one"), withdraw.clone()]).await.expect(200);
    assert!(first.results().iter().all(|result| result.get("replayed").is_none()));
    let commands = [keyed(&deposit(account, 5), "one"), keyed(&deposit(account, 5), "two"), withdraw];
    let second = client.batch("each", &commands).await.expect(200);
    let expected = json!([
        {"index": 0, "status": 201, "version": 2, "replayed": true},
        {"index": 1, "status": 201, "version": 3},
        {"index": 2, "status": 422, "code": "insufficient_funds", "replayed": true},
    ]);
    assert_eq!(second.body["results"], expected);
}
