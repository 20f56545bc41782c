//! Events of a newer release: an instance that reads one refuses all commands and is unready until it can decode the
//! event. Reads of rows that were projected before are served.

use passbook_testkit::{ApiClient, App, audit::audit, eventually, spawn_app_in_one_partition};
use serde_json::json;
use sqlx::{AssertSqlSafe, query_scalar, raw_sql};
use uuid::Uuid;

const UNREADABLE: &str = "UPDATE event SET schema_version = 99 WHERE position = 2";
const READABLE: &str = "UPDATE event SET schema_version = 2 WHERE position = 2";
const OF_UNKNOWN_TYPE: &str = "UPDATE event SET type = 'InterestPaid' WHERE position = 2";
const OF_KNOWN_TYPE: &str = "UPDATE event SET type = 'MoneyDeposited' WHERE position = 2";

/// An app with two accounts, fully projected; position 2 is a deposit on the first account.
async fn app_with_accounts() -> (App, Uuid, Uuid) {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 5).await.expect(201);
    let other = client.open_with_balance(50).await;
    client.get_account(other, "3").await.expect(200);
    (app, account, other)
}

async fn assert_unready(client: &ApiClient) {
    let problem = client.get("/readyz").await.expect_problem(503, "storage_unavailable");
    let detail = problem.text("/detail");
    assert!(detail.contains("events of a newer release") && detail.contains("upgrade"), "{detail}");
}

/// Asserts that every command is refused, with and without a key, and that nothing is recorded.
async fn assert_refuses_commands(app: &App, account: Uuid, other: Uuid) {
    let client = app.client();
    let before = app.log().await;
    for refused in [
        client.with_key("one").deposit(account, 1).await,
        client.with_key("two").deposit(other, 1).await,
        client.transfer(other, account, 1).await,
        client.dry_run().withdraw(other, 1).await,
        client.place_hold(other, json!({"amount": 1})).await,
        client.reverse(other, 1, json!({})).await,
        client.set_limits(other, json!({})).await,
        client.freeze(other).await,
    ] {
        refused.expect_problem(503, "storage_unavailable");
    }
    assert_eq!(app.log().await, before);
    assert_unready(&client).await;
}

async fn wait_until_ready(app: &App) {
    eventually("an instance that is ready", async || (app.client().get("/readyz").await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn loading_a_newer_event_stops_commands_until_it_is_readable() {
    let (mut app, account, other) = app_with_accounts().await;
    app.restart().await;
    app.tamper(UNREADABLE).await;
    app.client().deposit(other, 1).await.expect(201);
    app.client().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
    assert_unready(&app.client()).await;
    assert_refuses_commands(&app, account, other).await;
    assert_eq!(app.client().get_account(account, "3").await.expect(200).body["balance"], 105);
    assert_eq!(app.client().get_account(other, "4").await.expect(200).body["balance"], 51);

    app.tamper(READABLE).await;
    wait_until_ready(&app).await;
    assert_eq!(app.client().with_key("one").deposit(account, 1).await.expect(201).body["balance"], 106);
    audit(&app).await;
}

#[tokio::test]
async fn event_of_an_unknown_type_stops_commands_until_it_is_readable() {
    let (mut app, account, other) = app_with_accounts().await;
    app.restart().await;
    app.tamper(OF_UNKNOWN_TYPE).await;
    app.client().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
    assert_unready(&app.client()).await;
    assert_refuses_commands(&app, account, other).await;

    app.tamper(OF_KNOWN_TYPE).await;
    wait_until_ready(&app).await;
    assert_eq!(app.client().deposit(account, 1).await.expect(201).body["balance"], 106);
    audit(&app).await;
}

#[tokio::test]
async fn newer_event_on_a_cached_account_is_detected_on_its_next_use() {
    let (app, account, other) = app_with_accounts().await;
    let mut newer = app.spawn_peer().await;
    let deposited = newer.client().deposit(account, 1).await.expect(201);
    newer.client().get_account(account, deposited.position()).await.expect(200);
    newer.stop().await;
    app.tamper("UPDATE event SET schema_version = 99 WHERE position = 4").await;
    app.client().withdraw(account, 106).await.expect_problem(503, "storage_unavailable");
    assert_refuses_commands(&app, account, other).await;
    app.tamper("UPDATE event SET schema_version = 2 WHERE position = 4").await;
    wait_until_ready(&app).await;
    app.client().withdraw(account, 106).await.expect(201);
    audit(&app).await;
}

/// The projector reads an event that the SQL makes unreadable, and later one that the SQL makes readable again.
async fn projector_stops_commands(unreadable: &str, readable: &str) {
    let (app, account, other) = app_with_accounts().await;
    // The event is not projected yet, and no command of this instance is on its account.
    app.tamper(&format!(
        "{unreadable};
         UPDATE projection SET position = 1;
         DELETE FROM account_view;
         DELETE FROM account_transaction;
         DELETE FROM daily_balance;
         DELETE FROM bank_total;
         DELETE FROM ledger_total;
         INSERT INTO account_view
         SELECT partition, 1, stream_id, data->>'owner', data->>'currency', 'open', (data->>'initial_deposit')::bigint, 1, 1,
                recorded_at, recorded_at, NULL
         FROM event WHERE position = 1"
    ))
    .await;
    let client = app.client();
    eventually("an instance that is not ready", async || {
        (client.get("/readyz").await.body["code"] == "storage_unavailable").then_some(())
    })
    .await;
    assert_refuses_commands(&app, account, other).await;
    assert_eq!(client.get_account(account, "1").await.expect(200).body["balance"], 100);
    for view in client.get("/v1/projections").await.expect(200).data() {
        assert_eq!((view["state"].as_str(), view["position"].as_str()), (Some("stopped"), Some("1")), "{view}");
    }

    app.tamper(&format!("{readable}; DELETE FROM account_view; DELETE FROM daily_balance; DELETE FROM bank_total; DELETE FROM ledger_total; UPDATE projection SET position = 0")).await;
    wait_until_ready(&app).await;
    client.with_key("two").deposit(other, 1).await.expect(201);
    audit(&app).await;
}

#[tokio::test]
async fn newer_event_read_by_the_projector_stops_commands() {
    projector_stops_commands(UNREADABLE, READABLE).await;
}

#[tokio::test]
async fn event_of_an_unknown_type_read_by_the_projector_stops_commands() {
    projector_stops_commands(OF_UNKNOWN_TYPE, OF_KNOWN_TYPE).await;
}

#[tokio::test]
async fn reversal_of_an_event_of_an_unknown_type_stops_commands() {
    let (app, account, other) = app_with_accounts().await;
    app.tamper(OF_UNKNOWN_TYPE).await;
    app.client().reverse(account, 2, json!({})).await.expect_problem(503, "storage_unavailable");
    assert_refuses_commands(&app, account, other).await;

    app.tamper(OF_KNOWN_TYPE).await;
    wait_until_ready(&app).await;
    assert_eq!(app.client().reverse(account, 2, json!({})).await.expect(201).body["balance"], 100);
    audit(&app).await;
}

#[tokio::test]
async fn view_of_a_newer_release_is_ignored() {
    let (app, account, _) = app_with_accounts().await;
    let client = app.client();
    let head: i64 = query_scalar("SELECT position FROM log_head").fetch_one(&mut app.database().await).await.unwrap();
    eventually("views that have read all", async || {
        let views = client.get("/v1/projections").await.expect(200);
        views.data().iter().all(|view| view["lag_events"] == 0).then_some(())
    })
    .await;
    app.sabotage(
        "UPDATE projection SET schema_version = 99 WHERE name = 'daily_balances';
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         VALUES (0, 'accounts', 98, 99, 'building', 0), (0, 'accounts', 97, 99, 'retired', 0), (0, 'unknown_view', 1, 1, 'live', 0)",
    )
    .await;
    // This instance never locks the rows of that view while it works on the others.
    let mut newer = app.database().await;
    for _ in 0..10 {
        client.deposit(account, 1).await.expect(201);
        let lock = format!(
            "BEGIN;
             SELECT FROM projection
             WHERE partition = {} AND (schema_version = 99 OR name = 'unknown_view')
             FOR UPDATE NOWAIT;
             ROLLBACK",
            app.partition_under_test()
        );
        raw_sql(AssertSqlSafe(lock)).execute(&mut newer).await.unwrap();
    }
    let last = client.deposit(account, 1).await.expect(201);
    let views = client.get(&format!("/v1/projections?min_position={}", last.position())).await.expect(200);
    assert_eq!(views.position(), last.position(), "the position ignores views that this release cannot write");
    for view in views.data().iter().filter(|view| view["schema_version"] == 99) {
        let position = view["position"].as_str().unwrap();
        let expected = if view["name"] == "daily_balances" { head.to_string() } else { "0".to_owned() };
        assert_eq!(position, expected, "{view}");
    }
}
