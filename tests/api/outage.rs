//! When the database is away, frozen, or has answered and was not heard: whatever happens on the way, a command is
//! carried out once or not at all, and the server goes on by itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection, query_scalar};
use uuid::Uuid;

use crate::support::{
    App, Response,
    audit::audit,
    eventually,
    proxy::{
        Flow::{Discard, Hold, Pass},
        Proxy, ProxyConnection,
    },
    spawn_app_in_one_partition, spawn_app_in_one_partition_behind_proxy,
};

/// A server behind a proxy, an account with 100, and the connection on which the server writes.
async fn scene(flags: &[&str]) -> (App, Proxy, Uuid, ProxyConnection) {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(flags).await;
    let account = app.client().open_with_balance(100).await;
    let writer = proxy.newest_connection("passbook writer").await;
    (app, proxy, account, writer)
}

/// Makes the next batch, and some after it, pass behind the lock.
async fn lead_the_slow_way(app: &App) {
    app.sabotage("UPDATE log_head SET fence = fence + 1").await;
}

async fn recorded(app: &App, position: i64) {
    eventually("the record", async || (app.log().await.head.position == position).then_some(())).await;
}

/// Waits for the request from which on the flow is another one.
async fn turned(writer: &ProxyConnection) {
    eventually("the request", async || (!writer.awaits_trigger()).then_some(())).await;
}

async fn fence(app: &App) -> i64 {
    query_scalar("SELECT fence FROM log_head").fetch_one(&mut app.database().await).await.unwrap()
}

/// The command was carried out once, and the response is that of what stands in the log.
async fn assert_once(app: &App, response: Response, account: Uuid) {
    let log = audit(app).await;
    assert_eq!(log.event_payloads(account).len(), 2);
    assert_eq!(response.expect(201).uuid("/events/0/id"), log.events[1].id);
}

#[tokio::test]
async fn an_append_that_stands_is_answered_although_its_answer_was_lost() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    writer.set_flow(Pass, Discard);
    let client = app.client();
    let cut = async {
        recorded(&app, 2).await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.withdraw(account, 1), cut);
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 0);
}

#[tokio::test]
async fn a_commit_that_stands_is_answered_although_its_answer_was_lost() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    lead_the_slow_way(&app).await;
    writer.set_flow_from("COMMIT", Pass, Discard);
    let client = app.client();
    let cut = async {
        recorded(&app, 2).await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.withdraw(account, 1), cut);
    assert!(!writer.awaits_trigger(), "it went the slow way");
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 1, "as the sabotage left it");
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_made_up_for() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    lead_the_slow_way(&app).await;
    writer.set_flow_from("COMMIT", Discard, Pass);
    let client = app.client();
    let cut = async {
        turned(&writer).await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.withdraw(account, 1), cut);
    assert_once(&app, response, account).await;
}

#[tokio::test]
async fn a_writer_killed_at_the_turnstile_carries_its_batch_out_all_the_same() {
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
    assert_eq!(fence(&app).await, 1, "nobody knew whether the call that was killed would still be heard");
}

#[tokio::test]
async fn an_append_taken_for_lost_can_never_succeed_later() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    writer.set_flow(Hold, Pass);
    let client = app.client();
    let lose = async {
        eventually("the append", async || writer.is_holding_request().then_some(())).await;
        // So that nothing but the fence stands between the lost call and the log.
        app.sabotage("ALTER TABLE event ADD CONSTRAINT nothing_more CHECK (position < 2)").await;
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.deposit(account, 1), lose);
    response.expect_problem(500, "internal_error");
    app.sabotage("ALTER TABLE event DROP CONSTRAINT nothing_more").await;
    let before = app.log().await;
    writer.set_flow(Pass, Pass);
    eventually("the arrival of the lost call", async || writer.is_closed().then_some(())).await;
    assert_eq!(app.log().await, before);
    assert_eq!(client.deposit(account, 1).await.expect(201).body["balance"], 101);
    audit(&app).await;
}

#[tokio::test]
async fn a_retry_after_an_unknown_outcome_is_carried_out_once() {
    for (requests, stands) in [(Pass, true), (Discard, false)] {
        let (app, proxy, account, writer) = scene(&["--command-timeout-ms=2000"]).await;
        let client = app.client().with_key("one");
        writer.set_flow_from("MoneyWithdrawn", requests, Discard);
        let part = async {
            turned(&writer).await;
            recorded(&app, if stands { 2 } else { 1 }).await;
            proxy.disconnect();
        };
        let (response, ()) = tokio::join!(client.withdraw(account, 100), part);
        response.expect_problem(503, "outcome_unknown");
        assert_eq!(app.log().await.keys == 1, stands);
        proxy.reconnect();
        let again = client.withdraw(account, 100).await.expect(201);
        assert!(again.is_replay() || !stands);
        assert_once(&app, again, account).await;
    }
}

/// Eighty transfers of eight clients are ten batches at the least, and each may be followed by a cut.
const CUTS_MIN: usize = 3;

#[tokio::test]
async fn connections_cut_again_and_again_cost_no_command_and_double_none() {
    let (app, proxy, account, _) = scene(&[]).await;
    let other = app.client().open_with_balance(0).await;
    let (mut cuts, mut database) = (0, app.database().await);
    let cutting = async {
        // Each in the midst of the work: something was done since the one before.
        let mut done: i64 = 0;
        loop {
            let head: i64 = query_scalar("SELECT position FROM log_head").fetch_one(&mut database).await.unwrap();
            if head > std::mem::replace(&mut done, head) {
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
async fn while_the_database_is_away_nothing_is_done_and_then_it_goes_on() {
    let (app, proxy, account, _) = scene(&[]).await;
    let client = app.client();
    audit(&app).await;
    proxy.disconnect();
    let before = app.log().await;
    let started = Instant::now();
    let keyed = client.with_key("one");
    let away = join_all([keyed.withdraw(account, 100), keyed.withdraw(account, 100), client.withdraw(account, 101)]);
    let (opened, away) = tokio::join!(client.open(json!({"currency": "EUR"})), away);
    for response in away.into_iter().chain([opened]) {
        response.expect_problem(503, "storage_unavailable");
    }
    client.dry_run().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
    assert!(started.elapsed() < Duration::from_secs(10), "nobody waits in vain: {:?}", started.elapsed());
    assert_eq!(app.log().await, before);
    proxy.reconnect();
    let paid = keyed.withdraw(account, 100).await.expect(201);
    assert!(!paid.is_replay());
    client.get_account(account, paid.position()).await.expect(200);
    assert_once(&app, paid, account).await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_during_an_append_is_given_up() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    writer.set_flow(Discard, Discard);
    let response = app.client().withdraw(account, 1).await;
    assert_once(&app, response, account).await;
    assert_eq!(fence(&app).await, 1);
}

#[tokio::test]
async fn a_database_that_freezes_is_noticed_whatever_it_was_asked() {
    let (app, proxy, account, _) = scene(&[]).await;
    let client = app.client();
    let (held, unknown) = (account, Uuid::from_u128(404));
    for account in [held, unknown] {
        let started = Instant::now();
        proxy.freeze();
        client.dry_run().deposit(account, 1).await.expect_problem(503, "storage_unavailable");
        assert!(started.elapsed() < Duration::from_secs(9), "before anybody's patience ends: {:?}", started.elapsed());
        // The connections that stood still are of no use to anybody.
        proxy.connections().iter().for_each(ProxyConnection::cut);
        proxy.thaw();
        client.deposit(held, 1).await.expect(201);
    }
    audit(&app).await;
}

#[tokio::test]
async fn a_server_that_froze_inside_the_turnstile_holds_nobody_up() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    let peer = app.spawn_peer().await;
    lead_the_slow_way(&app).await;
    writer.set_flow_from("COMMIT", Hold, Pass);
    let client = app.client();
    let others = async {
        eventually("the commit", async || writer.is_holding_request().then_some(())).await;
        let there = peer.client().with_key("there");
        eventually("a way past", async || (there.deposit(account, 1).await.status == 201).then_some(())).await;
        writer.set_flow(Pass, Pass);
    };
    let (here, ()) = tokio::join!(client.deposit(account, 1), others);
    here.expect(201);
    assert_eq!(audit(&app).await.event_payloads(account).len(), 3);
}
