//! Idempotency keys: a request under a key has one outcome, a receipt or a refusal by the state, and every repetition gets it.

use chrono::Utc;
use futures_util::future::join_all;
use passbook_event_store::{
    NewEvent,
    log::{self, Key, KeyId, Outcome},
};
use passbook_testkit::{Response, audit::audit, spawn_app, spawn_app_in_one_partition};
use serde_json::json;
use uuid::Uuid;

/// Asserts that the second response is a replay of the first.
#[track_caller]
fn assert_replayed(first: &Response, again: &Response) {
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for header in ["etag", "location", "passbook-position"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
    assert!(!first.is_replay() && again.is_replay());
}

#[tokio::test]
async fn concurrent_identical_requests_record_one_event() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let keyed = app.client().with_key("once");
    let responses = join_all((0..64).map(|_| keyed.deposit(account, 5))).await;
    let first = responses.iter().find(|response| !response.is_replay()).expect("one response that is not a replay");
    assert_eq!(first.status, 201);
    assert_eq!(responses.iter().filter(|response| response.is_replay()).count(), 63);
    assert!(responses.iter().all(|response| (response.status, &response.body) == (first.status, &first.body)));
    let log = app.log().await;
    assert_eq!((log.head.position, log.keys), (2, 1));
}

#[tokio::test]
async fn every_command_is_replayed() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    let opening = client.with_key("open");
    let first = opening.open(json!({"currency": "EUR"})).await.expect(201);
    assert_replayed(&first, &opening.open(json!({"currency": "EUR"})).await);
    let keyed = client.with_key("deposit");
    assert_replayed(&keyed.deposit(account, 1).await.expect(201), &keyed.deposit(account, 1).await);
    let keyed = client.with_key("withdraw");
    assert_replayed(&keyed.withdraw(account, 1).await.expect(201), &keyed.withdraw(account, 1).await);
    let keyed = client.with_key("transfer");
    assert_replayed(&keyed.transfer(account, other, 1).await.expect(201), &keyed.transfer(account, other, 1).await);
    let keyed = client.with_key("freeze");
    assert_replayed(&keyed.freeze(account).await.expect(200), &keyed.freeze(account).await);
    let keyed = client.with_key("unfreeze");
    assert_replayed(&keyed.unfreeze(account).await.expect(200), &keyed.unfreeze(account).await);
    let log = app.log().await;
    assert_eq!((log.head.position, log.keys), (9, 6));
}

#[tokio::test]
async fn key_of_another_request_is_refused() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(100).await);
    let keyed = client.with_key("one");
    keyed.deposit(account, 5).await.expect(201);
    let before = app.log().await;
    for other_request in [
        keyed.deposit(account, 6).await,
        keyed.deposit(other, 5).await,
        keyed.withdraw(account, 5).await,
        keyed.if_match("\"1\"").deposit(account, 5).await,
        keyed.if_match("\"2\"").deposit(account, 5).await,
        keyed.transfer(account, other, 5).await,
        keyed.open(json!({"currency": "EUR", "account_id": app.new_account_id()})).await,
        keyed.command(&format!("/v1/accounts/{account}/deposits"), json!({"amount": 5, "currency": "EUR"})).await,
        keyed.command(&format!("/v1/accounts/{account}/deposits"), json!({"amount": 5, "channel": "atm"})).await,
    ] {
        other_request.expect_problem(422, "idempotency_key_reused");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn white_space_and_member_order_do_not_change_the_request() {
    let app = spawn_app().await;
    let client = app.client();
    let path = format!("/v1/accounts/{}/deposits", client.open_with_balance(0).await);
    let keyed = client.with_key("one");
    let first = keyed.post(&path, r#"{"amount": 5, "reference": "a"}"#).await.expect(201);
    assert_replayed(&first, &keyed.post(&path, "{ \"reference\":\"\\u0061\",\n \"amount\":5 }").await);
    assert_eq!(app.log().await.head.position, 2);
}

#[tokio::test]
async fn replay_works_after_a_restart() {
    let mut app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let first = app.client().with_key("one").deposit(account, 5).await.expect(201);
    app.restart().await;
    assert_replayed(&first, &app.client().with_key("one").deposit(account, 5).await);
    app.client().with_key("one").deposit(account, 6).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(app.log().await.head.position, 2);
}

#[tokio::test]
async fn replay_works_on_another_instance() {
    let app = spawn_app().await;
    let peer = app.spawn_peer().await;
    let account = app.client().open_with_balance(100).await;
    // Both instances have cached the head, so neither loads it first.
    peer.client().deposit(account, 1).await.expect(201);
    let first = app.client().with_key("one").withdraw(account, 101).await.expect(201);
    assert_replayed(&first, &peer.client().with_key("one").withdraw(account, 101).await);
    peer.client().with_key("one").withdraw(account, 100).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(app.log().await.head.position, 3);
}

#[tokio::test]
async fn same_key_twice_in_one_batch_is_replayed() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    let log_head_lock = app.lock_log_heads().await;
    let release = async {
        app.wait_for_blocked_writer().await;
        // Time for the other commands to reach the queue behind the blocked one.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        drop(log_head_lock);
    };
    let keyed = client.with_key("one");
    let same = join_all([keyed.withdraw(account, 100), keyed.withdraw(account, 100)]);
    let another = client.with_key("two");
    let different = join_all([another.deposit(other, 1), another.deposit(other, 2)]);
    let (_, blocker, same, different) = tokio::join!(release, client.deposit(other, 1), same, different);
    blocker.expect(201);
    assert_replayed(&same[0], &same[1]);
    assert_eq!((different[0].status, different[1].status), (201, 422));
    assert_eq!(different[1].body["code"], "idempotency_key_reused");
    assert_eq!(app.log().await.head.position, 5);
}

#[tokio::test]
async fn retry_is_replayed_although_the_state_would_refuse_it() {
    let mut app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let opening = json!({"currency": "EUR", "account_id": Uuid::from_u128(17)});
    let withdrawn = client.with_key("everything").withdraw(account, 100).await.expect(201);
    let closed = client.with_key("close").close(account).await.expect(200);
    let opened = client.with_key("open").open(opening.clone()).await.expect(201);
    let conditional =
        client.with_key("conditional").if_match("\"1\"").deposit(opened.account_id(), 1).await.expect(201);
    for _ in 0..2 {
        let client = app.client();
        assert_replayed(&withdrawn, &client.with_key("everything").withdraw(account, 100).await);
        assert_replayed(&closed, &client.with_key("close").close(account).await);
        assert_replayed(&opened, &client.with_key("open").open(opening.clone()).await);
        let again = client.with_key("conditional").if_match("\"1\"").deposit(opened.account_id(), 1).await;
        assert_replayed(&conditional, &again);
        app.restart().await;
    }
    assert_eq!(app.log().await.head.position, 5);
}

#[tokio::test]
async fn bare_and_quoted_key_are_the_same() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let first = app.client().with_key("a-key").deposit(account, 5).await.expect(201);
    assert_replayed(&first, &app.client().with_key("\"a-key\"").deposit(account, 5).await);
    let longest = "k".repeat(255);
    let first = app.client().with_key(&format!("\"{longest}\"")).deposit(account, 5).await.expect(201);
    assert_replayed(&first, &app.client().with_key(&longest).deposit(account, 5).await);
}

/// Asserts that the second response repeats a refusal. Its position is that of the head now.
#[track_caller]
fn assert_refusal_replayed(first: &Response, again: &Response) {
    let members = ["status", "code", "detail", "balance", "current_version", "type", "title"];
    let problem = |response: &Response| members.map(|member| response.body[member].clone());
    assert_eq!((again.status, problem(again)), (first.status, problem(first)));
    assert!(first.header("passbook-position").is_some() && again.header("passbook-position").is_some());
    assert!(!first.is_replay() && again.is_replay());
}

#[tokio::test]
async fn refusals_by_the_state_are_replayed_in_every_later_state() {
    let mut app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let later = app.new_account_id();
    let poor = client.with_key("poor").withdraw(account, 100).await.expect_problem(422, "insufficient_funds");
    let stale = client.with_key("stale").if_match("\"7\"").deposit(account, 1).await;
    let stale = stale.expect_problem(412, "version_mismatch");
    let unknown = client.with_key("unknown").deposit(later, 1).await.expect_problem(404, "account_not_found");
    let transfer = client.with_key("transfer").transfer(account, later, 1).await;
    let transfer = transfer.expect_problem(404, "account_not_found");
    let opening = json!({"currency": "EUR", "account_id": account});
    let exists = client.with_key("exists").open(opening.clone()).await.expect_problem(409, "account_exists");
    assert_eq!(app.log().await.keys, 5);

    client.open(json!({"currency": "EUR", "account_id": later})).await.expect(201);
    for _ in 0..6 {
        client.deposit(account, 100).await.expect(201);
    }
    let position = app.log().await.head.position;
    let peer = app.spawn_peer().await;
    for round in 0..3 {
        let client = if round == 1 { peer.client() } else { app.client() };
        assert_refusal_replayed(&poor, &client.with_key("poor").withdraw(account, 100).await);
        assert_refusal_replayed(&stale, &client.with_key("stale").if_match("\"7\"").deposit(account, 1).await);
        assert_refusal_replayed(&unknown, &client.with_key("unknown").deposit(later, 1).await);
        assert_refusal_replayed(&transfer, &client.with_key("transfer").transfer(account, later, 1).await);
        assert_refusal_replayed(&exists, &client.with_key("exists").open(opening.clone()).await);
        client.with_key("poor").withdraw(account, 1).await.expect_problem(422, "idempotency_key_reused");
        if round == 1 {
            app.restart().await;
        }
    }
    assert_eq!(app.log().await.head.position, position);
    audit(&app).await;
}

#[tokio::test]
async fn refusals_of_the_request_alone_record_no_key() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let keyed = client.with_key("one");
    keyed.deposit(account, 0).await.expect_problem(400, "invalid_amount");
    keyed.dry_run().withdraw(account, 100).await.expect_problem(422, "insufficient_funds");
    assert_eq!(app.log().await.keys, 0);
    keyed.deposit(account, 1).await.expect(201);
}

/// The first attempt of a withdrawal is on its way to the database while its retry is refused by another instance, for want of
/// money that arrives a moment later.
#[tokio::test]
async fn append_on_its_way_cannot_follow_the_refusal_of_its_retry() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let partition = app.partition_under_test();
    let mut connection = app.database().await;
    let head = log::head(&mut connection, partition).await.unwrap();
    let first_attempt = || {
        let id = KeyId { caller: "anonymous".into(), key: "one".to_owned() };
        let key = Key { id: id.clone(), fingerprint: vec![1], receipt: "{}".to_owned() };
        // Its clock is ahead, so its time is later than that of the refusal.
        let recorded_at = Utc::now() + chrono::Duration::seconds(2);
        let event = NewEvent {
            id: Uuid::now_v7(),
            stream_id: account,
            version: 2,
            event_type: "MoneyWithdrawn",
            schema_version: 2,
            data: r#"{"amount":100}"#.to_owned(),
            metadata: "{}".to_owned(),
        };
        let (keys_to_check, keys, events) = (vec![id], vec![key], vec![event]);
        log::Batch { recorded_at, events, keys_to_check, keys, state_version: 1, snapshots: vec![], reversals: vec![] }
    };
    client.with_key("one").withdraw(account, 100).await.expect_problem(422, "insufficient_funds");
    let late = log::append(&mut connection, partition, &head, &first_attempt()).await.unwrap();
    assert!(!matches!(late, Outcome::Done(_)), "{late:?}");
    client.deposit(account, 100).await.expect(201);
    let again = client.with_key("one").withdraw(account, 100).await.expect_problem(422, "insufficient_funds");
    assert!(again.is_replay());
    audit(&app).await;
}

#[tokio::test]
async fn malformed_key_is_refused() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let before = app.log().await;
    let too_long = "k".repeat(256);
    for malformed in ["", "\"\"", &too_long, &format!("\"{too_long}\""), "a key", "\"open", "\"a\"b\"", "clé"] {
        app.client().with_key(malformed).deposit(account, 1).await.expect_problem(400, "invalid_idempotency_key");
    }
    let twice = app.client().with_key("one").with_key("two");
    twice.deposit(account, 1).await.expect_problem(400, "invalid_idempotency_key");
    assert_eq!(app.log().await, before);
}
