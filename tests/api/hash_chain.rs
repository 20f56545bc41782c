//! The hash chain, the recorded times of batches, and restored backups: an instance notices that the log differs from
//! the one in its cache.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use futures_util::future::join_all;
use passbook_audit::{Audit, Error, VerificationLimits};
use passbook_database::Database;
use passbook_testkit::{
    ApiClient, App,
    audit::{audit, expected_hashes},
    eventually,
    fault_proxy::Flow,
    log::{Event, Log},
    spawn_app, spawn_app_behind_proxy, spawn_app_in_one_partition,
};
use serde_json::json;
use sqlx::query_scalar;
use uuid::Uuid;

/// The first position whose hash differs from the recomputed one; the head's position if the last event is missing.
fn first_break(log: &Log) -> Option<i64> {
    let hashes = expected_hashes(&log.events);
    let broken = log.events.iter().zip(&hashes).find(|(event, hash)| event.hash != **hash);
    let is_truncated = hashes.last() != Some(&log.head.hash);
    broken.map(|(event, _)| event.position).or(is_truncated.then_some(log.head.position))
}

#[tokio::test]
async fn chain_is_unbroken_over_batches_restarts_and_instances() {
    let mut app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let account = app.client().open_with_balance(100).await;
    assert_eq!(first_break(&app.log().await), None, "a chain of one event");
    let (client, peer_client) = (app.client(), peer.client());
    app.run_as_one_batch(join_all((0..8).map(|_| client.deposit(account, 1)))).await;
    for _ in 0..3 {
        peer_client.transfer(account, peer_client.open_with_balance(0).await, 1).await.expect(201);
        client.withdraw(account, 1).await.expect(201);
    }
    app.restart().await;
    app.client().deposit(account, 1).await.expect(201);
    peer_client.close(account).await.expect_problem(422, "balance_not_zero");
    assert_eq!(audit(&app).await.head.position, 1 + 9 + 3 * 4 + 1);
}

#[tokio::test]
async fn a_verification_longer_than_a_request_is_continued() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(100).await;
    for amount in 1..=6 {
        app.client().deposit(account, amount).await.expect(201);
    }
    app.wait_until_projected().await;
    let database = Database::open(&app.config().database()).await.unwrap();
    let limits = VerificationLimits { request: std::time::Duration::ZERO, slice_events: 3 };
    let verifier = Audit::new(database.queries(), app.partitions()).with_verification_limits(limits);
    for verified in [3, 6] {
        match verifier.verify_account(account).await {
            Err(Error::VerificationUnfinished { events }) => assert_eq!(events, verified),
            other => panic!("{other:?}"),
        }
    }
    let verification = verifier.verify_account(account).await.unwrap().unwrap();
    assert_eq!((verification.verified, verification.events), (true, 7));
    // A finding in a later slice is found, too.
    app.tamper("UPDATE event SET data = '{\"amount\":900}' WHERE position = 5").await;
    assert!(matches!(verifier.verify_account(account).await, Err(Error::VerificationUnfinished { events: 3 })));
    let verification = verifier.verify_account(account).await.unwrap().unwrap();
    assert!(!verification.verified, "{verification:?}");
    assert!(verifier.verify_account(Uuid::from_u128(404)).await.unwrap().is_none());
    database.close().await;
}

#[tokio::test]
async fn changed_removed_and_truncated_events_break_the_chain() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(100).await;
    for amount in 1..=4 {
        app.client().deposit(account, amount).await.expect(201);
    }
    save(&app).await;
    for (sabotage, found) in [
        (r#"UPDATE event SET data = '{"amount":900}' WHERE position = 3"#, 3),
        ("UPDATE event SET recorded_at = recorded_at - interval '1 day' WHERE position = 1", 1),
        ("UPDATE event SET hash = sha256('forged') WHERE position = 2", 2),
        ("DELETE FROM event WHERE position = 2", 3),
        ("DELETE FROM event WHERE position = 5", 5),
        (
            "UPDATE event SET position = 9 WHERE position = 4;
             UPDATE event SET position = 4 WHERE position = 5;
             UPDATE event SET position = 5 WHERE position = 9",
            4,
        ),
    ] {
        assert_eq!(first_break(&app.log().await), None);
        app.tamper(sabotage).await;
        assert_eq!(first_break(&app.log().await), Some(found), "{sabotage}");
        restore(&app).await;
    }
}

#[tokio::test]
async fn hash_covers_every_column_of_an_event() {
    let app = spawn_app().await;
    app.client().open_with_balance(100).await;
    let columns: Vec<String> = query_scalar(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = 'event' ORDER BY ordinal_position",
    )
    .fetch_all(&mut app.database().await)
    .await
    .unwrap();
    type Change = fn(&mut Event);
    let changes: [(&str, Change); 10] = [
        ("partition", |event| event.partition += 1),
        ("position", |event| event.position += 1),
        ("id", |event| event.id = Uuid::from_u128(17)),
        ("stream_id", |event| event.stream_id = Uuid::from_u128(17)),
        ("version", |event| event.version += 1),
        ("type", |event| event.event_type.push('s')),
        ("schema_version", |event| event.schema_version += 1),
        // The hash covers the stored bytes, white space included.
        ("data", |event| event.data.push(' ')),
        ("metadata", |event| event.metadata.push(' ')),
        ("recorded_at", |event| event.recorded_at += Duration::microseconds(1)),
    ];
    let covered: Vec<&str> = changes.iter().map(|(column, _)| *column).chain(["hash"]).collect();
    assert_eq!(covered, columns);

    let written = app.log().await.events;
    for (column, change) in changes {
        let mut events = app.log().await.events;
        assert_eq!(events, written);
        change(&mut events[0]);
        assert_ne!(expected_hashes(&events)[0], written[0].hash, "{column}");
    }
}

#[tokio::test]
async fn each_batch_has_one_time_later_than_the_previous() {
    let app = spawn_app().await;
    let peer = app.spawn_peer().await;
    let (client, peer_client) = (app.client(), peer.client());
    let (account, other) = (client.open_with_balance(100).await, peer_client.open_with_balance(0).await);
    app.run_as_one_batch(join_all((0..8).map(|_| client.transfer(account, other, 1)))).await;
    for _ in 0..20 {
        tokio::join!(client.deposit(account, 1), peer_client.deposit(other, 1));
    }
    let log = audit(&app).await;
    let batches: Vec<&[Event]> = log.events.chunk_by(|one, next| one.recorded_at == next.recorded_at).collect();
    assert!(batches.is_sorted_by(|one, next| one[0].recorded_at < next[0].recorded_at));
    let times: BTreeSet<DateTime<Utc>> = log.events.iter().map(|event| event.recorded_at).collect();
    assert_eq!(times.len(), batches.len(), "no two batches have the same time");
    assert!(batches.iter().any(|batch| batch.len() > 2), "concurrent transfers are in one batch");
    for sent in log.events.iter().filter(|event| event.event_type == "TransferSent") {
        let is_other = |event: &&Event| {
            event.event_type == "TransferReceived" && event.json()["transfer_id"] == sent.json()["transfer_id"]
        };
        let received = log.events.iter().find(is_other).unwrap();
        assert_eq!(sent.recorded_at, received.recorded_at, "both sides of a transfer have the same time");
    }
}

#[tokio::test]
async fn batch_time_is_later_than_a_head_time_in_the_future() {
    let mut app = spawn_app().await;
    let peer = app.spawn_peer().await;
    let account = peer.client().open_with_balance(100).await;
    app.sabotage("UPDATE log_head SET recorded_at = recorded_at + interval '1 hour'").await;
    let future = app.log().await.head.recorded_at;
    app.restart().await;
    let first = app.client().deposit(account, 1).await.expect(201);
    // The peer's cached head still has the earlier time.
    peer.client().deposit(account, 1).await.expect(201);
    app.client().deposit(account, 1).await.expect(201);
    let log = audit(&app).await;
    let times: Vec<_> = log.events[1..].iter().map(|event| event.recorded_at).collect();
    assert_eq!(times, [1, 2, 3].map(|step| future + Duration::microseconds(step)));
    assert_eq!(first.body["events"][0]["recorded_at"], passbook_event_store::timestamp::format(&times[0]));
    assert_eq!(log.head.recorded_at, times[2]);
}

/// An instance whose cache contains events that a restored backup has removed from the log.
struct RestoredBackup {
    app: App,
    /// The balance is 100 in the restored log and another value in the cache.
    account: Uuid,
    /// The balance is 0.
    other: Uuid,
}

impl RestoredBackup {
    async fn after(lost_commands: impl AsyncFn(&ApiClient, Uuid)) -> Self {
        let app = spawn_app_in_one_partition().await;
        let client = app.client();
        let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
        save(&app).await;
        lost_commands(&client, account).await;
        assert_eq!(audit(&app).await.head.position, 3);
        restore(&app).await;
        assert_eq!(app.log().await.head.position, 2);
        Self { app, account, other }
    }

    /// Sends commands through a peer that has an empty cache.
    async fn continue_by_peer(&self, commands: impl AsyncFn(&ApiClient)) {
        let peer = self.app.spawn_peer().await;
        commands(&peer.client()).await;
    }
}

#[tokio::test]
async fn cached_balance_is_not_paid_out_after_a_restore() {
    let restored =
        RestoredBackup::after(async |client, account| drop(client.deposit(account, 400).await.expect(201))).await;
    restored.continue_by_peer(async |client| drop(client.withdraw(restored.account, 60).await.expect(201))).await;
    // The position equals the cached one; only the hash differs.
    let refused = restored.app.client().withdraw(restored.account, 500).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 40);
    assert_eq!(audit(&restored.app).await.head.position, 3);
}

#[tokio::test]
async fn cached_balance_causes_no_refusal_after_a_restore() {
    let restored =
        RestoredBackup::after(async |client, account| drop(client.withdraw(account, 100).await.expect(201))).await;
    restored.continue_by_peer(async |client| drop(client.deposit(restored.other, 1).await.expect(201))).await;
    let dry = restored.app.client().dry_run().withdraw(restored.account, 30).await.expect(200);
    assert_eq!(dry.body["balance"], 70);
    assert_eq!(restored.app.client().withdraw(restored.account, 100).await.expect(201).body["balance"], 0);
    assert_eq!(audit(&restored.app).await.head.position, 4);
}

#[tokio::test]
async fn restored_log_that_has_grown_invalidates_the_cache() {
    let restored =
        RestoredBackup::after(async |client, account| drop(client.deposit(account, 400).await.expect(201))).await;
    restored
        .continue_by_peer(async |client| {
            client.withdraw(restored.account, 60).await.expect(201);
            client.deposit(restored.other, 1).await.expect(201);
        })
        .await;
    // The only event after the cached position is of another account.
    restored.app.client().deposit(restored.other, 1).await.expect(201);
    let refused = restored.app.client().withdraw(restored.account, 500).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 40);
    audit(&restored.app).await;
}

#[tokio::test]
async fn restored_shorter_log_invalidates_the_cache() {
    let restored =
        RestoredBackup::after(async |client, account| drop(client.deposit(account, 400).await.expect(201))).await;
    let refused = restored.app.client().withdraw(restored.account, 500).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 100);
    let paid = restored.app.client().withdraw(restored.account, 100).await.expect(201);
    assert_eq!((&paid.body["version"], paid.position()), (&json!(2), "3"));
    audit(&restored.app).await;
}

#[tokio::test]
async fn projector_reloads_its_state_after_a_restore() {
    let (app, proxy) = spawn_app_behind_proxy(&[]).await;
    let account = app.client().open_with_balance(100).await;
    save(&app).await;
    app.client().deposit(account, 400).await.expect(201);
    audit(&app).await;
    let old_connection = proxy.newest_connection("passbook projector").await;
    restore(&app).await;
    eventually("the end of the projector's connection", async || old_connection.is_closed().then_some(())).await;
    // While this projector is blocked, the peer's projector moves the views to the position that this one has cached.
    let projector = proxy.newest_connection("passbook projector").await;
    projector.set_flow(Flow::Hold, Flow::Hold);
    let mut peer = app.spawn_peer().await;
    peer.client().withdraw(account, 60).await.expect(201);
    peer.stop().await;
    audit(&app).await;
    projector.set_flow(Flow::Pass, Flow::Pass);
    app.client().deposit(account, 1).await.expect(201);
    audit(&app).await;
}

/// Copies all tables.
async fn save(app: &App) {
    app.sabotage(
        "BEGIN ISOLATION LEVEL REPEATABLE READ;
         CREATE SCHEMA saved;
         CREATE TABLE saved.projection AS TABLE projection;
         CREATE TABLE saved.event AS TABLE event;
         CREATE TABLE saved.account_view AS TABLE account_view;
         CREATE TABLE saved.account_transaction AS TABLE account_transaction;
         CREATE TABLE saved.daily_balance AS TABLE daily_balance;
         CREATE TABLE saved.bank_total AS TABLE bank_total;
         CREATE TABLE saved.ledger_total AS TABLE ledger_total;
         CREATE TABLE saved.log_head AS TABLE log_head;
         CREATE TABLE saved.idempotency_key AS TABLE idempotency_key;
         CREATE TABLE saved.snapshot AS TABLE snapshot;
         COMMIT",
    )
    .await;
}

/// Restores the copies while instances run. The executors keep their connections; the projectors lose theirs, as in a
/// failover.
async fn restore(app: &App) {
    app.tamper(
        "BEGIN;
         TRUNCATE projection, event, account_view, account_transaction, reversed_movement, account_hold, held_total, daily_balance,
         bank_total, ledger_total, log_head, idempotency_key, snapshot;
         INSERT INTO projection TABLE saved.projection;
         INSERT INTO event TABLE saved.event;
         INSERT INTO account_view TABLE saved.account_view;
         INSERT INTO account_transaction TABLE saved.account_transaction;
         INSERT INTO daily_balance TABLE saved.daily_balance;
         INSERT INTO bank_total TABLE saved.bank_total;
         INSERT INTO ledger_total TABLE saved.ledger_total;
         INSERT INTO log_head TABLE saved.log_head;
         INSERT INTO idempotency_key TABLE saved.idempotency_key;
         INSERT INTO snapshot TABLE saved.snapshot;
         SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'passbook projector';
         COMMIT",
    )
    .await;
}
