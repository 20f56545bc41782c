//! When the database is away, frozen, or has answered and was not heard: whatever happens on the way, a command is
//! carried out once or not at all, and the server goes on by itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection, query_scalar};
use uuid::Uuid;

use crate::support::{
    Answer, App,
    audit::audit,
    eventually,
    proxy::{
        Flow::{Hold, Lose, Pass},
        Link, Proxy,
    },
    spawn_app_at_home, spawn_app_at_home_behind_proxy,
};

/// A server behind a proxy, an account with 100, and the connection on which the server writes.
async fn scene(flags: &[&str]) -> (App, Proxy, Uuid, Link) {
    let (app, proxy) = spawn_app_at_home_behind_proxy(flags).await;
    let account = app.teller().account_with(100).await;
    let writer = proxy.link("passbook writer").await;
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
async fn turned(writer: &Link) {
    eventually("the request", async || (!writer.awaits_turn()).then_some(())).await;
}

async fn fence(app: &App) -> i64 {
    query_scalar("SELECT fence FROM log_head").fetch_one(&mut app.database().await).await.unwrap()
}

/// The command was carried out once, and the answer is that of what stands in the log.
async fn assert_once(app: &App, answer: Answer, account: Uuid) {
    let log = audit(app).await;
    assert_eq!(log.facts(account).len(), 2);
    assert_eq!(answer.expect(201).uuid("/events/0/id"), log.events[1].id);
}

#[tokio::test]
async fn an_append_that_stands_is_answered_although_its_answer_was_lost() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    writer.flow(Pass, Lose);
    let teller = app.teller();
    let cut = async {
        recorded(&app, 2).await;
        writer.cut();
    };
    let (answer, ()) = tokio::join!(teller.withdraw(account, 1), cut);
    assert_once(&app, answer, account).await;
    assert_eq!(fence(&app).await, 0);
}

#[tokio::test]
async fn a_commit_that_stands_is_answered_although_its_answer_was_lost() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    lead_the_slow_way(&app).await;
    writer.flow_from("COMMIT", Pass, Lose);
    let teller = app.teller();
    let cut = async {
        recorded(&app, 2).await;
        writer.cut();
    };
    let (answer, ()) = tokio::join!(teller.withdraw(account, 1), cut);
    assert!(!writer.awaits_turn(), "it went the slow way");
    assert_once(&app, answer, account).await;
    assert_eq!(fence(&app).await, 1, "as the sabotage left it");
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_made_up_for() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    lead_the_slow_way(&app).await;
    writer.flow_from("COMMIT", Lose, Pass);
    let teller = app.teller();
    let cut = async {
        turned(&writer).await;
        writer.cut();
    };
    let (answer, ()) = tokio::join!(teller.withdraw(account, 1), cut);
    assert_once(&app, answer, account).await;
}

#[tokio::test]
async fn a_writer_killed_at_the_turnstile_carries_its_batch_out_all_the_same() {
    let app = spawn_app_at_home().await;
    let account = app.teller().account_with(100).await;
    let turnstile = app.hold_turnstile().await;
    let kill = async {
        app.somebody_waits().await;
        app.sabotage(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'passbook writer'",
        )
        .await;
        app.somebody_waits().await;
        turnstile.close().await.unwrap();
    };
    let teller = app.teller();
    let (answer, ()) = tokio::join!(teller.withdraw(account, 1), kill);
    assert_once(&app, answer, account).await;
    assert_eq!(fence(&app).await, 1, "nobody knew whether the call that was killed would still be heard");
}

#[tokio::test]
async fn an_append_taken_for_lost_can_never_succeed_later() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    writer.flow(Hold, Pass);
    let teller = app.teller();
    let lose = async {
        eventually("the append", async || writer.holds_request().then_some(())).await;
        // So that nothing but the fence stands between the lost call and the log.
        app.sabotage("ALTER TABLE event ADD CONSTRAINT nothing_more CHECK (position < 2)").await;
        writer.cut();
    };
    let (answer, ()) = tokio::join!(teller.deposit(account, 1), lose);
    answer.refused(500, "internal_error");
    app.sabotage("ALTER TABLE event DROP CONSTRAINT nothing_more").await;
    let before = app.log().await;
    writer.flow(Pass, Pass);
    eventually("the arrival of the lost call", async || writer.is_over().then_some(())).await;
    assert_eq!(app.log().await, before);
    assert_eq!(teller.deposit(account, 1).await.expect(201).body["balance"], 101);
    audit(&app).await;
}

#[tokio::test]
async fn a_retry_after_an_unknown_outcome_is_carried_out_once() {
    for (requests, stands) in [(Pass, true), (Lose, false)] {
        let (app, proxy, account, writer) = scene(&["--command-timeout-ms=2000"]).await;
        let teller = app.teller().keyed("one");
        writer.flow_from("MoneyWithdrawn", requests, Lose);
        let part = async {
            turned(&writer).await;
            recorded(&app, if stands { 2 } else { 1 }).await;
            proxy.go_away();
        };
        let (answer, ()) = tokio::join!(teller.withdraw(account, 100), part);
        answer.refused(503, "outcome_unknown");
        assert_eq!(app.log().await.keys == 1, stands);
        proxy.come_back();
        let again = teller.withdraw(account, 100).await.expect(201);
        assert!(again.is_replay() || !stands);
        assert_once(&app, again, account).await;
    }
}

/// Eighty transfers of eight clients are ten batches at the least, and each may be followed by a cut.
const CUTS_MIN: usize = 3;

#[tokio::test]
async fn connections_cut_again_and_again_cost_no_command_and_double_none() {
    let (app, proxy, account, _) = scene(&[]).await;
    let other = app.teller().account_with(0).await;
    let (mut cuts, mut database) = (0, app.database().await);
    let cutting = async {
        // Each in the midst of the work: something was done since the one before.
        let mut done: i64 = 0;
        loop {
            let head: i64 = query_scalar("SELECT position FROM log_head").fetch_one(&mut database).await.unwrap();
            if head > std::mem::replace(&mut done, head) {
                proxy.links().iter().for_each(Link::cut);
                cuts += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let teller = app.teller();
    let clients = join_all((0..8).map(async |_| {
        for _ in 0..10 {
            teller.transfer(account, other, 1).await.expect(201);
        }
    }));
    tokio::select! {
        () = cutting => {}
        _ = clients => {}
    }
    database.close().await.unwrap();
    assert!(cuts >= CUTS_MIN, "{cuts} cuts");
    let log = audit(&app).await;
    assert_eq!((log.facts(account).len(), log.facts(other).len()), (81, 81));
}

#[tokio::test]
async fn while_the_database_is_away_nothing_is_done_and_then_it_goes_on() {
    let (app, proxy, account, _) = scene(&[]).await;
    let teller = app.teller();
    audit(&app).await;
    proxy.go_away();
    let before = app.log().await;
    let started = Instant::now();
    let keyed = teller.keyed("one");
    let away = join_all([keyed.withdraw(account, 100), keyed.withdraw(account, 100), teller.withdraw(account, 101)]);
    let (opened, away) = tokio::join!(teller.open(json!({"currency": "EUR"})), away);
    for answer in away.into_iter().chain([opened]) {
        answer.refused(503, "storage_unavailable");
    }
    teller.dry().deposit(account, 1).await.refused(503, "storage_unavailable");
    assert!(started.elapsed() < Duration::from_secs(10), "nobody waits in vain: {:?}", started.elapsed());
    assert_eq!(app.log().await, before);
    proxy.come_back();
    let paid = keyed.withdraw(account, 100).await.expect(201);
    assert!(!paid.is_replay());
    teller.account(account, paid.position()).await.expect(200);
    assert_once(&app, paid, account).await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_during_an_append_is_given_up() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    writer.flow(Lose, Lose);
    let answer = app.teller().withdraw(account, 1).await;
    assert_once(&app, answer, account).await;
    assert_eq!(fence(&app).await, 1);
}

#[tokio::test]
async fn a_database_that_freezes_is_noticed_whatever_it_was_asked() {
    let (app, proxy, account, _) = scene(&[]).await;
    let teller = app.teller();
    let (held, unknown) = (account, Uuid::from_u128(404));
    for account in [held, unknown] {
        let started = Instant::now();
        proxy.freeze();
        teller.dry().deposit(account, 1).await.refused(503, "storage_unavailable");
        assert!(started.elapsed() < Duration::from_secs(9), "before anybody's patience ends: {:?}", started.elapsed());
        // The connections that stood still are of no use to anybody.
        proxy.links().iter().for_each(Link::cut);
        proxy.thaw();
        teller.deposit(held, 1).await.expect(201);
    }
    audit(&app).await;
}

#[tokio::test]
async fn a_server_that_froze_inside_the_turnstile_holds_nobody_up() {
    let (app, _proxy, account, writer) = scene(&[]).await;
    let another = app.another().await;
    lead_the_slow_way(&app).await;
    writer.flow_from("COMMIT", Hold, Pass);
    let teller = app.teller();
    let others = async {
        eventually("the commit", async || writer.holds_request().then_some(())).await;
        let there = another.teller().keyed("there");
        eventually("a way past", async || (there.deposit(account, 1).await.status == 201).then_some(())).await;
        writer.flow(Pass, Pass);
    };
    let (here, ()) = tokio::join!(teller.deposit(account, 1), others);
    here.expect(201);
    assert_eq!(audit(&app).await.facts(account).len(), 3);
}
