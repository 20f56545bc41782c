//! Two instances on one database: an instance never decides on a cached account that the other one has changed. In most
//! tests the first instance first takes the locked path for *another* account, because that path must invalidate the
//! cache too.

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, App, Response, audit::audit, spawn_app_in_one_partition};
use serde_json::json;
use sqlx::query_scalar;
use uuid::Uuid;

/// Two instances, an account that the first one has cached, and another account.
struct Fixture {
    app: App,
    _peer: App,
    first: ApiClient,
    second: ApiClient,
    cached: Uuid,
    other: Uuid,
}

async fn fixture() -> Fixture {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let (first, second) = (app.client(), peer.client());
    let (cached, other) = (first.open_with_balance(100).await, first.open_with_balance(0).await);
    Fixture { app, _peer: peer, first, second, cached, other }
}

impl Fixture {
    /// The first instance appends to the other account and so detects the other instance's events.
    async fn first_uses_other_account(&self) {
        self.first.deposit(self.other, 1).await.expect(201);
    }
}

#[tokio::test]
async fn withdrawal_is_decided_on_events_of_the_other_instance() {
    let fixture = fixture().await;
    fixture.second.withdraw(fixture.cached, 80).await.expect(201);
    fixture.first_uses_other_account().await;
    let refused = fixture.first.withdraw(fixture.cached, 80).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 20);
    let paid = fixture.first.withdraw(fixture.cached, 20).await.expect(201);
    assert_eq!((&paid.body["balance"], &paid.body["version"]), (&json!(0), &json!(3)));
    audit(&fixture.app).await;
}

#[tokio::test]
async fn outdated_balance_causes_no_refusal() {
    let fixture = fixture().await;
    fixture.second.deposit(fixture.cached, 400).await.expect(201);
    fixture.first_uses_other_account().await;
    assert_eq!(fixture.first.withdraw(fixture.cached, 500).await.expect(201).body["balance"], 0);
    fixture.second.freeze(fixture.cached).await.expect(200);
    fixture.first_uses_other_account().await;
    fixture.first.unfreeze(fixture.cached).await.expect(200);
    audit(&fixture.app).await;
}

#[tokio::test]
async fn retries_of_many_keys_at_the_other_instance_are_replays() {
    let fixture = fixture().await;
    let pay = async |client: &ApiClient, n: usize| {
        client.with_key(&format!("payment-{n}")).deposit(fixture.cached, 1).await.expect(201)
    };
    join_all((0..100).map(|n| pay(&fixture.first, n))).await;
    // More keys than one response under the log-head lock contains.
    let retried = join_all((0..100).map(|n| pay(&fixture.second, n))).await;
    assert!(retried.iter().all(Response::is_replay));
    assert_eq!(fixture.first.deposit(fixture.cached, 1).await.expect(201).body["balance"], 201);
    audit(&fixture.app).await;
}

#[tokio::test]
async fn close_is_decided_on_events_of_the_other_instance() {
    let fixture = fixture().await;
    fixture.first.withdraw(fixture.cached, 100).await.expect(201);
    fixture.second.deposit(fixture.cached, 1).await.expect(201);
    fixture.first_uses_other_account().await;
    fixture.first.close(fixture.cached).await.expect_problem(422, "balance_not_zero");
    fixture.second.withdraw(fixture.cached, 1).await.expect(201);
    fixture.first_uses_other_account().await;
    fixture.first.close(fixture.cached).await.expect(200);
    fixture.second.deposit(fixture.cached, 1).await.expect_problem(422, "account_closed");
    audit(&fixture.app).await;
}

#[tokio::test]
async fn if_match_is_checked_against_the_other_instances_version() {
    let fixture = fixture().await;
    fixture.second.deposit(fixture.cached, 1).await.expect(201);
    fixture.first_uses_other_account().await;
    let stale =
        fixture.first.if_match("\"1\"").deposit(fixture.cached, 1).await.expect_problem(412, "version_mismatch");
    assert_eq!(stale.body["current_version"], 2);
    fixture.first.if_match("\"2\"").deposit(fixture.cached, 1).await.expect(201);
    audit(&fixture.app).await;
}

#[tokio::test]
async fn dry_run_is_decided_on_events_of_the_other_instance() {
    let fixture = fixture().await;
    fixture.second.withdraw(fixture.cached, 80).await.expect(201);
    let dry = fixture.first.dry_run().withdraw(fixture.cached, 20).await.expect(200);
    assert_eq!((&dry.body["balance"], &dry.body["version"]), (&json!(0), &json!(3)));
    assert_eq!(dry.position(), "3");
    fixture.second.deposit(fixture.cached, 1).await.expect(201);
    fixture.first_uses_other_account().await;
    fixture.first.dry_run().withdraw(fixture.cached, 22).await.expect_problem(422, "insufficient_funds");
}

#[tokio::test]
async fn first_command_after_a_change_sees_the_change() {
    let fixture = fixture().await;
    // No command on the other account in between: the optimistic path itself must detect the conflict.
    fixture.second.withdraw(fixture.cached, 80).await.expect(201);
    let refused = fixture.first.withdraw(fixture.cached, 80).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 20);
    fixture.second.deposit(fixture.cached, 60).await.expect(201);
    fixture.first.withdraw(fixture.cached, 80).await.expect(201);
    fixture.second.if_match("\"4\"").close(fixture.cached).await.expect(200);
    fixture.first.freeze(fixture.cached).await.expect_problem(422, "account_closed");
    audit(&fixture.app).await;
}

#[tokio::test]
async fn account_opened_by_one_instance_is_known_to_the_other() {
    let fixture = fixture().await;
    let id = fixture.app.new_account_id();
    fixture.first.deposit(id, 1).await.expect_problem(404, "account_not_found");
    fixture.second.open(json!({"currency": "EUR", "account_id": id})).await.expect(201);
    fixture.first.open(json!({"currency": "EUR", "account_id": id})).await.expect_problem(409, "account_exists");
    fixture.first.deposit(id, 1).await.expect(201);
    audit(&fixture.app).await;
}

#[tokio::test]
async fn optimistic_path_is_correct_after_a_quiet_period() {
    let fixture = fixture().await;
    fixture.second.deposit(fixture.cached, 1).await.expect(201);
    // Enough batches without conflict that the first instance returns to the optimistic path.
    for _ in 0..40 {
        fixture.first.deposit(fixture.other, 1).await.expect(201);
    }
    fixture.second.withdraw(fixture.cached, 101).await.expect(201);
    let refused = fixture.first.withdraw(fixture.cached, 1).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 0);
    audit(&fixture.app).await;
}

#[tokio::test]
async fn transfer_is_decided_on_current_state_of_both_accounts() {
    let fixture = fixture().await;
    fixture.second.withdraw(fixture.cached, 99).await.expect(201);
    fixture.first.transfer(fixture.cached, fixture.other, 2).await.expect_problem(422, "insufficient_funds");
    fixture.second.freeze(fixture.other).await.expect(200);
    fixture.first.transfer(fixture.cached, fixture.other, 1).await.expect_problem(422, "account_frozen");
    fixture.second.unfreeze(fixture.other).await.expect(200);
    let moved = fixture.first.transfer(fixture.cached, fixture.other, 1).await.expect(201);
    assert_eq!((&moved.body["from"]["balance"], &moved.body["to"]["balance"]), (&json!(0), &json!(1)));
    audit(&fixture.app).await;
}

#[tokio::test]
async fn commands_that_arrive_while_a_batch_waits_join_it() {
    let fixture = fixture().await;
    fixture.second.deposit(fixture.other, 1).await.expect(201);
    fixture.first_uses_other_account().await;
    let app = &fixture.app;
    let before = app.log().await.events.len();
    let deposits = join_all((0..20).map(|_| fixture.first.deposit(fixture.cached, 1)));
    for response in app.run_as_one_batch(deposits).await {
        response.expect(201);
    }
    // 20 deposits and the opening that blocked the executor.
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
async fn shutdown_projects_the_rest_after_the_peer_moved_the_views() {
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
