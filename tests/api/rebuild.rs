//! Views built anew beside the live ones: nobody who reads or writes notices, and what is wrong never goes live.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, raw_sql};
use uuid::Uuid;

use crate::support::{ApiClient, App, Response, audit::audit, eventually, spawn_app, spawn_app_in_one_partition};

const VIEWS: [&str; 4] = ["accounts", "transactions", "daily_balances", "bank_totals"];

async fn rebuild(client: &ApiClient, view: &str) -> Response {
    client.post(&format!("/v1/projections/{view}/rebuild"), "").await
}

/// The generations of a view: number and state.
async fn generations(app: &App, view: &str) -> Vec<(Value, Value)> {
    let list = app.client().get("/v1/projections").await.expect(200);
    let rows = list.data().iter().filter(|row| row["name"] == view);
    rows.map(|row| (row["generation"].clone(), row["state"].clone())).collect()
}

/// Waits until this generation alone is left of a view.
async fn only_generation(app: &App, view: &str, generation: i64) {
    let wanted = vec![(json!(generation), json!("live"))];
    eventually("a rebuilt view", async || (generations(app, view).await == wanted).then_some(())).await;
}

/// Nothing can be written into the views until this connection is closed.
async fn hold_views(app: &App) -> PgConnection {
    let mut connection = app.database().await;
    raw_sql("BEGIN; LOCK TABLE account_view, account_transaction, daily_balance, bank_total IN SHARE MODE")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn reads_and_writes_go_on_while_every_view_is_rebuilt_and_nobody_sees_a_step_back() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let mut accounts = Vec::new();
    for _ in 0..8 {
        accounts.push(client.open_with_balance(1_000).await);
    }
    let going = Arc::new(AtomicBool::new(true));
    let tasks: Vec<_> =
        accounts.iter().map(|account| tokio::spawn(work_at(app.client(), *account, Arc::clone(&going)))).collect();
    for generation in 2..=3 {
        for view in VIEWS {
            let begun = rebuild(&client, view).await.expect(202);
            assert_eq!(begun.body, json!({"name": view, "generation": generation, "state": "building"}));
        }
        for view in VIEWS {
            only_generation(&app, view, generation).await;
        }
    }
    going.store(false, Ordering::Relaxed);
    let mut rounds = 0;
    for task in tasks {
        rounds += task.await.unwrap();
    }
    assert!(rounds >= 8, "the load went on: {rounds} rounds");
    audit(&app).await;
}

/// Writes to one account and reads the write back, every time, until told to stop; the number of rounds.
async fn work_at(client: ApiClient, account: Uuid, going: Arc<AtomicBool>) -> usize {
    let mut read = [0; 2];
    let mut rounds = 0;
    while going.load(Ordering::Relaxed) {
        let written = client.deposit(account, 1).await.expect(201);
        let seen = client.get_account(account, written.position()).await.expect(200);
        assert_eq!(
            (&seen.body["balance"], &seen.body["version"]),
            (&written.body["balance"], &written.body["version"])
        );
        let listed = client.get(&format!("/v1/accounts/{account}/transactions?limit=1")).await.expect(200);
        // Two views, two checkpoints.
        for (response, read) in [seen, listed].iter().zip(&mut read) {
            let position: i64 = response.position().parse().unwrap();
            assert!(position >= *read, "a view stepped back from {read} to {position}");
            *read = position;
        }
        rounds += 1;
    }
    rounds
}

#[tokio::test]
async fn a_view_is_rebuilt_once_at_a_time_and_only_if_there_is_one() {
    let app = spawn_app().await;
    let client = app.client();
    client.open_with_balance(100).await;
    let held = hold_views(&app).await;
    rebuild(&client, "accounts").await.expect(202);
    rebuild(&client, "accounts").await.expect_problem(409, "rebuild_running");
    rebuild(&client, "customers").await.expect_problem(404, "not_found");
    client.post("/v1/projections/accounts/rebuild?verify=perhaps", "").await.expect_problem(400, "invalid_parameter");
    // What is not live yet responses nobody.
    assert_eq!(generations(&app, "accounts").await[0], (json!(1), json!("live")));
    client.get("/readyz").await.expect(200);
    held.close().await.unwrap();
    only_generation(&app, "accounts", 2).await;
    rebuild(&client, "accounts").await.expect(202);
    only_generation(&app, "accounts", 3).await;
}

#[tokio::test]
async fn a_rebuild_that_was_stopped_half_way_goes_on_at_the_next_start() {
    let mut app = spawn_app().await;
    let account = app.client().open_with_balance(100).await;
    let held = hold_views(&app).await;
    rebuild_all(&app).await;
    app.stop().await;
    held.close().await.unwrap();
    app.start_again().await;
    for view in VIEWS {
        only_generation(&app, view, 2).await;
    }
    assert_eq!(app.client().get_account(account, "1").await.expect(200).body["balance"], 100);
    audit(&app).await;
}

async fn rebuild_all(app: &App) {
    for view in VIEWS {
        rebuild(&app.client(), view).await.expect(202);
    }
}

#[tokio::test]
async fn what_was_built_wrong_says_so_and_does_not_go_live() {
    for (what, query) in [("UPDATE", ""), ("UPDATE", "?verify=true"), ("DELETE", "")] {
        let app = spawn_app_in_one_partition().await;
        let client = app.client();
        let account = client.open_with_balance(100).await;
        client.get_account(account, "1").await.expect(200);
        app.sabotage(match what {
            "UPDATE" => {
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN IF new.generation = 2 THEN new.balance := new.balance + 1; END IF; RETURN new; END $$;
                 CREATE TRIGGER spoil BEFORE INSERT ON account_view FOR EACH ROW EXECUTE FUNCTION spoil()"
            }
            _ => {
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN IF new.generation = 2 THEN RETURN NULL; END IF; RETURN new; END $$;
                 CREATE TRIGGER spoil BEFORE INSERT ON account_view FOR EACH ROW EXECUTE FUNCTION spoil()"
            }
        })
        .await;
        client.post(&format!("/v1/projections/accounts/rebuild{query}"), "").await.expect(202);
        let failed = eventually("a check that fails", async || {
            let list = client.get("/v1/projections").await.expect(200);
            list.data().iter().find(|row| row["state"] == "failed").cloned()
        })
        .await;
        assert_eq!((&failed["name"], &failed["generation"]), (&json!("accounts"), &json!(2)));
        assert!(failed["failure"].as_str().is_some_and(|flaw| !flaw.is_empty()), "{failed}");
        client.get("/readyz").await.expect(200);
        assert_eq!(client.get_account(account, "1").await.expect(200).body["balance"], 100);

        app.sabotage("DROP TRIGGER spoil ON account_view").await;
        rebuild(&client, "accounts").await.expect(202);
        only_generation(&app, "accounts", 3).await;
        audit(&app).await;
    }
}

#[tokio::test]
async fn an_etag_of_before_the_rebuild_hides_no_changed_body_and_is_still_a_version() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let before = client.get_account(account, "1").await.expect(200);
    assert_eq!(before.header("etag"), Some("\"1\""));
    // The live view is wrong, which is why it is rebuilt.
    app.sabotage("UPDATE account_view SET owner = 'somebody else'").await;
    rebuild(&client, "accounts").await.expect(202);
    only_generation(&app, "accounts", 2).await;
    let path = format!("/v1/accounts/{account}");
    let after = client.with_header("if-none-match", "\"1\"").get(&path).await.expect(200);
    assert_eq!(after.header("etag"), Some("\"1.2\""));
    assert_eq!(after.body, before.body);
    assert_eq!(client.with_header("if-none-match", "\"1.2\"").get(&path).await.status, 304);
    client.if_match("\"1.2\"").deposit(account, 1).await.expect(201);
}

#[tokio::test]
async fn a_view_of_an_older_shape_answers_until_the_new_one_is_built_by_itself() {
    let mut app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.freeze(account).await.expect(200);
    client.get_account(account, "2").await.expect(200);
    eventually("both views", async || {
        let seen = client.get(&format!("/v1/accounts/{account}/transactions?min_position=2")).await;
        (seen.status == 200).then_some(())
    })
    .await;
    app.stop().await;
    app.sabotage(
        "UPDATE projection SET schema_version = 1 WHERE name = 'transactions';
         DELETE FROM account_transaction WHERE amount = 0;
         UPDATE account_transaction SET status = NULL, transaction_count = NULL",
    )
    .await;
    let held = hold_views(&app).await;
    app.start_again().await;
    let client = app.client();
    let movements = client.get(&format!("/v1/accounts/{account}/transactions")).await.expect(200);
    assert_eq!(movements.data().len(), 1);
    client.get(&format!("/v1/accounts/{account}?as_of_version=2")).await.expect_problem(503, "projection_behind");
    held.close().await.unwrap();
    only_generation(&app, "transactions", 2).await;
    let then = client.get(&format!("/v1/accounts/{account}?as_of_version=2")).await.expect(200);
    assert_eq!(then.body["status"], "frozen");
    audit(&app).await;
}

#[tokio::test]
async fn two_servers_that_build_the_same_view_count_each_event_once() {
    let app = spawn_app().await;
    let mut other = app.spawn_peer().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    for _ in 0..20 {
        client.deposit(account, 1).await.expect(201);
    }
    for generation in 2..=5 {
        rebuild_all(&other).await;
        for view in VIEWS {
            only_generation(&app, view, generation).await;
        }
    }
    audit(&app).await;
    other.stop().await;
}
