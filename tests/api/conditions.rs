//! `If-Match`: a command is carried out at the version that its caller saw, or not at all.

use serde_json::json;
use uuid::Uuid;

use crate::support::spawn_app;

#[tokio::test]
async fn a_command_at_the_current_version_is_carried_out() {
    let app = spawn_app().await;
    let teller = app.teller();
    let account = teller.account_with(100).await;
    let first = teller.if_match("\"1\"").deposit(account, 1).await.expect(201);
    teller.if_match(first.header("etag").unwrap()).withdraw(account, 1).await.expect(201);
    teller.if_match("*").deposit(account, 1).await.expect(201);
    teller.if_match("\"17\", \"4\"").deposit(account, 1).await.expect(201);
    // What stands behind the dot is the view's generation.
    teller.if_match("\"5.2\"").deposit(account, 1).await.expect(201);
    assert_eq!(app.log().await.head.position, 6);
}

#[tokio::test]
async fn a_stale_version_is_refused_with_the_current_one_and_changes_nothing() {
    let app = spawn_app().await;
    let teller = app.teller();
    let account = teller.account_with(0).await;
    teller.deposit(account, 1).await.expect(201);
    teller.withdraw(account, 1).await.expect(201);
    let before = app.log().await;
    let late = teller.if_match("\"2\"");
    for refused in [
        late.deposit(account, 1).await,
        late.withdraw(account, 1).await,
        late.freeze(account).await,
        late.unfreeze(account).await,
        late.close(account).await,
        teller.if_match("\"4\"").deposit(account, 1).await,
        teller.if_match("W/\"3\"").deposit(account, 1).await,
        teller.if_match("\"not ours\"").deposit(account, 1).await,
    ] {
        assert_eq!(refused.refused(412, "version_mismatch").body["current_version"], 3);
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn the_version_is_judged_after_the_existence_and_before_the_state() {
    let app = spawn_app().await;
    let teller = app.teller();
    let (closed, frozen) = (teller.account_with(0).await, teller.account_with(100).await);
    teller.close(closed).await.expect(200);
    teller.freeze(frozen).await.expect(200);
    let late = teller.if_match("\"1\"");
    late.deposit(Uuid::from_u128(404), 1).await.refused(404, "account_not_found");
    teller.if_match("*").deposit(Uuid::from_u128(404), 1).await.refused(404, "account_not_found");
    late.deposit(closed, 1).await.refused(412, "version_mismatch");
    late.withdraw(frozen, 101).await.refused(412, "version_mismatch");
    teller.if_match("\"2\"").deposit(closed, 1).await.refused(422, "account_closed");
}

#[tokio::test]
async fn of_many_who_saw_the_same_version_one_wins() {
    let app = spawn_app().await;
    let teller = app.teller();
    let account = teller.account_with(0).await;
    let seen = teller.if_match("\"1\"");
    let answers = futures_util::future::join_all((0..16).map(|_| seen.deposit(account, 1))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for refused in answers.into_iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.refused(412, "version_mismatch").body["current_version"], 2);
    }
}

#[tokio::test]
async fn openings_and_transfers_take_no_condition() {
    let app = spawn_app().await;
    let teller = app.teller();
    let (from, to) = (teller.account_with(10).await, teller.account_with(0).await);
    let before = app.log().await;
    for condition in ["*", "\"1\"", "\"0\""] {
        let conditional = teller.if_match(condition);
        conditional.open(json!({"currency": "EUR"})).await.refused(400, "invalid_parameter");
        conditional.transfer(from, to, 1).await.refused(400, "invalid_parameter");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn a_condition_that_is_none_is_refused() {
    let app = spawn_app().await;
    let teller = app.teller();
    let account = teller.account_with(0).await;
    let before = app.log().await;
    for broken in ["", "1", "\"1", "1\"", "\"1\" \"2\"", "W/1", "null"] {
        let refused = teller.if_match(broken).deposit(account, 1).await.refused(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "If-Match", "{broken}");
    }
    assert_eq!(app.log().await, before);
}
