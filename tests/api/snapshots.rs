//! Snapshots speed up loading an account but never change its state. Also: the executor's prepared statements read few
//! rows, although Postgres planned them when the tables were empty.

use futures_util::future::join_all;
use passbook_testkit::{
    App,
    audit::{audit, fold},
    eventually, spawn_app_in_one_partition, spawn_app_in_one_partition_with, spawn_app_with,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, FromRow, query_as, raw_sql, types::Json};
use uuid::Uuid;

/// A row of the table `snapshot`.
#[derive(Debug, FromRow, PartialEq)]
struct Snapshot {
    version: i64,
    state_version: i16,
    state: Json<Value>,
}

async fn snapshot(app: &App, account: Uuid) -> Option<Snapshot> {
    query_as("SELECT version, state_version, state FROM snapshot WHERE stream_id = $1")
        .bind(account)
        .fetch_optional(&mut app.database().await)
        .await
        .unwrap()
}

/// The version of an account's snapshot; 0 if there is none.
async fn snapshot_version(app: &App, account: Uuid) -> i64 {
    snapshot(app, account).await.map_or(0, |snapshot| snapshot.version)
}

/// Opens an account and brings it to version 5 and a balance of 104, with a snapshot at version 4.
async fn account_with_snapshot(app: &App) -> Uuid {
    let account = app.client().open_with_balance(100).await;
    for _ in 2..=5 {
        app.client().deposit(account, 1).await.expect(201);
    }
    assert_eq!(snapshot_version(app, account).await, 4);
    account
}

/// Starts an app that writes a snapshot at every second version.
async fn spawn_app_with_snapshot_every_2() -> App {
    spawn_app_with(&["--snapshot-every=2"]).await
}

#[tokio::test]
async fn snapshot_is_written_at_every_nth_version() {
    let app = spawn_app_with(&["--snapshot-every=3"]).await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let mut versions = vec![snapshot_version(&app, account).await];
    for _ in 2..=7 {
        client.deposit(account, 1).await.expect(201);
        versions.push(snapshot_version(&app, account).await);
    }
    assert_eq!(versions, [0, 0, 3, 3, 3, 6, 6]);
    for _ in 0..2 {
        client.transfer(account, other, 1).await.expect(201);
    }
    assert_eq!(
        (snapshot_version(&app, account).await, snapshot_version(&app, other).await),
        (9, 3),
        "both sides of a transfer"
    );
    client.dry_run().deposit(account, 1).await.expect(200);
    client.withdraw(account, 1_000).await.expect_problem(422, "insufficient_funds");
    assert_eq!(snapshot_version(&app, account).await, 9);
}

#[tokio::test]
async fn batch_over_several_thresholds_writes_one_snapshot() {
    let app = spawn_app_with(&["--snapshot-every=3"]).await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    app.run_as_one_batch(join_all((2..=8).map(|_| client.deposit(account, 1)))).await;
    assert_eq!(snapshot_version(&app, account).await, 8);
}

#[tokio::test]
async fn snapshot_equals_fold_of_events_up_to_its_version() {
    let app = spawn_app_with(&["--snapshot-every=1"]).await;
    let client = app.client();
    let body = json!({"currency": "USD", "owner": "customer-17", "initial_deposit": 100});
    let account = client.open(body).await.expect(201).account_id();
    for command in ["deposit", "freeze", "unfreeze", "withdraw", "close"] {
        match command {
            "deposit" => client.deposit(account, 5).await,
            "withdraw" => client.withdraw(account, 105).await,
            "freeze" => client.freeze(account).await,
            "unfreeze" => client.unfreeze(account).await,
            _ => client.close(account).await,
        };
        let folded = fold(&app.log().await.events).remove(&account).unwrap();
        let snapshot = snapshot(&app, account).await.unwrap();
        assert_eq!(snapshot.version, folded.version, "{command}");
        let state = &snapshot.state["Opened"];
        let expected = json!([folded.owner, folded.currency, folded.status, folded.balance, folded.version]);
        let members = ["owner", "currency", "status", "balance", "version"].map(|member| &state[member]);
        assert_eq!(json!(members), expected, "{command}: {state}");
    }
}

#[tokio::test]
async fn load_starts_at_the_snapshot() {
    let mut app = spawn_app_with_snapshot_every_2().await;
    let account = account_with_snapshot(&app).await;
    audit(&app).await;
    // The account can be loaded only from the snapshot and the events after it.
    app.tamper("DELETE FROM event WHERE version <= 4").await;
    app.restart().await;
    let withdrawn = app.client().withdraw(account, 104).await.expect(201);
    assert_eq!((&withdrawn.body["version"], &withdrawn.body["balance"]), (&json!(6), &json!(0)));
    assert_eq!(snapshot_version(&app, account).await, 6);
}

#[tokio::test]
async fn snapshot_contains_all_state_that_decisions_need() {
    let mut app = spawn_app_with(&["--snapshot-every=1"]).await;
    let client = app.client();
    let opening = json!({"currency": "USD", "initial_deposit": 50, "account_id": Uuid::from_u128(17)});
    let frozen = client.open(opening.clone()).await.expect(201).account_id();
    client.freeze(frozen).await.expect(200);
    let closed = client.open_with_balance(0).await;
    client.close(closed).await.expect(200);
    audit(&app).await;
    app.tamper("DELETE FROM event").await;
    app.restart().await;
    let client = app.client();
    client.deposit(closed, 1).await.expect_problem(422, "account_closed");
    client.open(opening).await.expect_problem(409, "account_exists");
    client.if_match("\"1\"").unfreeze(frozen).await.expect_problem(412, "version_mismatch");
    client.deposit(frozen, 1).await.expect_problem(422, "account_frozen");
    client.unfreeze(frozen).await.expect(200);
    let path = format!("/v1/accounts/{frozen}/deposits");
    client.command(&path, json!({"amount": 1, "currency": "EUR"})).await.expect_problem(422, "currency_mismatch");
    client.withdraw(frozen, 51).await.expect_problem(422, "insufficient_funds");
    assert_eq!(client.withdraw(frozen, 50).await.expect(201).body["version"], 4);
}

#[tokio::test]
async fn state_is_the_same_without_snapshots() {
    let mut app = spawn_app_with_snapshot_every_2().await;
    let account = account_with_snapshot(&app).await;
    app.sabotage("DELETE FROM snapshot").await;
    app.restart().await;
    assert_continues(&app, account).await;
}

#[tokio::test]
async fn snapshot_of_another_state_version_is_ignored_and_replaced() {
    let mut app = spawn_app_with_snapshot_every_2().await;
    let account = account_with_snapshot(&app).await;
    // A snapshot of an older release, and one of a newer release.
    for foreign in [
        "UPDATE snapshot SET state_version = 0, version = 2, state = '{\"balance\": 900}'",
        "UPDATE snapshot SET state_version = 99, version = 99, state = replace(state::text, '\"balance\":', '\"balance\":90')::json",
    ] {
        app.sabotage(foreign).await;
        app.restart().await;
        assert_continues(&app, account).await;
    }
}

#[tokio::test]
async fn undecodable_snapshot_is_ignored_and_replaced() {
    let mut app = spawn_app_with_snapshot_every_2().await;
    let account = account_with_snapshot(&app).await;
    for unreadable in [
        "UPDATE snapshot SET state = '{\"Opened\": {\"owner\": \"o\", \"currency\": \"EUR\", \"status\": \"open\"}}'",
        "UPDATE snapshot SET state = '{}'",
        "UPDATE snapshot SET state = '\"Opened\"'",
        "UPDATE snapshot SET state = 'null'",
    ] {
        app.sabotage(unreadable).await;
        app.restart().await;
        assert_continues(&app, account).await;
    }
}

#[tokio::test]
async fn undecodable_snapshot_does_not_affect_others_in_the_batch() {
    let mut app = spawn_app_with_snapshot_every_2().await;
    let accounts =
        [account_with_snapshot(&app).await, account_with_snapshot(&app).await, account_with_snapshot(&app).await];
    audit(&app).await;
    // The first and last account can be loaded only from their snapshots, the second one only from its events.
    app.tamper(
        "UPDATE snapshot SET state = '{}' WHERE stream_id = (SELECT stream_id FROM event WHERE position = 6);
         DELETE FROM event WHERE version <= 4 AND position NOT BETWEEN 6 AND 10",
    )
    .await;
    app.restart().await;
    let client = app.client();
    let responses = app.run_as_one_batch(join_all(accounts.map(|account| client.withdraw(account, 104)))).await;
    for response in responses {
        assert_eq!(response.expect(201).body["version"], 6);
    }
}

#[tokio::test]
async fn a_long_account_without_snapshot_does_not_delay_others() {
    let mut app = spawn_app_in_one_partition().await;
    let long = app.client().open_with_balance(0).await;
    let other = app.client().open_with_balance(0).await;
    let events = 30_000;
    app.insert_deposits(events, 10).await;
    app.restart().await;
    // The uncommitted row keeps the rebuild from storing its snapshot.
    let mut blocker = app.database().await;
    let partition = app.partition_under_test();
    let row = format!("BEGIN; INSERT INTO snapshot VALUES ({partition}, '{long}', 1, 0, '{{}}')");
    raw_sql(AssertSqlSafe(row)).execute(&mut blocker).await.unwrap();
    let client = app.client();
    let (refused, paid) = tokio::join!(client.deposit(long, 1), client.deposit(other, 1));
    assert_eq!(paid.expect(201).body["balance"], 1);
    refused.expect_problem(503, "storage_unavailable");
    blocker.close().await.unwrap();
    let paid = eventually("the folded account", async || {
        let response = client.deposit(long, 1).await;
        (response.status == 201).then_some(response)
    })
    .await;
    assert_eq!((&paid.body["balance"], &paid.body["version"]), (&json!(events + 1), &json!(events + 2)));
    assert_eq!(snapshot_version(&app, long).await, events + 1);
    assert_eq!(client.deposit(long, 1).await.expect(201).body["balance"], events + 2);
}

#[tokio::test]
async fn a_long_account_that_cannot_be_decoded_fails_for_good() {
    let mut app = spawn_app_in_one_partition().await;
    let long = app.client().open_with_balance(0).await;
    app.insert_deposits(30_000, 10).await;
    app.tamper(&format!("UPDATE event SET data = '{{}}' WHERE stream_id = '{long}' AND version = 25000")).await;
    app.restart().await;
    let client = app.client();
    eventually("the final failure", async || {
        let response = client.deposit(long, 1).await;
        (response.body["code"] != "storage_unavailable").then(|| response.expect_problem(500, "internal_error"))
    })
    .await;
    assert_eq!(snapshot_version(&app, long).await, 24_999);
}

/// Asserts that two deposits continue from the folded state, and that the snapshot is correct afterwards.
async fn assert_continues(app: &App, account: Uuid) {
    let before = fold(&app.log().await.events).remove(&account).unwrap();
    let responses =
        [app.client().deposit(account, 1).await.expect(201), app.client().deposit(account, 1).await.expect(201)];
    assert_eq!(responses[0].body["balance"], before.balance + 1);
    assert_eq!(responses[1].body["version"], before.version + 2);
    let last_even = (before.version + 2) / 2 * 2;
    let snapshot = snapshot(app, account).await.unwrap();
    assert_eq!((snapshot.version, snapshot.state_version), (last_even, 2));
    assert_eq!(snapshot.state["Opened"]["balance"], before.balance + last_even - before.version);
}

/// Executes every statement of the executor for one and several accounts, often enough that Postgres fixes a generic
/// plan.
async fn run_all_statements(app: &App, round: &str) {
    let client = app.client();
    for repetition in 0..8 {
        join_all((0..=repetition).map(async |n| {
            let keyed = |what| client.with_key(&format!("{round}-{repetition}-{n}-{what}"));
            let account = keyed("open").open(json!({"currency": "EUR"})).await.expect(201).account_id();
            keyed("deposit").deposit(account, 1).await.expect(201);
            assert!(keyed("deposit").deposit(account, 1).await.expect(201).is_replay());
            keyed("refused").deposit(Uuid::from_u128(n), 1).await.expect_problem(404, "account_not_found");
        }))
        .await;
    }
}

#[tokio::test]
async fn statements_planned_on_empty_tables_read_few_rows_later() {
    let mut app = spawn_app_in_one_partition_with(&["--cache-accounts=1", "--snapshot-every=1"]).await;
    // Without autovacuum the planner does not learn how many rows the tables have.
    app.sabotage(
        "ALTER TABLE event SET (autovacuum_enabled = off);
         ALTER TABLE idempotency_key SET (autovacuum_enabled = off);
         ALTER TABLE snapshot SET (autovacuum_enabled = off)",
    )
    .await;
    // Two instances that write alternately make each other take the locked path.
    let mut peer = app.spawn_peer().await;
    for round in ["empty", "empty-again"] {
        run_all_statements(&app, &format!("first-{round}")).await;
        run_all_statements(&peer, &format!("peer-{round}")).await;
    }
    // The checkpoints are set to the new head, so that the projectors do not read the inserted events.
    app.sabotage(
        "BEGIN;
         UPDATE projection SET position = log_head.position + 100000 FROM log_head;
         INSERT INTO event
             (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
         SELECT 0, log_head.position + n, gen_random_uuid(), gen_random_uuid(), 1, 'AccountFrozen', 1, '{}', '{}', now(),
                log_head.hash
         FROM log_head, generate_series(1, 100000) AS n;
         INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at)
         SELECT 0, 'anonymous', n::text, '', '{}', now() FROM generate_series(1, 100000) AS n;
         INSERT INTO snapshot (partition, stream_id, version, state_version, state)
         SELECT 0, gen_random_uuid(), 1, 1, '{}' FROM generate_series(1, 100000) AS n;
         UPDATE log_head SET position = position + 100000;
         COMMIT",
    )
    .await;
    for round in ["full", "full-again"] {
        run_all_statements(&app, &format!("first-{round}")).await;
        run_all_statements(&peer, &format!("peer-{round}")).await;
    }
    // A shutdown projects the rest of the log, so the projectors' statements are counted too.
    app.stop().await;
    peer.stop().await;
    for (table, rows) in rows_read(&app).await {
        assert!((1..50_000).contains(&rows), "{rows} rows of {table} were read");
    }
}

/// The number of rows read from each table, by index or scan, after all connections have reported their counts.
async fn rows_read(app: &App) -> Vec<(String, i64)> {
    app.wait_until_disconnected().await;
    let tables: Vec<(String, i64)> = query_as(
        "SELECT relname::text, (seq_tup_read + idx_tup_fetch)::int8 FROM pg_stat_user_tables
         WHERE relname IN ('event', 'idempotency_key', 'snapshot')",
    )
    .fetch_all(&mut app.rows_under_test().await)
    .await
    .unwrap();
    assert_eq!(tables.len(), 3);
    tables
}
