//! The projector: other sessions do not stall it, it skips no event, and it reports an event that it cannot apply.

use passbook_testkit::{App, audit::audit, eventually, spawn_app, spawn_app_in_one_partition, spawn_app_with};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, query_scalar, raw_sql};
use uuid::Uuid;

/// A view's row in `GET /v1/projections`.
async fn status(app: &App, name: &str) -> Value {
    let list = app.client().get("/v1/projections").await.expect(200);
    list.data().iter().find(|view| view["name"] == name).unwrap().clone()
}

async fn begin(app: &App, sql: &'static str) -> PgConnection {
    let mut connection = app.database().await;
    raw_sql("BEGIN").execute(&mut connection).await.unwrap();
    raw_sql(sql).execute(&mut connection).await.unwrap();
    connection
}

#[tokio::test]
async fn projector_polls_events_of_other_instances() {
    let app = spawn_app().await;
    let mut writer = app.spawn_peer().await;
    let account = writer.client().open_with_balance(100).await;
    let last = writer.client().deposit(account, 1).await.expect(201);
    // The writer's projector has stopped and the views are reset, so only this instance's poll can find the events.
    writer.stop().await;
    app.sabotage(
        "UPDATE projection SET position = 0; TRUNCATE account_view, account_transaction, reversed_movement, account_hold, held_total, daily_balance, bank_total, ledger_total",
    )
    .await;
    let seen = eventually("the projected write", async || {
        let seen = app.client().get(&format!("/v1/accounts/{account}")).await;
        (seen.status == 200 && seen.position() == last.position()).then_some(seen)
    })
    .await;
    assert_eq!(seen.body["balance"], 101);
    audit(&app).await;
}

#[tokio::test]
async fn open_and_rolled_back_transactions_do_not_stall_projection() {
    let app = spawn_app_in_one_partition().await;
    let other_app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    // Two transactions stay open, one in another database of the cluster. A third appends events and rolls back.
    let idle = begin(&other_app, "CREATE TABLE idle AS SELECT 1").await;
    let own_idle = begin(&app, "CREATE TABLE idle AS SELECT 1").await;
    let rolled_back = begin(
        &app,
        "UPDATE log_head SET position = position + 5;
         INSERT INTO event SELECT partition, position + 1, gen_random_uuid(), stream_id, version + 1, type, schema_version,
                                  data, metadata, now(), hash FROM event",
    )
    .await;
    rolled_back.close().await.unwrap();
    let deposited = client.deposit(account, 1).await.expect(201);
    assert_eq!(deposited.position(), "2", "positions have no holes");
    assert_eq!(client.get_account(account, "2").await.expect(200).body["balance"], 101);
    audit(&app).await;
    idle.close().await.unwrap();
    own_idle.close().await.unwrap();
}

#[tokio::test]
async fn view_far_behind_reads_each_event_once_over_many_batches() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.get_account(account, "1").await.expect(200);
    app.sabotage(
        "INSERT INTO event
         SELECT partition, n, gen_random_uuid(), stream_id, n, 'MoneyDeposited', 1, '{\"amount\":1}', metadata, now(), hash
         FROM event CROSS JOIN generate_series(2, 65000) AS n;
         UPDATE log_head SET position = 65000",
    )
    .await;
    eventually("a view without lag", async || (status(&app, "accounts").await["lag_events"] == 0).then_some(())).await;
    let seen = client.get_account(account, "65000").await.expect(200);
    assert_eq!((&seen.body["balance"], &seen.body["transaction_count"]), (&json!(65_099), &json!(65_000)));
    let newest = client.get(&format!("/v1/accounts/{account}/transactions?limit=1")).await.expect(200);
    assert_eq!(newest.data()[0]["balance_after"], 65_099);
    let rows = "SELECT count(*) FROM account_transaction";
    assert_eq!(query_scalar::<_, i64>(rows).fetch_one(&mut app.database().await).await.unwrap(), 65_000);
}

#[tokio::test]
async fn event_that_cannot_be_decoded_stops_views_but_not_commands() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let (undecodable, healthy) = (client.open_with_balance(100).await, client.open_with_balance(100).await);
    client.get_account(healthy, "2").await.expect(200);
    app.tamper(
        "UPDATE projection SET position = 1;
         DELETE FROM account_view WHERE account_id = (SELECT stream_id FROM event WHERE position = 2);
         DELETE FROM account_transaction WHERE account_id = (SELECT stream_id FROM event WHERE position = 2);
         DELETE FROM daily_balance WHERE account_id = (SELECT stream_id FROM event WHERE position = 2);
         UPDATE bank_total SET open = 1, money = 100, event_count = 1;
         UPDATE ledger_total SET debit = debit / 2, credit = credit / 2, event_count = event_count / 2;
         UPDATE event SET data = json_build_array(data) WHERE position = 2",
    )
    .await;

    let stopped = eventually("a view that has stopped", async || {
        let view = status(&app, "accounts").await;
        (view["state"] == "stopped").then_some(view)
    })
    .await;
    assert_eq!((&stopped["position"], &stopped["lag_events"]), (&json!("1"), &json!(1)));
    assert!(stopped["lag_seconds"].as_f64().unwrap() > 0.0);
    let degraded = client.get("/readyz").await.expect_problem(503, "projection_behind");
    assert!(degraded.text("/detail").contains("stopped"), "{}", degraded.body);
    // Commands are still executed.
    client.deposit(undecodable, 1).await.expect(201);
    assert_eq!(status(&app, "transactions").await["position"], "1");

    app.tamper("UPDATE event SET data = data -> 0 WHERE position = 2").await;
    eventually("readiness", async || (client.get("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(status(&app, "accounts").await["state"], "live");
    let opened: Uuid = client.get_account(healthy, "3").await.expect(200).account_id();
    assert_eq!(opened, healthy);
}

#[tokio::test]
async fn readiness_names_the_reason_and_recovers_without_commands() {
    let app = spawn_app_with(&["--command-timeout-ms=5000"]).await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.get_account(account, "1").await.expect(200);
    app.alter_database("SET default_transaction_read_only = on").await;
    // The first response may be `outcome_unknown`, because the connection may have ended during the append.
    let keyed = client.with_key("one");
    assert_eq!(keyed.deposit(account, 1).await.status, 503);
    keyed.deposit(account, 1).await.expect_problem(503, "storage_unavailable");
    let problem = client.get("/readyz").await.expect_problem(503, "storage_unavailable");
    assert!(problem.text("/detail").contains("read-only"), "{}", problem.body);
    // Positions that the view has read are still served.
    assert_eq!(client.get_account(account, "1").await.expect(200).body["balance"], 100);
    app.alter_database("RESET default_transaction_read_only").await;
    eventually("readiness", async || (client.get("/readyz").await.status == 200).then_some(())).await;
    assert_eq!(keyed.deposit(account, 1).await.expect(201).body["balance"], 101);
    audit(&app).await;
}

#[tokio::test]
async fn disconnected_caller_does_not_cancel_a_queued_command() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let log_head_lock = app.lock_log_heads().await;
    let keyed = client.with_key("one");
    tokio::select! {
        response = keyed.deposit(account, 5) => panic!("the append was not blocked by the lock: {}", response.body),
        () = app.wait_for_blocked_writer() => {}
    }
    log_head_lock.close().await.unwrap();
    eventually("the deposit", async || (app.log().await.head.position == 2).then_some(())).await;
    assert!(keyed.deposit(account, 5).await.expect(201).is_replay());
    audit(&app).await;
}

#[tokio::test]
async fn view_that_cannot_apply_a_batch_stops_alone() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    app.wait_until_projected().await;
    app.sabotage("ALTER TABLE daily_balance ADD CONSTRAINT broken CHECK (count < 2) NOT VALID").await;
    client.deposit(account, 1).await.expect(201);
    let stopped = eventually("a view that has stopped", async || {
        let view = status(&app, "daily_balances").await;
        (view["state"] == "stopped").then_some(view)
    })
    .await;
    assert!(stopped["failure"].as_str().unwrap().contains("broken"), "{stopped}");
    let deposited = client.deposit(account, 1).await.expect(201);
    assert_eq!(client.get_account(account, deposited.position()).await.expect(200).body["balance"], 102);
    for name in ["accounts", "transactions", "bank_totals", "ledger_totals"] {
        let view = eventually("a view at the head", async || {
            let view = status(&app, name).await;
            (view["position"] == "3").then_some(view)
        })
        .await;
        assert_eq!((&view["state"], &view["failure"]), (&json!("live"), &json!(null)), "{name}");
    }
    assert_eq!(status(&app, "daily_balances").await["position"], "1");

    // A rebuild of another view is not held up either.
    client.post("/v1/projections/daily_balances/rebuild", "").await.expect(202);
    client.post("/v1/projections/accounts/rebuild", "").await.expect(202);
    eventually("the rebuilt view", async || (status(&app, "accounts").await["generation"] == 2).then_some(())).await;
    app.sabotage("ALTER TABLE daily_balance DROP CONSTRAINT broken").await;
    eventually("readiness", async || (client.get("/readyz").await.status == 200).then_some(())).await;
    app.wait_until_projected().await;
    audit(&app).await;
}
