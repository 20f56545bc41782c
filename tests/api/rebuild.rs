//! Rebuilds of views beside the live ones: reads and commands continue, and an inconsistent generation never goes live.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use passbook_testkit::{ApiClient, App, Response, audit::audit, eventually, spawn_app, spawn_app_in_one_partition};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, query_scalar, raw_sql};
use uuid::Uuid;

const VIEWS: [&str; 6] = ["accounts", "transactions", "daily_balances", "bank_totals", "holds", "ledger_totals"];

async fn rebuild(client: &ApiClient, view: &str) -> Response {
    client.post(&format!("/v1/projections/{view}/rebuild"), "").await
}

/// Number and state of each generation of a view.
async fn generations(app: &App, view: &str) -> Vec<(Value, Value)> {
    let list = app.client().get("/v1/projections").await.expect(200);
    let rows = list.data().iter().filter(|row| row["name"] == view);
    rows.map(|row| (row["generation"].clone(), row["state"].clone())).collect()
}

/// Waits until this generation is live and the only one.
async fn wait_for_generation(app: &App, view: &str, generation: i64) {
    let expected = vec![(json!(generation), json!("live"))];
    eventually("the rebuilt view", async || (generations(app, view).await == expected).then_some(())).await;
}

/// Locks the view tables against writes until the returned connection is closed.
async fn lock_views(app: &App) -> PgConnection {
    let mut connection = app.database().await;
    raw_sql("BEGIN; LOCK TABLE account_view, account_transaction, account_hold, held_total, daily_balance, bank_total, ledger_total IN SHARE MODE")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn rebuilds_do_not_disturb_reads_or_commands() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let mut accounts = Vec::new();
    for _ in 0..8 {
        accounts.push(client.open_with_balance(1_000).await);
    }
    let is_running = Arc::new(AtomicBool::new(true));
    let tasks: Vec<_> = accounts
        .iter()
        .map(|account| tokio::spawn(deposit_and_read(app.client(), *account, Arc::clone(&is_running))))
        .collect();
    for generation in 2..=3 {
        for view in VIEWS {
            let started = rebuild(&client, view).await.expect(202);
            assert_eq!(started.body, json!({"name": view, "generation": generation, "state": "building"}));
        }
        for view in VIEWS {
            wait_for_generation(&app, view, generation).await;
        }
    }
    is_running.store(false, Ordering::Relaxed);
    let mut rounds = 0;
    for task in tasks {
        rounds += task.await.unwrap();
    }
    assert!(rounds >= 8, "only {rounds} rounds of load");
    audit(&app).await;
}

/// Deposits and reads the deposit back until `is_running` is false; returns the number of rounds.
async fn deposit_and_read(client: ApiClient, account: Uuid, is_running: Arc<AtomicBool>) -> usize {
    let mut read = [0; 2];
    let mut rounds = 0;
    while is_running.load(Ordering::Relaxed) {
        let deposited = client.deposit(account, 1).await.expect(201);
        let seen = client.get_account(account, deposited.position()).await.expect(200);
        assert_eq!(
            (&seen.body["balance"], &seen.body["version"]),
            (&deposited.body["balance"], &deposited.body["version"])
        );
        let listed = client.get(&format!("/v1/accounts/{account}/transactions?limit=1")).await.expect(200);
        // The two responses come from views with separate checkpoints.
        for (response, read) in [seen, listed].iter().zip(&mut read) {
            let position: i64 = response.position().parse().unwrap();
            assert!(position >= *read, "a view moved back from {read} to {position}");
            *read = position;
        }
        rounds += 1;
    }
    rounds
}

#[tokio::test]
async fn second_rebuild_and_unknown_view_are_refused() {
    let app = spawn_app().await;
    let client = app.client();
    client.open_with_balance(100).await;
    let lock = lock_views(&app).await;
    rebuild(&client, "accounts").await.expect(202);
    rebuild(&client, "accounts").await.expect_problem(409, "rebuild_running");
    rebuild(&client, "customers").await.expect_problem(404, "not_found");
    client.post("/v1/projections/accounts/rebuild?verify=perhaps", "").await.expect_problem(400, "invalid_parameter");
    // The generation that is being built serves no reads.
    assert_eq!(generations(&app, "accounts").await[0], (json!(1), json!("live")));
    client.get("/readyz").await.expect(200);
    lock.close().await.unwrap();
    wait_for_generation(&app, "accounts", 2).await;
    rebuild(&client, "accounts").await.expect(202);
    wait_for_generation(&app, "accounts", 3).await;
}

#[tokio::test]
async fn interrupted_rebuild_continues_after_a_restart() {
    let mut app = spawn_app().await;
    let account = app.client().open_with_balance(100).await;
    let lock = lock_views(&app).await;
    rebuild_all(&app).await;
    app.stop().await;
    lock.close().await.unwrap();
    app.start_again().await;
    for view in VIEWS {
        wait_for_generation(&app, view, 2).await;
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
async fn inconsistent_rebuild_fails_and_does_not_go_live() {
    for (change, query) in [("UPDATE", ""), ("UPDATE", "?verify=true"), ("DELETE", "")] {
        let app = spawn_app_in_one_partition().await;
        let client = app.client();
        let account = client.open_with_balance(100).await;
        client.get_account(account, "1").await.expect(200);
        app.sabotage(match change {
            "UPDATE" => {
                "CREATE FUNCTION corrupt() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN IF new.generation = 2 THEN new.balance := new.balance + 1; END IF; RETURN new; END $$;
                 CREATE TRIGGER corrupt BEFORE INSERT ON account_view FOR EACH ROW EXECUTE FUNCTION corrupt()"
            }
            _ => {
                "CREATE FUNCTION corrupt() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN IF new.generation = 2 THEN RETURN NULL; END IF; RETURN new; END $$;
                 CREATE TRIGGER corrupt BEFORE INSERT ON account_view FOR EACH ROW EXECUTE FUNCTION corrupt()"
            }
        })
        .await;
        client.post(&format!("/v1/projections/accounts/rebuild{query}"), "").await.expect(202);
        let failed = eventually("a failed rebuild", async || {
            let list = client.get("/v1/projections").await.expect(200);
            list.data().iter().find(|row| row["state"] == "failed").cloned()
        })
        .await;
        assert_eq!((&failed["name"], &failed["generation"]), (&json!("accounts"), &json!(2)));
        assert!(failed["failure"].as_str().is_some_and(|failure| !failure.is_empty()), "{failed}");
        client.get("/readyz").await.expect(200);
        assert_eq!(client.get_account(account, "1").await.expect(200).body["balance"], 100);

        app.sabotage("DROP TRIGGER corrupt ON account_view").await;
        rebuild(&client, "accounts").await.expect(202);
        wait_for_generation(&app, "accounts", 3).await;
        audit(&app).await;
    }
}

#[tokio::test]
async fn etag_changes_with_a_rebuild_and_still_works_as_if_match() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let before = client.get_account(account, "1").await.expect(200);
    assert_eq!(before.header("etag"), Some("\"1\""));
    // Changes the live view, so that the rebuild changes the body without an event.
    app.sabotage("UPDATE account_view SET owner = 'another-owner'").await;
    rebuild(&client, "accounts").await.expect(202);
    wait_for_generation(&app, "accounts", 2).await;
    let path = format!("/v1/accounts/{account}");
    let after = client.with_header("if-none-match", "\"1\"").get(&path).await.expect(200);
    assert_eq!(after.header("etag"), Some("\"1.2\""));
    assert_eq!(after.body, before.body);
    assert_eq!(client.with_header("if-none-match", "\"1.2\"").get(&path).await.status, 304);
    client.if_match("\"1.2\"").deposit(account, 1).await.expect(201);
}

#[tokio::test]
async fn view_of_an_older_schema_serves_until_it_is_rebuilt() {
    let mut app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.freeze(account).await.expect(200);
    client.get_account(account, "2").await.expect(200);
    eventually("the transactions", async || {
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
    let lock = lock_views(&app).await;
    app.start_again().await;
    let client = app.client();
    let movements = client.get(&format!("/v1/accounts/{account}/transactions")).await.expect(200);
    assert_eq!(movements.data().len(), 1);
    client.get(&format!("/v1/accounts/{account}?as_of_version=2")).await.expect_problem(503, "projection_behind");
    lock.close().await.unwrap();
    wait_for_generation(&app, "transactions", 2).await;
    let frozen = client.get(&format!("/v1/accounts/{account}?as_of_version=2")).await.expect(200);
    assert_eq!(frozen.body["status"], "frozen");
    audit(&app).await;
}

#[tokio::test]
async fn rows_of_an_older_release_answer_no_named_moment() {
    let mut app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.set_limits(account, json!({"overdraft": 50})).await.expect(200);
    client.place_hold(account, json!({"amount": 30})).await.expect(201);
    let deposit = json!({"amount": 1, "channel": "branch"});
    client.command(&format!("/v1/accounts/{account}/deposits"), deposit).await.expect(201);
    app.wait_until_projected().await;
    app.stop().await;
    // An older release has written the last row into the live generation. It knows no column of its shape 3.
    app.sabotage(
        "UPDATE projection SET schema_version = 2 WHERE name = 'transactions';
         UPDATE account_transaction SET channel = NULL, overdraft = NULL, holds_version = NULL, holds = NULL
         WHERE version = 4;
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         SELECT partition, name, 2, 3, 'building', 0 FROM projection WHERE name = 'transactions'",
    )
    .await;
    // The live generation goes on, and the next one is not built.
    let lock = app.lock_rows("projection", "name = 'transactions' AND generation = 2").await;
    app.start_again().await;
    let client = app.client();
    let deposited = client.deposit(account, 1).await.expect(201);
    let path = format!("/v1/accounts/{account}");
    client.get(&format!("{path}/transactions?min_position={}", deposited.position())).await.expect(200);
    let later = "SELECT num_nonnulls(channel, overdraft, holds_version) FROM account_transaction WHERE version = 5";
    assert_eq!(query_scalar::<_, i32>(later).fetch_one(&mut app.database().await).await.unwrap(), 0);
    let statement = format!("{path}/statement?from=2026-01-01&to=9999-12-31");
    for query in [&format!("{path}?as_of_version=3"), &format!("{path}?as_of_version=5"), &statement] {
        client.get(query).await.expect_problem(503, "projection_behind");
    }
    lock.close().await.unwrap();
    wait_for_generation(&app, "transactions", 2).await;
    let seen = client.get(&format!("{path}?as_of_version=5")).await.expect(200);
    assert_eq!(json!([seen.body["held"], seen.body["overdraft"], seen.body["available"]]), json!([30, 50, 122]));
    let statement = client.get(&statement).await.expect(200);
    assert_eq!(statement.body["lines"][1]["channel"], "branch");
    audit(&app).await;
}

#[tokio::test]
async fn view_that_cannot_read_its_rows_reports_the_reason() {
    let mut app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 1).await.expect(201);
    app.wait_until_projected().await;
    app.stop().await;
    // The next batch begins behind the account's opening, so its last day is read before the batch is folded.
    app.sabotage(
        "ALTER TABLE daily_balance RENAME COLUMN opening TO hidden;
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         VALUES (0, 'daily_balances', 2, 1, 'building', 1)",
    )
    .await;
    app.start_again().await;
    let reason = eventually("the reason", async || {
        let reason = "SELECT failure FROM projection WHERE name = 'daily_balances' AND generation = 2";
        query_scalar::<_, Option<String>>(reason).fetch_one(&mut app.database().await).await.unwrap()
    })
    .await;
    assert!(reason.contains("opening does not exist"), "{reason}");
}

#[tokio::test]
async fn two_instances_rebuild_a_view_and_apply_each_event_once() {
    let app = spawn_app().await;
    let mut peer = app.spawn_peer().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    for _ in 0..20 {
        client.deposit(account, 1).await.expect(201);
    }
    for generation in 2..=5 {
        rebuild_all(&peer).await;
        for view in VIEWS {
            wait_for_generation(&app, view, generation).await;
        }
    }
    audit(&app).await;
    peer.stop().await;
}

#[tokio::test]
async fn deleting_a_retired_generation_passes_each_row_once() {
    const ROWS: i64 = 40_000;
    let mut app = spawn_app_in_one_partition().await;
    // While this snapshot of the database exists, vacuum keeps the deleted rows and their index entries.
    let mut snapshot = app.database().await;
    raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM account_view")
        .execute(&mut snapshot)
        .await
        .unwrap();
    app.sabotage(
        "INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id)
         SELECT 0, 99, '01900000-0000-7000-8000-000000000001', n, 'deposit', 1, n, now(), gen_random_uuid()
         FROM generate_series(1, 40000) AS n;
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         VALUES (0, 'transactions', 99, 2, 'retired', 0)",
    )
    .await;
    eventually("the deletion", async || {
        let left = "SELECT EXISTS (SELECT FROM projection WHERE generation = 99)";
        let is_left: bool = query_scalar(left).fetch_one(&mut app.database().await).await.unwrap();
        (!is_left).then_some(())
    })
    .await;
    snapshot.close().await.unwrap();
    app.stop().await;
    app.wait_until_disconnected().await;
    let mut database = app.rows_under_test().await;
    let rows = "SELECT count(*) FROM account_transaction WHERE generation = 99";
    assert_eq!(query_scalar::<_, i64>(rows).fetch_one(&mut database).await.unwrap(), 0);
    let read = "SELECT sum(idx_tup_read)::int8 FROM pg_stat_user_indexes WHERE relname = 'account_transaction'";
    let read: i64 = query_scalar(read).fetch_one(&mut database).await.unwrap();
    // Once to find the end of a slice, and once to delete it.
    assert!((ROWS..3 * ROWS).contains(&read), "{read} index entries were read for {ROWS} rows");
}
