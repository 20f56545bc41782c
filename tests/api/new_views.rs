//! Views that are new to a log with events: built beside what serves, by an instance that knows them.

use serde_json::Value;
use sqlx::{Connection, raw_sql};

use crate::support::{ApiClient, App, audit::audit, eventually, spawn_app, spawn_app_in_one_partition};

/// The log and the views as a release left them that knew nothing of these two.
const AS_BEFORE: &str = "BEGIN;
     LOCK TABLE projection;
     DELETE FROM projection WHERE name IN ('daily_balances', 'bank_totals');
     TRUNCATE daily_balance, bank_total;
     COMMIT";

async fn state(app: &App, name: &str) -> Option<Value> {
    let views = app.client().get("/v1/projections").await.expect(200);
    views.data().iter().find(|view| view["name"] == name).cloned()
}

/// One command and one read, both as they should be.
async fn serves(client: &ApiClient, account: uuid::Uuid) {
    let deposited = client.deposit(account, 1).await.expect(201);
    let seen = client.get_account(account, deposited.position()).await.expect(200);
    assert_eq!(seen.body["balance"], deposited.body["balance"]);
}

#[tokio::test]
async fn a_log_with_events_gets_views_that_are_new_to_it_while_reads_and_writes_go_on() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let other = client.open_with_balance(0).await;
    client.transfer(account, other, 30).await.expect(201);
    serves(&client, account).await;
    app.sabotage(AS_BEFORE).await;
    // Nobody gets to write into one of them yet.
    let mut slow = app.database().await;
    raw_sql("BEGIN; LOCK TABLE bank_total IN SHARE MODE").execute(&mut slow).await.unwrap();

    let newer = app.spawn_peer().await;
    eventually("the begin of the building", async || state(&newer, "bank_totals").await).await;
    for server in [&app, &newer] {
        assert_eq!(state(server, "bank_totals").await.unwrap()["state"], "building");
        server.client().get("/v1/overview").await.expect_problem(503, "projection_behind");
        server.client().get("/readyz").await.expect(200);
        serves(&server.client(), account).await;
    }
    slow.close().await.unwrap();

    for name in ["daily_balances", "bank_totals"] {
        eventually("the new view", async || {
            serves(&client, account).await;
            state(&newer, name).await.filter(|view| view["state"] == "live")
        })
        .await;
        assert_eq!(state(&newer, name).await.unwrap()["generation"], 1);
    }
    for server in [&app, &newer] {
        serves(&server.client(), account).await;
        assert_eq!(server.client().get("/v1/overview").await.expect(200).body["accounts"]["open"], 2);
        let days = format!("/v1/accounts/{other}/daily-balances");
        assert_eq!(server.client().get(&days).await.expect(200).data()[0]["in"], 30);
    }
    audit(&app).await;
}

#[tokio::test]
async fn a_view_whose_rows_do_not_add_up_does_not_go_live_and_is_begun_anew_on_demand() {
    for (name, table, wrong) in [
        ("daily_balances", "daily_balance", "UPDATE daily_balance SET closing = closing + 1"),
        ("bank_totals", "bank_total", "UPDATE bank_total SET event_count = event_count + 1"),
    ] {
        let app = spawn_app_in_one_partition().await;
        let account = app.client().open_with_balance(100).await;
        app.client().get_account(account, "1").await.expect(200);
        // As if the building had been interrupted after the first event, and somebody had written into the rows.
        let sql = format!("UPDATE projection SET state = 'building' WHERE name = '{name}'; {wrong}");
        app.tamper(&format!("BEGIN; LOCK TABLE projection; {sql}; COMMIT")).await;
        let failed =
            eventually("the failure", async || state(&app, name).await.filter(|view| view["state"] == "failed")).await;
        assert!(failed["failure"].is_string(), "{table}: {failed}");
        serves(&app.client(), account).await;
        app.client().post(&format!("/v1/projections/{name}/rebuild"), "").await.expect(202);
        eventually("the next generation", async || state(&app, name).await.filter(|view| view["state"] == "live"))
            .await;
        audit(&app).await;
    }
}
