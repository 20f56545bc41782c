//! Snapshots: a shortcut to an account's state, never the truth. And the statements that load and append: they read
//! only what they need, however empty the tables were when they were prepared.

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{FromRow, query_as, types::Json};
use uuid::Uuid;

use crate::support::{
    App,
    audit::{audit, fold},
    spawn_app_in_one_partition_with, spawn_app_with,
};

/// What is kept of an account.
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

/// The version of an account's snapshot; 0 where there is none.
async fn kept(app: &App, account: Uuid) -> i64 {
    snapshot(app, account).await.map_or(0, |snapshot| snapshot.version)
}

/// An account at version 5 with a balance of 104, and a snapshot of its version 4.
async fn account_with_snapshot(app: &App) -> Uuid {
    let account = app.client().open_with_balance(100).await;
    for _ in 2..=5 {
        app.client().deposit(account, 1).await.expect(201);
    }
    assert_eq!(kept(app, account).await, 4);
    account
}

/// A server that keeps a snapshot of every second version.
async fn spawn_app_that_keeps_every_second() -> App {
    spawn_app_with(&["--snapshot-every=2"]).await
}

#[tokio::test]
async fn a_snapshot_is_written_each_time_so_many_versions_are_passed() {
    let app = spawn_app_with(&["--snapshot-every=3"]).await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let mut versions = vec![kept(&app, account).await];
    for _ in 2..=7 {
        client.deposit(account, 1).await.expect(201);
        versions.push(kept(&app, account).await);
    }
    assert_eq!(versions, [0, 0, 3, 3, 3, 6, 6]);
    for _ in 0..2 {
        client.transfer(account, other, 1).await.expect(201);
    }
    assert_eq!((kept(&app, account).await, kept(&app, other).await), (9, 3), "both sides of a transfer");
    client.dry_run().deposit(account, 1).await.expect(200);
    client.withdraw(account, 1_000).await.expect_problem(422, "insufficient_funds");
    assert_eq!(kept(&app, account).await, 9);
}

#[tokio::test]
async fn a_batch_that_passes_several_keeps_its_last_state() {
    let app = spawn_app_with(&["--snapshot-every=3"]).await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    app.run_as_one_batch(join_all((2..=8).map(|_| client.deposit(account, 1)))).await;
    assert_eq!(kept(&app, account).await, 8);
}

#[tokio::test]
async fn a_snapshot_is_the_fold_of_the_events_up_to_its_version() {
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
        let state = json!({"Opened": {
            "owner": folded.owner, "currency": folded.currency, "status": folded.status, "balance": folded.balance,
        }});
        assert_eq!(*snapshot.state, state, "{command}");
    }
}

#[tokio::test]
async fn a_load_begins_at_the_snapshot() {
    let mut app = spawn_app_that_keeps_every_second().await;
    let account = account_with_snapshot(&app).await;
    audit(&app).await;
    // Without the snapshot nothing could be made of the rest.
    app.tamper("DELETE FROM event WHERE version <= 4").await;
    app.restart().await;
    let withdrawn = app.client().withdraw(account, 104).await.expect(201);
    assert_eq!((&withdrawn.body["version"], &withdrawn.body["balance"]), (&json!(6), &json!(0)));
    assert_eq!(kept(&app, account).await, 6);
}

#[tokio::test]
async fn everything_that_decisions_rest_on_is_in_the_snapshot() {
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
async fn without_snapshots_the_state_is_the_same() {
    let mut app = spawn_app_that_keeps_every_second().await;
    let account = account_with_snapshot(&app).await;
    app.sabotage("DELETE FROM snapshot").await;
    app.restart().await;
    assert_goes_on(&app, account).await;
}

#[tokio::test]
async fn a_snapshot_of_another_shape_is_passed_over_and_replaced() {
    let mut app = spawn_app_that_keeps_every_second().await;
    let account = account_with_snapshot(&app).await;
    // As an older release wrote it, and as a newer one did.
    for foreign in [
        "UPDATE snapshot SET state_version = 0, version = 2, state = '{\"balance\": 900}'",
        "UPDATE snapshot SET state_version = 99, version = 99, state = replace(state::text, '\"balance\":', '\"balance\":90')::json",
    ] {
        app.sabotage(foreign).await;
        app.restart().await;
        assert_goes_on(&app, account).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_passed_over_and_replaced() {
    let mut app = spawn_app_that_keeps_every_second().await;
    let account = account_with_snapshot(&app).await;
    for unreadable in [
        "UPDATE snapshot SET state = '{\"Opened\": {\"owner\": \"o\", \"currency\": \"EUR\", \"status\": \"open\"}}'",
        "UPDATE snapshot SET state = '{}'",
        "UPDATE snapshot SET state = '\"Opened\"'",
        "UPDATE snapshot SET state = 'null'",
    ] {
        app.sabotage(unreadable).await;
        app.restart().await;
        assert_goes_on(&app, account).await;
    }
}

#[tokio::test]
async fn one_unreadable_snapshot_keeps_nobody_else_of_the_batch_from_theirs() {
    let mut app = spawn_app_that_keeps_every_second().await;
    let accounts =
        [account_with_snapshot(&app).await, account_with_snapshot(&app).await, account_with_snapshot(&app).await];
    audit(&app).await;
    // The first and the last can be read from their snapshots alone, the one between from its events alone.
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

/// Its balance is what the events say, and the next command but one leaves a snapshot that is right.
async fn assert_goes_on(app: &App, account: Uuid) {
    let before = fold(&app.log().await.events).remove(&account).unwrap();
    let responses =
        [app.client().deposit(account, 1).await.expect(201), app.client().deposit(account, 1).await.expect(201)];
    assert_eq!(responses[0].body["balance"], before.balance + 1);
    assert_eq!(responses[1].body["version"], before.version + 2);
    let last_even = (before.version + 2) / 2 * 2;
    let snapshot = snapshot(app, account).await.unwrap();
    assert_eq!((snapshot.version, snapshot.state_version), (last_even, 1));
    assert_eq!(snapshot.state["Opened"]["balance"], before.balance + last_even - before.version);
}

/// Every statement of the executor, for one account and for many, often enough for Postgres to settle on a plan.
async fn ask_everything(app: &App, round: &str) {
    let client = app.client();
    for turn in 0..8 {
        join_all((0..=turn).map(async |n| {
            let keyed = |what| client.with_key(&format!("{round}-{turn}-{n}-{what}"));
            let account = keyed("open").open(json!({"currency": "EUR"})).await.expect(201).account_id();
            keyed("deposit").deposit(account, 1).await.expect(201);
            assert!(keyed("deposit").deposit(account, 1).await.expect(201).is_replay());
            keyed("refused").deposit(Uuid::from_u128(n), 1).await.expect_problem(404, "account_not_found");
        }))
        .await;
    }
}

#[tokio::test]
async fn statements_prepared_on_empty_tables_read_only_what_they_need_when_those_are_full() {
    let mut app = spawn_app_in_one_partition_with(&["--cache-accounts=1", "--snapshot-every=1"]).await;
    // Nobody tells the planner later how full the tables are.
    app.sabotage(
        "ALTER TABLE event SET (autovacuum_enabled = off);
         ALTER TABLE idempotency_key SET (autovacuum_enabled = off);
         ALTER TABLE snapshot SET (autovacuum_enabled = off)",
    )
    .await;
    // Each sends the other the slow way.
    let mut peer = app.spawn_peer().await;
    for round in ["empty", "empty-again"] {
        ask_everything(&app, &format!("here-{round}")).await;
        ask_everything(&peer, &format!("there-{round}")).await;
    }
    // The views are taken for having read it all.
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
        ask_everything(&app, &format!("here-{round}")).await;
        ask_everything(&peer, &format!("there-{round}")).await;
    }
    // To the end of the log: the projectors' statements are watched, too.
    app.stop().await;
    peer.stop().await;
    for (table, rows) in rows_read(&app).await {
        assert!((1..50_000).contains(&rows), "{rows} rows of {table} were read");
    }
}

/// How many rows of each table were read, in any way, once every connection's own count has been added up.
async fn rows_read(app: &App) -> Vec<(String, i64)> {
    app.wait_until_disconnected().await;
    let tables: Vec<(String, i64)> = query_as(
        "SELECT relname::text, (seq_tup_read + idx_tup_fetch)::int8 FROM pg_stat_user_tables
         WHERE relname IN ('event', 'idempotency_key', 'snapshot')",
    )
    .fetch_all(&mut app.database().await)
    .await
    .unwrap();
    assert_eq!(tables.len(), 3);
    tables
}
