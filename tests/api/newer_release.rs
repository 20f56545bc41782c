//! An event that a newer release wrote: whoever meets it first, the whole instance touches nothing more until it can be
//! read, and says so. What was projected before is answered all the same.

use sqlx::{query_scalar, raw_sql};
use uuid::Uuid;

use crate::support::{ApiClient, App, audit::audit, eventually, spawn_app_in_one_partition};

const UNREADABLE: &str = "UPDATE event SET schema_version = 99 WHERE position = 2";
const READABLE: &str = "UPDATE event SET schema_version = 2 WHERE position = 2";

/// A bank with one account whose second event is a deposit, and another account; all of it projected.
async fn bank() -> (App, Uuid, Uuid) {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 5).await.expect(201);
    let other = client.open_with_balance(50).await;
    client.get_account(other, "3").await.expect(200);
    (app, account, other)
}

async fn is_unready(client: &ApiClient) {
    let told = client.get("/readyz").await.expect_problem(503, "storage_unavailable");
    let sentence = told.text("/detail");
    assert!(sentence.contains("events of a newer release") && sentence.contains("upgrade"), "{sentence}");
}

/// Every command is refused, under a key and without, and nothing is recorded.
async fn touches_nothing(app: &App, account: Uuid, other: Uuid) {
    let client = app.client();
    let before = app.log().await;
    for refused in [
        client.with_key("one").deposit(account, 1).await,
        client.with_key("two").deposit(other, 1).await,
        client.transfer(other, account, 1).await,
        client.dry_run().withdraw(other, 1).await,
        client.freeze(other).await,
    ] {
        refused.expect_problem(503, "storage_unavailable");
    }
    assert_eq!(app.log().await, before);
    is_unready(&client).await;
}

async fn becomes_ready(app: &App) {
    eventually("an instance that is ready", async || (app.client().get("/readyz").await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn an_instance_that_loads_an_event_of_a_newer_release_touches_nothing_until_it_can_read_it() {
    let (mut app, account, other) = bank().await;
    app.restart().await;
    app.tamper(UNREADABLE).await;
    app.client().deposit(other, 1).await.expect(201);
    app.client().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
    is_unready(&app.client()).await;
    touches_nothing(&app, account, other).await;
    assert_eq!(app.client().get_account(account, "3").await.expect(200).body["balance"], 105);
    assert_eq!(app.client().get_account(other, "4").await.expect(200).body["balance"], 51);

    app.tamper(READABLE).await;
    becomes_ready(&app).await;
    assert_eq!(app.client().with_key("one").deposit(account, 1).await.expect(201).body["balance"], 106);
    audit(&app).await;
}

#[tokio::test]
async fn what_a_newer_instance_wrote_to_an_account_that_is_held_here_is_met_when_it_is_needed() {
    let (app, account, other) = bank().await;
    let mut newer = app.spawn_peer().await;
    let written = newer.client().deposit(account, 1).await.expect(201);
    newer.client().get_account(account, written.position()).await.expect(200);
    newer.stop().await;
    app.tamper("UPDATE event SET schema_version = 3 WHERE position = 4").await;
    app.client().withdraw(account, 106).await.expect_problem(503, "storage_unavailable");
    touches_nothing(&app, account, other).await;
    app.tamper("UPDATE event SET schema_version = 2 WHERE position = 4").await;
    becomes_ready(&app).await;
    app.client().withdraw(account, 106).await.expect(201);
    audit(&app).await;
}

#[tokio::test]
async fn an_instance_whose_projector_alone_meets_an_event_of_a_newer_release_touches_nothing_either() {
    let (app, account, other) = bank().await;
    // As if the newer instance had not projected it yet: no command here is about its account.
    app.tamper(&format!(
        "{UNREADABLE};
         UPDATE projection SET position = 1;
         DELETE FROM account_view;
         DELETE FROM account_transaction;
         DELETE FROM daily_balance;
         DELETE FROM bank_total;
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
    touches_nothing(&app, account, other).await;
    assert_eq!(client.get_account(account, "1").await.expect(200).body["balance"], 100);
    for view in client.get("/v1/projections").await.expect(200).data() {
        assert_eq!((view["state"].as_str(), view["position"].as_str()), (Some("stopped"), Some("1")), "{view}");
    }

    app.tamper(&format!("{READABLE}; DELETE FROM account_view; DELETE FROM daily_balance; DELETE FROM bank_total; UPDATE projection SET position = 0")).await;
    becomes_ready(&app).await;
    client.with_key("two").deposit(other, 1).await.expect(201);
    audit(&app).await;
}

#[tokio::test]
async fn a_view_whose_rows_only_a_newer_release_can_write_is_left_alone_and_holds_nothing_up() {
    let (app, account, _) = bank().await;
    let client = app.client();
    let stood: i64 = query_scalar("SELECT position FROM log_head").fetch_one(&mut app.database().await).await.unwrap();
    eventually("views that have read all", async || {
        let views = client.get("/v1/projections").await.expect(200);
        views.data().iter().all(|view| view["lag_events"] == 0).then_some(())
    })
    .await;
    app.sabotage(
        "UPDATE projection SET schema_version = 99 WHERE name = 'daily_balances';
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         VALUES (0, 'accounts', 98, 99, 'building', 0), (0, 'accounts', 97, 99, 'retired', 0), (0, 'unheard_of', 1, 1, 'live', 0)",
    )
    .await;
    // Nobody here takes its locks, not even for a moment, while there is work on the others.
    let mut newer = app.database().await;
    for _ in 0..10 {
        client.deposit(account, 1).await.expect(201);
        raw_sql(
            "BEGIN;
             SELECT FROM projection WHERE schema_version = 99 OR name = 'unheard_of' FOR UPDATE NOWAIT;
             ROLLBACK",
        )
        .execute(&mut newer)
        .await
        .unwrap();
    }
    let last = client.deposit(account, 1).await.expect(201);
    let views = client.get(&format!("/v1/projections?min_position={}", last.position())).await.expect(200);
    assert_eq!(views.position(), last.position(), "what it cannot write does not count");
    for view in views.data().iter().filter(|view| view["schema_version"] == 99) {
        let position = view["position"].as_str().unwrap();
        let expected = if view["name"] == "daily_balances" { stood.to_string() } else { "0".to_owned() };
        assert_eq!(position, expected, "{view}");
    }
}
