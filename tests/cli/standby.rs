//! A second Postgres that follows the first: what it answers, and what becomes of the bank when it takes over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{client::Client, folder::Folder, passbook::Passbook, postgres_server::PostgresServer};

const PATIENCE_S_MAX: u64 = 60;
const LOOK_MS: u64 = 2;
/// How many write while the primary dies.
const WRITERS: usize = 20;
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
        sleep(Duration::from_millis(LOOK_MS)).await;
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
    let primary = PostgresServer::start(&folder).await;
    let mut replica = primary.standby(&folder).await;
    let bank = Passbook::with_database(&primary.url()).set("PASSBOOK_READ_DATABASE_URL", replica.url()).start();
    let client = &bank.client;
    client.open_account().await;
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

    // Far behind, it is not asked any more, though nothing else happens.
    until("a replica that is far behind", || is_near(0.0)).await;
    assert_eq!(balance(client, "").await, sum + 1);
    replica.execute("SELECT pg_wal_replay_resume()", "passbook").await;
    until("a replica that is near again", || is_near(1.0)).await;

    // Nor when it knows of another history, however near that is.
    replica.promote();
    replica.execute("UPDATE log_head SET hash = sha256('another')", "passbook").await;
    until("a replica that is not trusted", || is_near(0.0)).await;

    // Nor when it is away.
    replica.kill();
    let last = deposit(client, "last").await.unwrap();
    let all = balance(client, &position(&last)).await;
    until("an answer without the replica", async || (balance(client, "").await == all).then_some(())).await;
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[tokio::test]
async fn a_primary_that_was_put_back_is_not_asked_any_more_though_it_answers() {
    let folder = Folder::empty();
    let primary = PostgresServer::start(&folder).await;
    let standby = primary.standby(&folder).await;
    let bank = Passbook::with_database(&format!("{},{}", primary.url(), standby.url())).start();
    bank.client.open_account().await;
    let first = deposit(&bank.client, "first").await.unwrap();
    let shown = async |receipt: &Value| {
        let path = format!("{ACCOUNT}?min_position={}", receipt["position"].as_str().unwrap());
        bank.client.get(&path).await.status().is_success().then_some(())
    };
    until("the first deposit", || shown(&first)).await;
    until("the standby", async || {
        let has_it = standby.query_bool("SELECT position = 2 FROM log_head").await;
        has_it.then_some(())
    })
    .await;

    standby.promote();
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on", "postgres").await;
    primary.execute("SELECT pg_reload_conf()", "postgres").await;
    until("the old one put back", async || {
        let is_read_only = primary.query_bool("SELECT current_setting('transaction_read_only')::boolean").await;
        is_read_only.then_some(())
    })
    .await;
    let second = until("a deposit at the new one", async || deposit(&bank.client, "second").await).await;
    until("the second deposit", || shown(&second)).await;
    for _ in 0..50 {
        assert_eq!(balance(&bank.client, "").await, 2);
    }
    // Whoever only looks for work looks at the new one, too.
    let asked = bank.client.post("/v1/projections/accounts/rebuild", "rebuild", &json!({})).await.unwrap();
    assert_eq!(asked.status(), 202);
    until("the next generation", async || {
        let told: Value = bank.client.get("/v1/projections").await.json().await.ok()?;
        let is_live = |view: &Value| view["name"] == "accounts" && view["generation"] == 2 && view["state"] == "live";
        told["data"].as_array()?.iter().any(is_live).then_some(())
    })
    .await;
}

/// Prints for how long nothing was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_primary_dies_under_load_the_bank_goes_on_at_the_standby_and_nothing_acknowledged_is_lost() {
    let folder = Folder::empty();
    let mut primary = PostgresServer::start(&folder).await;
    let standby = primary.standby(&folder).await;
    primary.require_synchronous_standby().await;
    // The standby stands first in the list, and is passed over as long as it takes no writes.
    let urls = format!("{},{}", standby.url(), primary.url());
    let bank = Passbook::with_database(&urls).start();
    bank.client.open_account().await;

    let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, is_over, written) = (bank.client.clone(), Arc::clone(&is_over), Arc::clone(&written));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let key = format!("writer-{writer}-{}", acknowledged.len());
                // Whatever is answered: the same again, until it is said to be done.
                let receipt = loop {
                    if let Some(receipt) = deposit(&client, &key).await {
                        break receipt;
                    }
                    sleep(Duration::from_millis(LOOK_MS)).await;
                };
                written.fetch_add(1, Ordering::Relaxed);
                acknowledged.push((Instant::now(), receipt));
            }
            acknowledged
        });
    }
    let more = async |count: usize| {
        let enough = written.load(Ordering::Relaxed) + count;
        until("further deposits", async || (written.load(Ordering::Relaxed) >= enough).then_some(())).await;
    };
    more(500).await;
    let killed_at = Instant::now();
    primary.kill();
    standby.promote();
    let promoted = killed_at.elapsed();
    more(500).await;
    is_over.store(true, Ordering::Relaxed);
    let mut acknowledged: Vec<(Instant, Value)> = writers.join_all().await.into_iter().flatten().collect();
    acknowledged.sort_unstable_by_key(|(at, _)| *at);
    let gaps = acknowledged.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let after = acknowledged.iter().filter(|(at, _)| *at > killed_at).count();
    let longest = gaps.max().unwrap();
    println!("{after} deposits after the kill; promoted after {promoted:?}; nothing was written for {longest:?}");

    let version = |receipt: &Value| receipt["version"].as_i64().unwrap();
    let last = acknowledged.iter().map(|(_, receipt)| receipt).max_by_key(|receipt| version(receipt)).unwrap();
    let position = last["position"].as_str().unwrap();
    until("the view", async || {
        let answer = bank.client.get(&format!("{ACCOUNT}?min_position={position}")).await;
        answer.status().is_success().then_some(())
    })
    .await;
    assert_eq!(balance(&bank.client, "").await, acknowledged.len() as i64, "each once");
    for (_, receipt) in &acknowledged {
        let path = format!("{ACCOUNT}/events?after_version={}&limit=1", version(receipt) - 1);
        let events: Value = bank.client.get(&path).await.json().await.unwrap();
        assert_eq!(events["data"][0]["id"], receipt["events"][0]["id"], "{receipt}");
    }
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
    let verified = Passbook::with_database(&urls).argument("verify").wait_for_exit();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}
