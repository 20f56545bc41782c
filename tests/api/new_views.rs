//! Views that a release adds: a newer instance builds them from an existing log while both instances serve.

use passbook_testkit::{ApiClient, App, audit::audit, eventually, spawn_app, spawn_app_in_one_partition};
use serde_json::Value;
use sqlx::{Connection, raw_sql};

/// Removes three views, as if only a release without them had used the database.
const REMOVE_NEW_VIEWS: &str = "BEGIN;
     LOCK TABLE projection;
     DELETE FROM projection WHERE name IN ('daily_balances', 'bank_totals', 'ledger_totals');
     TRUNCATE daily_balance, bank_total, ledger_total;
     COMMIT";

async fn state(app: &App, name: &str) -> Option<Value> {
    let views = app.client().get("/v1/projections").await.expect(200);
    views.data().iter().find(|view| view["name"] == name).cloned()
}

/// Asserts that a command succeeds and its result is read back.
async fn assert_serves(client: &ApiClient, account: uuid::Uuid) {
    let deposited = client.deposit(account, 1).await.expect(201);
    let seen = client.get_account(account, deposited.position()).await.expect(200);
    assert_eq!(seen.body["balance"], deposited.body["balance"]);
}

#[tokio::test]
async fn new_views_are_built_from_an_existing_log_while_serving() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let other = client.open_with_balance(0).await;
    client.transfer(account, other, 30).await.expect(201);
    assert_serves(&client, account).await;
    app.sabotage(REMOVE_NEW_VIEWS).await;
    // The lock delays the build of two views.
    let mut table_lock = app.database().await;
    raw_sql("BEGIN; LOCK TABLE bank_total, ledger_total IN SHARE MODE").execute(&mut table_lock).await.unwrap();

    let newer = app.spawn_peer().await;
    eventually("the start of the build", async || state(&newer, "bank_totals").await).await;
    for instance in [&app, &newer] {
        assert_eq!(state(instance, "bank_totals").await.unwrap()["state"], "building");
        instance.client().get("/v1/overview").await.expect_problem(503, "projection_behind");
        instance.client().get("/v1/books/trial-balance").await.expect_problem(503, "projection_behind");
        instance.client().get("/readyz").await.expect(200);
        assert_serves(&instance.client(), account).await;
    }
    table_lock.close().await.unwrap();

    for name in ["daily_balances", "bank_totals", "ledger_totals"] {
        eventually("the new view", async || {
            assert_serves(&client, account).await;
            state(&newer, name).await.filter(|view| view["state"] == "live")
        })
        .await;
        assert_eq!(state(&newer, name).await.unwrap()["generation"], 1);
    }
    for instance in [&app, &newer] {
        assert_serves(&instance.client(), account).await;
        assert_eq!(instance.client().get("/v1/overview").await.expect(200).body["accounts"]["open"], 2);
        let books = instance.client().get("/v1/books/trial-balance").await.expect(200);
        assert_eq!(books.body["totals"][0]["debit"], books.body["totals"][0]["credit"]);
        let days = format!("/v1/accounts/{other}/daily-balances");
        assert_eq!(instance.client().get(&days).await.expect(200).data()[0]["in"], "30");
    }
    audit(&app).await;
}

#[tokio::test]
async fn inconsistent_view_does_not_go_live_and_can_be_rebuilt() {
    for (name, table, wrong) in [
        ("daily_balances", "daily_balance", "UPDATE daily_balance SET closing = closing + 1"),
        ("bank_totals", "bank_total", "UPDATE bank_total SET event_count = event_count + 1"),
        ("ledger_totals", "ledger_total", "UPDATE ledger_total SET debit = debit + 1"),
        ("ledger_totals", "ledger_total", "UPDATE ledger_total SET event_count = event_count + 1"),
    ] {
        let app = spawn_app_in_one_partition().await;
        let account = app.client().open_with_balance(100).await;
        app.client().get_account(account, "1").await.expect(200);
        // Simulates a build that was interrupted after the first event, and whose rows were changed.
        let sql = format!("UPDATE projection SET state = 'building' WHERE name = '{name}'; {wrong}");
        app.tamper(&format!("BEGIN; LOCK TABLE projection; {sql}; COMMIT")).await;
        let failed =
            eventually("the failure", async || state(&app, name).await.filter(|view| view["state"] == "failed")).await;
        assert!(failed["failure"].is_string(), "{table}: {failed}");
        assert_serves(&app.client(), account).await;
        app.client().post(&format!("/v1/projections/{name}/rebuild"), "").await.expect(202);
        eventually("the next generation", async || state(&app, name).await.filter(|view| view["state"] == "live"))
            .await;
        audit(&app).await;
    }
}
