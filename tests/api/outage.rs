//! An unreachable or frozen database, and lost requests and responses: a command is executed once or not at all, and
//! the instance recovers by itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use passbook_testkit::{
    App, Response,
    audit::audit,
    eventually,
    fault_proxy::{
        FaultProxy,
        Flow::{Discard, Hold, Pass},
        ProxyConnection,
    },
    spawn_app, spawn_app_in_one_partition, spawn_app_in_one_partition_behind_proxy,
};
use serde_json::json;
use sqlx::{Connection, query_scalar};
use uuid::Uuid;

/// An app behind a proxy, an account with 100, and the executor's connection.
async fn spawn_with_account(flags: &[&str]) -> (App, FaultProxy, Uuid, ProxyConnection) {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(flags).await;
    let account = app.client().open_with_balance(100).await;
    let writer = proxy.newest_connection("passbook writer").await;
    (app, proxy, account, writer)
}

/// Raises the fence, so that the next batches take the locked append path.
async fn force_locked_path(app: &App) {
    app.sabotage("UPDATE log_head SET fence = fence + 1").await;
}

async fn wait_for_head(app: &App, position: i64) {
    eventually("the log head at this position", async || (app.log().await.head.position == position).then_some(()))
        .await;
}

/// Waits until the proxy has seen the request that changes the flow.
async fn wait_for_trigger(writer: &ProxyConnection) {
    eventually("the triggering request", async || (!writer.is_rule_pending()).then_some(())).await;
}

async fn fence(app: &App) -> i64 {
    query_scalar("SELECT fence FROM log_head").fetch_one(&mut app.database().await).await.unwrap()
}

/// Asserts that the command was executed once and that the response is about the recorded event.
async fn assert_once(app: &App, response: Response, account: Uuid) {
    let log = audit(app).await;
    assert_eq!(log.event_payloads(account).len(), 2);
    assert_eq!(response.expect(201).uuid("/events/0/id"), log.events[1].id);
}

#[tokio::test]
async fn committed_append_is_answered_after_a_lost_response() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    writer.set_flow(Pass, Discard);
    let client = app.client();
    let cut = async {
        wait_for_head(&app, 2).await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.withdraw(account, 1), cut);
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 0);
}

#[tokio::test]
async fn recorded_refusal_is_answered_after_a_lost_response() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    writer.set_flow(Pass, Discard);
    let keyed = app.client().with_key("one");
    let cut = async {
        eventually("the recorded key", async || (app.log().await.keys == 1).then_some(())).await;
        writer.cut();
    };
    let (refused, ()) = tokio::join!(keyed.withdraw(account, 101), cut);
    let refused = refused.expect_problem(422, "insufficient_funds");
    assert!(!refused.is_replay(), "the command was not executed twice");
    assert_eq!(fence(&app).await, 0);
    assert!(keyed.withdraw(account, 101).await.expect_problem(422, "insufficient_funds").is_replay());
    audit(&app).await;
}

#[tokio::test]
async fn commit_is_answered_after_a_lost_response() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    force_locked_path(&app).await;
    writer.set_flow_from("COMMIT", Pass, Discard);
    let client = app.client();
    let cut = async {
        wait_for_head(&app, 2).await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.withdraw(account, 1), cut);
    assert!(!writer.is_rule_pending(), "the batch took the locked path");
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 1, "the fence was not raised again");
}

#[tokio::test]
async fn lost_commit_request_is_retried() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    force_locked_path(&app).await;
    writer.set_flow_from("COMMIT", Discard, Pass);
    let client = app.client();
    let cut = async {
        wait_for_trigger(&writer).await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.withdraw(account, 1), cut);
    assert_once(&app, response, account).await;
}

#[tokio::test]
async fn batch_is_retried_after_its_waiting_backend_is_killed() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(100).await;
    let log_head_lock = app.lock_log_heads().await;
    let kill = async {
        app.wait_for_blocked_writer().await;
        app.sabotage(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'passbook writer'",
        )
        .await;
        app.wait_for_blocked_writer().await;
        log_head_lock.close().await.unwrap();
    };
    let client = app.client();
    let (response, ()) = tokio::join!(client.withdraw(account, 1), kill);
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 1, "the outcome of the killed call was unknown, so the fence was raised");
}

#[tokio::test]
async fn append_resolved_as_lost_can_never_commit_later() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    writer.set_flow(Hold, Pass);
    let client = app.client();
    let lose = async {
        eventually("the held append", async || writer.is_holding_request().then_some(())).await;
        // The constraint rejects the retry, so that only the fence keeps the held call from appending.
        app.sabotage("ALTER TABLE event ADD CONSTRAINT no_more_events CHECK (position < 2)").await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.deposit(account, 1), lose);
    response.expect_problem(500, "internal_error");
    app.sabotage("ALTER TABLE event DROP CONSTRAINT no_more_events").await;
    let before = app.log().await;
    writer.set_flow(Pass, Pass);
    eventually("the execution of the held call", async || writer.is_closed().then_some(())).await;
    assert_eq!(app.log().await, before);
    assert_eq!(client.deposit(account, 1).await.expect(201).body["balance"], 101);
    audit(&app).await;
}

#[tokio::test]
async fn retry_after_unknown_outcome_executes_once() {
    for (requests, is_committed) in [(Pass, true), (Discard, false)] {
        let (app, proxy, account, writer) = spawn_with_account(&["--command-timeout-ms=2000"]).await;
        let client = app.client().with_key("one");
        writer.set_flow_from("MoneyWithdrawn", requests, Discard);
        let disconnect = async {
            wait_for_trigger(&writer).await;
            wait_for_head(&app, if is_committed { 2 } else { 1 }).await;
            proxy.disconnect();
        };
        let (response, ()) = tokio::join!(client.withdraw(account, 100), disconnect);
        response.expect_problem(503, "outcome_unknown");
        assert_eq!(app.log().await.keys == 1, is_committed);
        proxy.reconnect();
        let again = client.withdraw(account, 100).await.expect(201);
        assert!(again.is_replay() || !is_committed);
        assert_once(&app, again, account).await;
    }
}

/// Eight clients send eighty transfers, which is at least ten batches; a cut may follow each of them.
const CUTS_MIN: usize = 3;

#[tokio::test]
async fn repeated_connection_loss_neither_loses_nor_doubles_commands() {
    let (app, proxy, account, _) = spawn_with_account(&[]).await;
    let other = app.client().open_with_balance(0).await;
    let (mut cuts, mut database) = (0, app.database().await);
    let cutting = async {
        // Cut only if events were appended since the previous cut.
        let mut last_head: i64 = 0;
        loop {
            let head: i64 = query_scalar("SELECT position FROM log_head").fetch_one(&mut database).await.unwrap();
            if head > std::mem::replace(&mut last_head, head) {
                proxy.connections().iter().for_each(ProxyConnection::cut);
                cuts += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let client = app.client();
    let clients = join_all((0..8).map(async |_| {
        for _ in 0..10 {
            client.transfer(account, other, 1).await.expect(201);
        }
    }));
    tokio::select! {
        () = cutting => {}
        _ = clients => {}
    }
    database.close().await.unwrap();
    assert!(cuts >= CUTS_MIN, "{cuts} cuts");
    let log = audit(&app).await;
    assert_eq!((log.event_payloads(account).len(), log.event_payloads(other).len()), (81, 81));
}

#[tokio::test]
async fn commands_get_503_during_an_outage_and_succeed_afterwards() {
    let (app, proxy, account, _) = spawn_with_account(&[]).await;
    let client = app.client();
    audit(&app).await;
    proxy.disconnect();
    let before = app.log().await;
    let started = Instant::now();
    let keyed = client.with_key("one");
    let withdrawals =
        join_all([keyed.withdraw(account, 100), keyed.withdraw(account, 100), client.withdraw(account, 101)]);
    let (opened, withdrawals) = tokio::join!(client.open(json!({"currency": "EUR"})), withdrawals);
    for response in withdrawals.into_iter().chain([opened]) {
        response.expect_problem(503, "storage_unavailable");
    }
    client.dry_run().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "commands are refused before their timeout: {:?}",
        started.elapsed()
    );
    assert_eq!(app.log().await, before);
    proxy.reconnect();
    let paid = keyed.withdraw(account, 100).await.expect(201);
    assert!(!paid.is_replay());
    client.get_account(account, paid.position()).await.expect(200);
    assert_once(&app, paid, account).await;
}

#[tokio::test]
async fn silent_connection_is_abandoned_and_the_append_is_retried() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    writer.set_flow(Discard, Discard);
    let response = app.client().withdraw(account, 1).await;
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 1);
}

#[tokio::test]
async fn frozen_database_is_detected_by_every_statement() {
    let (app, proxy, account, _) = spawn_with_account(&[]).await;
    let client = app.client();
    let (cached, unknown) = (account, Uuid::from_u128(404));
    for account in [cached, unknown] {
        let started = Instant::now();
        proxy.freeze();
        client.dry_run().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
        assert!(
            started.elapsed() < Duration::from_secs(9),
            "refused before the command timeout: {:?}",
            started.elapsed()
        );
        // The instance has abandoned the frozen connections.
        proxy.connections().iter().for_each(ProxyConnection::cut);
        proxy.thaw();
        client.deposit(cached, 1).await.expect(201);
    }
    audit(&app).await;
}

#[tokio::test]
async fn instance_frozen_with_the_log_head_lock_does_not_block_others() {
    let (app, _proxy, account, writer) = spawn_with_account(&[]).await;
    let peer = app.spawn_peer().await;
    force_locked_path(&app).await;
    writer.set_flow_from("COMMIT", Hold, Pass);
    let client = app.client();
    let peer_commands = async {
        eventually("the held commit", async || writer.is_holding_request().then_some(())).await;
        let peer_client = peer.client().with_key("peer");
        eventually("a deposit by the peer", async || {
            (peer_client.deposit(account, 1).await.status == 201).then_some(())
        })
        .await;
        writer.set_flow(Pass, Pass);
    };
    let (response, ()) = tokio::join!(client.deposit(account, 1), peer_commands);
    response.expect(201);
    assert_eq!(audit(&app).await.event_payloads(account).len(), 3);
}

#[tokio::test]
async fn reads_of_an_account_outlive_terminated_connections() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(5).await;
    client.get_account(account, "1").await.expect(200);
    let path = format!("/v1/accounts/{account}");
    for _ in 0..10 {
        // The loader of accounts keeps its connection for a while after a read.
        client.get(&path).await.expect(200);
        app.sabotage(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'passbook queries'",
        )
        .await;
        for seen in join_all((0..8).map(|_| client.get(&path))).await {
            assert_eq!(seen.expect(200).body["balance"], 5);
        }
    }
}
