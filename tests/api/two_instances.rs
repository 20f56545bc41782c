//! Two servers on one database. What one holds of an account, the other may have changed: every response rests on the
//! state as it is. Between the change and the question the first server passes the slow way for *another* account,
//! which is where a held state would be forgotten about.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::query_scalar;
use uuid::Uuid;

use crate::support::{ApiClient, App, audit::audit, spawn_app_in_one_partition};

/// Two servers, an account that the first holds, and another that takes the first over the slow way.
struct Scene {
    _app: App,
    _another: App,
    first: ApiClient,
    second: ApiClient,
    held: Uuid,
    other: Uuid,
}

async fn scene() -> Scene {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let (first, second) = (app.client(), peer.client());
    let (held, other) = (first.open_with_balance(100).await, first.open_with_balance(0).await);
    Scene { _app: app, _another: another, first, second, held, other }
}

impl Scene {
    /// The first learns that somebody else writes, without being asked for the account that changed.
    async fn first_looks_elsewhere(&self) {
        self.first.deposit(self.other, 1).await.expect(201);
    }
}

#[tokio::test]
async fn a_withdrawal_is_judged_on_what_the_other_server_left() {
    let scene = scene().await;
    scene.second.withdraw(scene.held, 80).await.expect(201);
    scene.first_looks_elsewhere().await;
    let refused = scene.first.withdraw(scene.held, 80).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 20);
    let paid = scene.first.withdraw(scene.held, 20).await.expect(201);
    assert_eq!((&paid.body["balance"], &paid.body["version"]), (&json!(0), &json!(3)));
    audit(&scene._app).await;
}

#[tokio::test]
async fn no_refusal_stands_on_a_balance_that_the_other_server_raised() {
    let scene = scene().await;
    scene.second.deposit(scene.held, 400).await.expect(201);
    scene.first_looks_elsewhere().await;
    assert_eq!(scene.first.withdraw(scene.held, 500).await.expect(201).body["balance"], 0);
    scene.second.freeze(scene.held).await.expect(200);
    scene.first_looks_elsewhere().await;
    scene.first.unfreeze(scene.held).await.expect(200);
    audit(&scene._app).await;
}

#[tokio::test]
async fn a_close_is_judged_on_what_the_other_server_left() {
    let scene = scene().await;
    scene.first.withdraw(scene.held, 100).await.expect(201);
    scene.second.deposit(scene.held, 1).await.expect(201);
    scene.first_looks_elsewhere().await;
    scene.first.close(scene.held).await.expect_problem(422, "balance_not_zero");
    scene.second.withdraw(scene.held, 1).await.expect(201);
    scene.first_looks_elsewhere().await;
    scene.first.close(scene.held).await.expect(200);
    scene.second.deposit(scene.held, 1).await.expect_problem(422, "account_closed");
    audit(&scene._app).await;
}

#[tokio::test]
async fn a_condition_is_judged_at_the_version_that_the_other_server_left() {
    let scene = scene().await;
    scene.second.deposit(scene.held, 1).await.expect(201);
    scene.first_looks_elsewhere().await;
    let late = scene.first.if_match("\"1\"").deposit(scene.held, 1).await.expect_problem(412, "version_mismatch");
    assert_eq!(late.body["current_version"], 2);
    scene.first.if_match("\"2\"").deposit(scene.held, 1).await.expect(201);
    audit(&scene._app).await;
}

#[tokio::test]
async fn a_dry_run_is_judged_on_what_the_other_server_left() {
    let scene = scene().await;
    scene.second.withdraw(scene.held, 80).await.expect(201);
    let imagined = scene.first.dry_run().withdraw(scene.held, 20).await.expect(200);
    assert_eq!((&imagined.body["balance"], &imagined.body["version"]), (&json!(0), &json!(3)));
    assert_eq!(imagined.position(), "3");
    scene.second.deposit(scene.held, 1).await.expect(201);
    scene.first_looks_elsewhere().await;
    scene.first.dry_run().withdraw(scene.held, 22).await.expect_problem(422, "insufficient_funds");
}

#[tokio::test]
async fn the_first_question_after_a_change_is_answered_on_the_change() {
    let scene = scene().await;
    // No look elsewhere: the fast way itself must notice.
    scene.second.withdraw(scene.held, 80).await.expect(201);
    let refused = scene.first.withdraw(scene.held, 80).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 20);
    scene.second.deposit(scene.held, 60).await.expect(201);
    scene.first.withdraw(scene.held, 80).await.expect(201);
    scene.second.if_match("\"4\"").close(scene.held).await.expect(200);
    scene.first.freeze(scene.held).await.expect_problem(422, "account_closed");
    audit(&scene._app).await;
}

#[tokio::test]
async fn an_account_opened_at_one_server_is_known_at_the_other() {
    let scene = scene().await;
    let id = scene._app.new_account_id();
    scene.first.deposit(id, 1).await.expect_problem(404, "account_not_found");
    scene.second.open(json!({"currency": "EUR", "account_id": id})).await.expect(201);
    scene.first.open(json!({"currency": "EUR", "account_id": id})).await.expect_problem(409, "account_exists");
    scene.first.deposit(id, 1).await.expect(201);
    audit(&scene._app).await;
}

#[tokio::test]
async fn after_the_other_server_has_fallen_silent_the_fast_way_is_right_again() {
    let scene = scene().await;
    scene.second.deposit(scene.held, 1).await.expect(201);
    // Long enough for the first to trust again that it is alone.
    for _ in 0..40 {
        scene.first.deposit(scene.other, 1).await.expect(201);
    }
    scene.second.withdraw(scene.held, 101).await.expect(201);
    let refused = scene.first.withdraw(scene.held, 1).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 0);
    audit(&scene._app).await;
}

#[tokio::test]
async fn a_transfer_is_judged_on_what_the_other_server_left_on_both_sides() {
    let scene = scene().await;
    scene.second.withdraw(scene.held, 99).await.expect(201);
    scene.first.transfer(scene.held, scene.other, 2).await.expect_problem(422, "insufficient_funds");
    scene.second.freeze(scene.other).await.expect(200);
    scene.first.transfer(scene.held, scene.other, 1).await.expect_problem(422, "account_frozen");
    scene.second.unfreeze(scene.other).await.expect(200);
    let moved = scene.first.transfer(scene.held, scene.other, 1).await.expect(201);
    assert_eq!((&moved.body["from"]["balance"], &moved.body["to"]["balance"]), (&json!(0), &json!(1)));
    audit(&scene._app).await;
}

#[tokio::test]
async fn who_comes_while_a_batch_waits_for_its_turn_goes_along() {
    let scene = scene().await;
    scene.second.deposit(scene.other, 1).await.expect(201);
    scene.first_looks_elsewhere().await;
    let app = &scene._app;
    let before = app.log().await.events.len();
    let deposits = join_all((0..20).map(|_| scene.first.deposit(scene.held, 1)));
    for response in app.run_as_one_batch(deposits).await {
        response.expect(201);
    }
    // The opening that waited first is among them.
    assert_eq!(app.log().await.events.len(), before + 21);
    let transactions = "SELECT count(DISTINCT xmin::text) FROM (
                            SELECT xmin FROM event WHERE partition = $1 ORDER BY position DESC LIMIT 21
                        ) AS last";
    let transactions: i64 =
        query_scalar(transactions).bind(app.partition_under_test()).fetch_one(&mut app.database().await).await.unwrap();
    assert_eq!(transactions, 1);
    audit(app).await;
}

#[tokio::test]
async fn a_server_that_the_other_had_overtaken_leaves_nothing_unprojected_when_it_ends_last() {
    let mut app = spawn_app_in_one_partition().await;
    let mut peer = app.spawn_peer().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    peer.client().deposit(account, 1).await.expect(201);
    app.wait_until_projected().await;
    peer.stop().await;
    app.client().deposit(account, 1).await.expect(201);
    app.stop().await;
    let behind = "SELECT count(*) FROM projection JOIN log_head USING (partition)
                  WHERE projection.position <> log_head.position";
    let behind: i64 = query_scalar(behind).fetch_one(&mut app.database().await).await.unwrap();
    assert_eq!(behind, 0);
}
