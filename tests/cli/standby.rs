//! A second Postgres that follows the first: what it answers, and what becomes of the bank when it takes over.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{client::Client, folder::Folder, passbook::Passbook, servers::Server};

const PATIENCE_S_MAX: u64 = 60;
const LOOK_MS: u64 = 2;
/// In how many of them it is measured how old a replica is.
const STALENESS_DEPOSITS: i64 = 100;
const ACCOUNT: &str = "/v1/accounts/01900000-0000-7000-8000-0000000000aa";

async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S_MAX);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

async fn metric(client: &Client, line: &str) -> f64 {
    let text = client.get("/metrics").await.text().await.unwrap();
    text.lines().find_map(|told| told.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
}

async fn deposit(client: &Client, key: &str) -> Option<Value> {
    let answer = client.post(&format!("{ACCOUNT}/deposits"), key, &json!({"amount": 1})).await.ok()?;
    (answer.status() == 201).then_some(answer.json().await.ok()?)
}

async fn balance(client: &Client, query: &str) -> i64 {
    let view: Value = client.get(&format!("{ACCOUNT}{query}")).await.error_for_status().unwrap().json().await.unwrap();
    view["balance"].as_i64().unwrap()
}

#[tokio::test]
async fn a_replica_answers_queries_while_it_is_there_and_near_and_nobody_misses_a_position() {
    let folder = Folder::empty();
    let primary = Server::start(&folder).await;
    let mut replica = primary.standby(&folder).await;
    let bank = Passbook::using(&primary.url()).set("PASSBOOK_READ_DATABASE_URL", replica.url()).start();
    let client = &bank.client;
    client.open().await;
    let is_near = async |wanted: f64| (metric(client, "passbook_replica_near").await == wanted).then_some(());
    until("a replica that is near", || is_near(1.0)).await;
    until("the account", async || client.get(ACCOUNT).await.status().is_success().then_some(())).await;

    // What was written is read, wherever it is read.
    let first = deposit(client, "one").await.unwrap();
    let position = |receipt: &Value| format!("?min_position={}", receipt["position"].as_str().unwrap());
    assert_eq!(balance(client, &position(&first)).await, 1);
    until("the deposit at the replica", async || (balance(client, "").await == 1).then_some(())).await;

    let mut staleness = Vec::new();
    for deposits in 2..=STALENESS_DEPOSITS {
        deposit(client, &deposits.to_string()).await.unwrap();
        let answered = Instant::now();
        until("the deposit at the replica", async || (balance(client, "").await == deposits).then_some(())).await;
        staleness.push(answered.elapsed());
    }
    staleness.sort_unstable();
    let of = |part: usize| staleness[(staleness.len() - 1) * part / 100];
    println!("after the answer a deposit shows at the replica within {:?} (median), {:?} (99 of 100)", of(50), of(99));
    let sum = STALENESS_DEPOSITS;

    // A replica that stands still shows that it is the one who is asked, and keeps nobody from what they wrote.
    replica.execute("SELECT pg_wal_replay_pause()", "passbook").await;
    let second = deposit(client, "two").await.unwrap();
    assert_eq!(balance(client, "").await, sum);
    let fallbacks = async || metric(client, "passbook_replica_fallbacks_total{reason=\"position\"}").await;
    let before = fallbacks().await;
    assert_eq!(balance(client, &position(&second)).await, sum + 1);
    assert_eq!(fallbacks().await, before + 1.0, "a question falls back once");

    // Far behind, it is not asked any more.
    until("a replica that is far behind", async || {
        deposit(client, &uuid::Uuid::now_v7().to_string()).await.unwrap();
        is_near(0.0).await
    })
    .await;
    assert!(balance(client, "").await > sum + 1);
    replica.execute("SELECT pg_wal_replay_resume()", "passbook").await;
    until("a replica that is near again", || is_near(1.0)).await;

    // Nor when it is away.
    replica.kill();
    let last = deposit(client, "last").await.unwrap();
    let all = balance(client, &position(&last)).await;
    until("an answer without the replica", async || (balance(client, "").await == all).then_some(())).await;
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
}

/// Prints how long it took until something was written again.
#[tokio::test]
async fn when_the_primary_dies_the_bank_goes_on_at_the_standby_and_nothing_acknowledged_is_lost() {
    let folder = Folder::empty();
    let mut primary = Server::start(&folder).await;
    let standby = primary.standby(&folder).await;
    primary.waits_for_standby().await;
    // The standby stands first in the list, and is passed over as long as it takes no writes.
    let urls = format!("{},{}", standby.url(), primary.url());
    let bank = Passbook::using(&urls).start();
    bank.client.open().await;
    let mut acknowledged = Vec::new();
    let mut keys = 0..;
    for key in keys.by_ref().take(200) {
        acknowledged.extend(deposit(&bank.client, &format!("key-{key}")).await);
    }
    assert_eq!(acknowledged.len(), 200);

    primary.kill();
    let unanswered = format!("key-{}", keys.next().unwrap());
    assert!(deposit(&bank.client, &unanswered).await.is_none(), "nobody takes writes");
    let promoting = Instant::now();
    standby.promote();
    let first = until("a write at the standby", async || deposit(&bank.client, &unanswered).await).await;
    eprintln!("{:.2} s from the order to promote to the first write", promoting.elapsed().as_secs_f64());
    acknowledged.push(first);
    for key in keys.take(100) {
        acknowledged.push(deposit(&bank.client, &format!("key-{key}")).await.expect("the bank goes on"));
    }
    let last = acknowledged.last().unwrap()["position"].as_str().unwrap();
    until("the view", async || {
        let answer = bank.client.get(&format!("{ACCOUNT}?min_position={last}")).await;
        answer.status().is_success().then_some(())
    })
    .await;
    assert_eq!(balance(&bank.client, "").await, acknowledged.len() as i64);
    for receipt in &acknowledged {
        let version = receipt["version"].as_i64().unwrap();
        let path = format!("{ACCOUNT}/events?after_version={}&limit=1", version - 1);
        let events: Value = bank.client.get(&path).await.json().await.unwrap();
        assert_eq!(events["data"][0]["id"], receipt["events"][0]["id"], "{receipt}");
    }
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
    let verified = Passbook::using(&urls).argument("verify").end();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}
