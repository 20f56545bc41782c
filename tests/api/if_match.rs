//! `If-Match`: a command is executed only if the account has one of the named versions.

use passbook_testkit::spawn_app;
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn command_at_the_current_version_is_executed() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let first = client.if_match("\"1\"").deposit(account, 1).await.expect(201);
    client.if_match(first.header("etag").unwrap()).withdraw(account, 1).await.expect(201);
    client.if_match("*").deposit(account, 1).await.expect(201);
    client.if_match("\"17\", \"4\"").deposit(account, 1).await.expect(201);
    // The part after the dot is the view's generation, which `If-Match` ignores.
    client.if_match("\"5.2\"").deposit(account, 1).await.expect(201);
    assert_eq!(app.log().await.head.position, 6);
}

#[tokio::test]
async fn stale_version_is_refused_with_the_current_version() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    client.deposit(account, 1).await.expect(201);
    client.withdraw(account, 1).await.expect(201);
    let before = app.log().await;
    let stale = client.if_match("\"2\"");
    for refused in [
        stale.deposit(account, 1).await,
        stale.withdraw(account, 1).await,
        stale.freeze(account).await,
        stale.unfreeze(account).await,
        stale.close(account).await,
        client.if_match("\"4\"").deposit(account, 1).await,
        client.if_match("W/\"3\"").deposit(account, 1).await,
        client.if_match("\"not ours\"").deposit(account, 1).await,
    ] {
        assert_eq!(refused.expect_problem(412, "version_mismatch").body["current_version"], 3);
    }
    let weak = client.if_match("\"1\", W/\"3\"").deposit(account, 1).await.expect_problem(412, "version_mismatch");
    assert!(weak.text("/detail").contains("a weak entity tag never matches"), "{}", weak.body);
    let stale_and_weak = client.if_match("W/\"2\"").freeze(account).await.expect_problem(412, "version_mismatch");
    assert!(!stale_and_weak.text("/detail").contains("a weak entity tag"), "{}", stale_and_weak.body);
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn version_is_checked_after_existence_and_before_state() {
    let app = spawn_app().await;
    let client = app.client();
    let (closed, frozen) = (client.open_with_balance(0).await, client.open_with_balance(100).await);
    client.close(closed).await.expect(200);
    client.freeze(frozen).await.expect(200);
    let stale = client.if_match("\"1\"");
    stale.deposit(Uuid::from_u128(404), 1).await.expect_problem(404, "account_not_found");
    client.if_match("*").deposit(Uuid::from_u128(404), 1).await.expect_problem(404, "account_not_found");
    stale.deposit(closed, 1).await.expect_problem(412, "version_mismatch");
    stale.withdraw(frozen, 101).await.expect_problem(412, "version_mismatch");
    client.if_match("\"2\"").deposit(closed, 1).await.expect_problem(422, "account_closed");
}

#[tokio::test]
async fn one_of_many_commands_at_the_same_version_succeeds() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let conditional = client.if_match("\"1\"");
    let responses = futures_util::future::join_all((0..16).map(|_| conditional.deposit(account, 1))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 201).count(), 1);
    for refused in responses.into_iter().filter(|response| response.status != 201) {
        assert_eq!(refused.expect_problem(412, "version_mismatch").body["current_version"], 2);
    }
}

#[tokio::test]
async fn open_and_transfer_refuse_if_match() {
    let app = spawn_app().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let before = app.log().await;
    for condition in ["*", "\"1\"", "\"0\""] {
        let conditional = client.if_match(condition);
        conditional.open(json!({"currency": "EUR"})).await.expect_problem(400, "invalid_parameter");
        conditional.transfer(from, to, 1).await.expect_problem(400, "invalid_parameter");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn malformed_if_match_is_refused() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let before = app.log().await;
    for malformed in ["", "1", "\"1", "1\"", "\"1\" \"2\"", "W/1", "null"] {
        let refused = client.if_match(malformed).deposit(account, 1).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "If-Match", "{malformed}");
    }
    assert_eq!(app.log().await, before);
}
