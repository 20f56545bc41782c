//! The hash chain and the time of batches: what was written stays as it was written, in the order in which it was, and
//! a history that was put back is not taken for the one that a server remembers.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::query_scalar;
use uuid::Uuid;

use crate::support::{
    App, ApiClient,
    audit::{audit, expected_hashes},
    eventually,
    log::{Event, Log},
    proxy::Flow,
    spawn_app, spawn_app_in_one_partition, spawn_app_behind_proxy,
};

/// The first position whose hash is not the one recomputed; for a log that was cut off, the head's.
fn first_break(log: &Log) -> Option<i64> {
    let hashes = expected_hashes(&log.events);
    let broken = log.events.iter().zip(&hashes).find(|(event, hash)| event.hash != **hash);
    let beheaded = hashes.last() != Some(&log.head.hash);
    broken.map(|(event, _)| event.position).or(beheaded.then_some(log.head.position))
}

#[tokio::test]
async fn every_event_from_the_first_on_is_linked_over_batches_restarts_and_servers() {
    let mut app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let account = app.client().open_with_balance(100).await;
    assert_eq!(first_break(&app.log().await), None, "one event makes a chain");
    let (here, there) = (app.client(), peer.client());
    app.run_as_one_batch(join_all((0..8).map(|_| here.deposit(account, 1)))).await;
    for _ in 0..3 {
        there.transfer(account, there.open_with_balance(0).await, 1).await.expect(201);
        here.withdraw(account, 1).await.expect(201);
    }
    app.restart().await;
    app.client().deposit(account, 1).await.expect(201);
    there.close(account).await.expect_problem(422, "balance_not_zero");
    assert_eq!(audit(&app).await.head.position, 1 + 9 + 3 * 4 + 1);
}

#[tokio::test]
async fn what_is_changed_removed_or_cut_off_is_found() {
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
        put_back(&app).await;
    }
}

#[tokio::test]
async fn the_chain_covers_every_column() {
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
        // White space, too: what is hashed are the bytes as they were written.
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
async fn a_batch_has_one_time_and_each_is_later_than_the_one_before() {
    let app = spawn_app().await;
    let peer = app.spawn_peer().await;
    let (here, there) = (app.client(), peer.client());
    let (account, other) = (here.open_with_balance(100).await, there.open_with_balance(0).await);
    app.run_as_one_batch(join_all((0..8).map(|_| here.transfer(account, other, 1)))).await;
    for _ in 0..20 {
        tokio::join!(here.deposit(account, 1), there.deposit(other, 1));
    }
    let log = audit(&app).await;
    let batches: Vec<&[Event]> = log.events.chunk_by(|one, next| one.recorded_at == next.recorded_at).collect();
    assert!(batches.is_sorted_by(|one, next| one[0].recorded_at < next[0].recorded_at));
    let times: BTreeSet<DateTime<Utc>> = log.events.iter().map(|event| event.recorded_at).collect();
    assert_eq!(times.len(), batches.len(), "no time comes twice");
    assert!(batches.iter().any(|batch| batch.len() > 2), "transfers that arrived together share a time");
    for sent in log.events.iter().filter(|event| event.event_type == "TransferSent") {
        let is_other = |event: &&Event| {
            event.event_type == "TransferReceived" && event.json()["transfer_id"] == sent.json()["transfer_id"]
        };
        let received = log.events.iter().find(is_other).unwrap();
        assert_eq!(sent.recorded_at, received.recorded_at, "both sides of a transfer share a time");
    }
}

#[tokio::test]
async fn a_batch_is_later_than_a_head_that_lies_in_the_future() {
    let mut app = spawn_app().await;
    let peer = app.spawn_peer().await;
    let account = peer.client().open_with_balance(100).await;
    app.sabotage("UPDATE log_head SET recorded_at = recorded_at + interval '1 hour'").await;
    let future = app.log().await.head.recorded_at;
    app.restart().await;
    let first = app.client().deposit(account, 1).await.expect(201);
    // The other server still remembers the head as it was.
    peer.client().deposit(account, 1).await.expect(201);
    app.client().deposit(account, 1).await.expect(201);
    let log = audit(&app).await;
    let times: Vec<_> = log.events[1..].iter().map(|event| event.recorded_at).collect();
    assert_eq!(times, [1, 2, 3].map(|step| future + Duration::microseconds(step)));
    assert_eq!(first.body["events"][0]["recorded_at"], passbook_event_store::timestamp::format(&times[0]));
    assert_eq!(log.head.recorded_at, times[2]);
}

/// A server that remembers what was done after the log was saved; then the log was put back.
struct Past {
    app: App,
    /// Holds 100 again. The server remembers something else.
    account: Uuid,
    /// Holds 0.
    other: Uuid,
}

impl Past {
    async fn after(forgotten: impl AsyncFn(&ApiClient, Uuid)) -> Self {
        let app = spawn_app_in_one_partition().await;
        let client = app.client();
        let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
        save(&app).await;
        forgotten(&client, account).await;
        assert_eq!(audit(&app).await.head.position, 3);
        put_back(&app).await;
        assert_eq!(app.log().await.head.position, 2);
        Self { app, account, other }
    }

    /// Another history, written by a server that knows no other.
    async fn goes_on(&self, differently: impl AsyncFn(&ApiClient)) {
        let another = self.app.spawn_peer().await;
        differently(&peer.client()).await;
    }
}

#[tokio::test]
async fn nothing_is_paid_out_of_a_balance_that_was_put_back() {
    let past = Past::after(async |client, account| drop(client.deposit(account, 400).await.expect(201))).await;
    past.goes_on(async |client| drop(client.withdraw(past.account, 60).await.expect(201))).await;
    // The position is the one that the server remembers, and only the hash tells.
    let refused = past.app.client().withdraw(past.account, 500).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 40);
    assert_eq!(audit(&past.app).await.head.position, 3);
}

#[tokio::test]
async fn no_refusal_stands_on_a_balance_that_was_put_back() {
    let past = Past::after(async |client, account| drop(client.withdraw(account, 100).await.expect(201))).await;
    past.goes_on(async |client| drop(client.deposit(past.other, 1).await.expect(201))).await;
    let dry = past.app.client().dry_run().withdraw(past.account, 30).await.expect(200);
    assert_eq!(dry.body["balance"], 70);
    assert_eq!(past.app.client().withdraw(past.account, 100).await.expect(201).body["balance"], 0);
    assert_eq!(audit(&past.app).await.head.position, 4);
}

#[tokio::test]
async fn a_history_put_back_and_gone_further_is_not_taken_for_a_continuation() {
    let past = Past::after(async |client, account| drop(client.deposit(account, 400).await.expect(201))).await;
    past.goes_on(async |client| {
        client.withdraw(past.account, 60).await.expect(201);
        client.deposit(past.other, 1).await.expect(201);
    })
    .await;
    // What comes after the position remembered names another account only.
    past.app.client().deposit(past.other, 1).await.expect(201);
    let refused = past.app.client().withdraw(past.account, 500).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 40);
    audit(&past.app).await;
}

#[tokio::test]
async fn a_shorter_history_is_not_taken_for_the_one_remembered() {
    let past = Past::after(async |client, account| drop(client.deposit(account, 400).await.expect(201))).await;
    let refused = past.app.client().withdraw(past.account, 500).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 100);
    let paid = past.app.client().withdraw(past.account, 100).await.expect(201);
    assert_eq!((&paid.body["version"], paid.position()), (&json!(2), "3"));
    audit(&past.app).await;
}

#[tokio::test]
async fn no_view_goes_on_from_rows_of_a_history_that_was_put_back() {
    let (app, proxy) = spawn_app_behind_proxy(&[]).await;
    let account = app.client().open_with_balance(100).await;
    save(&app).await;
    app.client().deposit(account, 400).await.expect(201);
    audit(&app).await;
    let broken = proxy.newest_connection("passbook projector").await;
    put_back(&app).await;
    eventually("the end of the connection", async || broken.is_closed().then_some(())).await;
    // While the projector stands still, somebody else's brings the views to the position that it remembers.
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

/// Copies all tables as they are.
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
         CREATE TABLE saved.log_head AS TABLE log_head;
         CREATE TABLE saved.idempotency_key AS TABLE idempotency_key;
         CREATE TABLE saved.snapshot AS TABLE snapshot;
         COMMIT",
    )
    .await;
}

/// Puts the copies back under the servers that run. Their writers notice nothing; their projectors lose their
/// connections, as after any failover.
async fn put_back(app: &App) {
    app.tamper(
        "BEGIN;
         TRUNCATE projection, event, account_view, account_transaction, daily_balance, bank_total, log_head, idempotency_key, snapshot;
         INSERT INTO projection TABLE saved.projection;
         INSERT INTO event TABLE saved.event;
         INSERT INTO account_view TABLE saved.account_view;
         INSERT INTO account_transaction TABLE saved.account_transaction;
         INSERT INTO daily_balance TABLE saved.daily_balance;
         INSERT INTO bank_total TABLE saved.bank_total;
         INSERT INTO log_head TABLE saved.log_head;
         INSERT INTO idempotency_key TABLE saved.idempotency_key;
         INSERT INTO snapshot TABLE saved.snapshot;
         SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'passbook projector';
         COMMIT",
    )
    .await;
}
