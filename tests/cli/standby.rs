//! A standby: as a read replica, and as the new primary after a failover.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use passbook_testkit::{folder::Folder, postgres_server::PostgresServer, process::Passbook, service_client::Client};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

const WAIT_S_MAX: u64 = 60;
const POLL_MS: u64 = 2;
/// The number of concurrent writers while the primary is killed.
const WRITERS: usize = 20;
/// The number of deposits that measure the staleness of the replica.
const STALENESS_DEPOSITS: i64 = 100;
const ACCOUNT: &str = "/v1/accounts/01900000-0000-7000-8000-0000000000aa";

/// Polls `probe` until it returns a value.
async fn eventually<T>(what: &str, probe: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {WAIT_S_MAX} s waiting for {what}");
        sleep(Duration::from_millis(POLL_MS)).await;
    }
}

async fn metric(client: &Client, series: &str) -> f64 {
    let text = client.get("/metrics").await.text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0.0)
}

async fn deposit(client: &Client, key: &str) -> Option<Value> {
    let response = client.post(&format!("{ACCOUNT}/deposits"), key, &json!({"amount": 1})).await.ok()?;
    (response.status() == 201).then_some(response.json().await.ok()?)
}

async fn balance(client: &Client, query: &str) -> i64 {
    let view: Value = client.get(&format!("{ACCOUNT}{query}")).await.error_for_status().unwrap().json().await.unwrap();
    view["balance"].as_i64().unwrap()
}

#[tokio::test]
async fn a_near_replica_serves_queries_and_every_position_is_honoured() {
    let folder = Folder::empty();
    let primary = PostgresServer::start(&folder).await;
    let mut replica = primary.standby(&folder).await;
    let service = Passbook::with_database(&primary.url()).set("PASSBOOK_READ_DATABASE_URL", replica.url()).start();
    let client = &service.client;
    client.open_account().await;
    let is_near = async |wanted: f64| (metric(client, "passbook_replica_near").await == wanted).then_some(());
    eventually("a replica that is near", || is_near(1.0)).await;
    eventually("the account", async || client.get(ACCOUNT).await.status().is_success().then_some(())).await;

    // A query with min_position sees the deposit, at the replica or at the primary.
    let first = deposit(client, "one").await.unwrap();
    let position = |receipt: &Value| format!("?min_position={}", receipt["position"].as_str().unwrap());
    assert_eq!(balance(client, &position(&first)).await, 1);
    eventually("the deposit at the replica", async || (balance(client, "").await == 1).then_some(())).await;

    let mut staleness = Vec::new();
    for deposits in 2..=STALENESS_DEPOSITS {
        deposit(client, &deposits.to_string()).await.unwrap();
        let acknowledged_at = Instant::now();
        eventually("the deposit at the replica", async || (balance(client, "").await == deposits).then_some(())).await;
        staleness.push(acknowledged_at.elapsed());
    }
    staleness.sort_unstable();
    let percentile = |percent: usize| staleness[(staleness.len() - 1) * percent / 100];
    println!(
        "time from the response until the replica shows a deposit: {:?} (p50), {:?} (p99)",
        percentile(50),
        percentile(99)
    );
    let sum = STALENESS_DEPOSITS;

    // While replay is paused, a plain query returns the replica's old balance, and a query with min_position falls back to
    // the primary.
    replica.execute("SELECT pg_wal_replay_pause()", "passbook").await;
    let second = deposit(client, "two").await.unwrap();
    assert_eq!(balance(client, "").await, sum);
    let fallbacks = async || metric(client, "passbook_replica_fallbacks_total{reason=\"position\"}").await;
    let before = fallbacks().await;
    assert_eq!(balance(client, &position(&second)).await, sum + 1);
    assert_eq!(fallbacks().await, before + 1.0, "one query must count as one fallback");

    // Queries leave a replica that lags too far, even without further writes.
    eventually("a replica that is far behind", || is_near(0.0)).await;
    assert_eq!(balance(client, "").await, sum + 1);
    replica.execute("SELECT pg_wal_replay_resume()", "passbook").await;
    eventually("a replica that is near again", || is_near(1.0)).await;

    // Queries leave a replica with another history, even if it does not lag.
    replica.promote();
    replica.execute("UPDATE log_head SET hash = sha256('another')", "passbook").await;
    eventually("a replica that is not trusted", || is_near(0.0)).await;

    // Queries leave a replica that is down.
    replica.kill();
    let last = deposit(client, "last").await.unwrap();
    let all = balance(client, &position(&last)).await;
    eventually("a response without the replica", async || (balance(client, "").await == all).then_some(())).await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[tokio::test]
async fn a_primary_turned_read_only_gets_no_queries_after_a_failover() {
    let folder = Folder::empty();
    let primary = PostgresServer::start(&folder).await;
    let standby = primary.standby(&folder).await;
    let service = Passbook::with_database(&format!("{},{}", primary.url(), standby.url())).start();
    service.client.open_account().await;
    let first = deposit(&service.client, "first").await.unwrap();
    let shown = async |receipt: &Value| {
        let path = format!("{ACCOUNT}?min_position={}", receipt["position"].as_str().unwrap());
        service.client.get(&path).await.status().is_success().then_some(())
    };
    eventually("the first deposit", || shown(&first)).await;
    eventually("the standby", async || {
        let has_it = standby.query_bool("SELECT position = 2 FROM log_head").await;
        has_it.then_some(())
    })
    .await;

    standby.promote();
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on", "postgres").await;
    primary.execute("SELECT pg_reload_conf()", "postgres").await;
    eventually("the old primary to be read-only", async || {
        let is_read_only = primary.query_bool("SELECT current_setting('transaction_read_only')::boolean").await;
        is_read_only.then_some(())
    })
    .await;
    let second = eventually("a deposit at the new primary", async || deposit(&service.client, "second").await).await;
    eventually("the second deposit", || shown(&second)).await;
    for _ in 0..50 {
        assert_eq!(balance(&service.client, "").await, 2);
    }
    // The rebuilder, which only polls, must also use the new primary.
    let requested = service.client.post("/v1/projections/accounts/rebuild", "rebuild", &json!({})).await.unwrap();
    assert_eq!(requested.status(), 202);
    eventually("the next generation", async || {
        let projections: Value = service.client.get("/v1/projections").await.json().await.ok()?;
        let is_live = |view: &Value| view["name"] == "accounts" && view["generation"] == 2 && view["state"] == "live";
        projections["data"].as_array()?.iter().any(is_live).then_some(())
    })
    .await;
}

/// Prints how long no write succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_loses_no_acknowledged_deposit() {
    let folder = Folder::empty();
    let mut primary = PostgresServer::start(&folder).await;
    let standby = primary.standby(&folder).await;
    primary.require_synchronous_standby().await;
    // The standby is first in the list. The service skips it while it accepts no writes.
    let urls = format!("{},{}", standby.url(), primary.url());
    let service = Passbook::with_database(&urls).start();
    service.client.open_account().await;

    let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, is_over, written) = (service.client.clone(), Arc::clone(&is_over), Arc::clone(&written));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let key = format!("writer-{writer}-{}", acknowledged.len());
                // Retry under the same key until success, after any other response.
                let receipt = loop {
                    if let Some(receipt) = deposit(&client, &key).await {
                        break receipt;
                    }
                    sleep(Duration::from_millis(POLL_MS)).await;
                };
                written.fetch_add(1, Ordering::Relaxed);
                acknowledged.push((Instant::now(), receipt));
            }
            acknowledged
        });
    }
    let more = async |count: usize| {
        let enough = written.load(Ordering::Relaxed) + count;
        eventually("further deposits", async || (written.load(Ordering::Relaxed) >= enough).then_some(())).await;
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
    println!("{after} deposits after the kill; promotion took {promoted:?}; no write succeeded for {longest:?}");

    let version = |receipt: &Value| receipt["version"].as_i64().unwrap();
    let last = acknowledged.iter().map(|(_, receipt)| receipt).max_by_key(|receipt| version(receipt)).unwrap();
    let position = last["position"].as_str().unwrap();
    eventually("the view", async || {
        let response = service.client.get(&format!("{ACCOUNT}?min_position={position}")).await;
        response.status().is_success().then_some(())
    })
    .await;
    assert_eq!(balance(&service.client, "").await, acknowledged.len() as i64, "each deposit counts once");
    for (_, receipt) in &acknowledged {
        let path = format!("{ACCOUNT}/events?after_version={}&limit=1", version(receipt) - 1);
        let events: Value = service.client.get(&path).await.json().await.unwrap();
        assert_eq!(events["data"][0]["id"], receipt["events"][0]["id"], "{receipt}");
    }
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
    let verified = Passbook::with_database(&urls).argument("verify").wait_for_exit();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

#[tokio::test]
async fn a_fresh_process_trusts_no_commit_that_no_standby_has() {
    let folder = Folder::empty();
    let mut primary = PostgresServer::start(&folder).await;
    let mut standby = primary.standby(&folder).await;
    primary.require_synchronous_standby().await;
    let url = primary.url();
    let start = || Passbook::with_database(&url).set("PASSBOOK_COMMAND_TIMEOUT_MS", "2500").start();
    let first = start();
    first.client.open_account().await;
    deposit(&first.client, "one").await.unwrap();

    // The second deposit is committed on the primary alone. Recovery shows it.
    standby.crash();
    let unknown = first.client.post(&format!("{ACCOUNT}/deposits"), "two", &json!({"amount": 1})).await.unwrap();
    assert_eq!(unknown.json::<Value>().await.unwrap()["code"], "outcome_unknown");
    drop(first);
    primary.crash();
    primary.recover().await;
    assert!(primary.query_bool("SELECT position = 3 FROM log_head").await, "recovery shows the commit");

    let fresh = start();
    let client = &fresh.client;
    let dry_run = format!("{ACCOUNT}/deposits?dry_run=true");
    let withdrawal = json!({"amount": 3});
    for (path, body) in [
        (dry_run, json!({"amount": 1})),
        (format!("{ACCOUNT}/withdrawals?dry_run=true"), withdrawal),
        (format!("{ACCOUNT}/deposits"), json!({"amount": 1})),
    ] {
        let response = client.post(&path, "two", &body).await.unwrap();
        assert_eq!(response.status(), 503, "{path}: {}", response.text().await.unwrap());
    }
    // The projector, the pages and the feed had the time of three commands.
    let view: Value = client.get(ACCOUNT).await.json().await.unwrap();
    assert_eq!(view["version"], 2, "the view shows a deposit that no standby has");
    for path in [format!("{ACCOUNT}/events"), "/v1/events".to_owned()] {
        let page = client.get(&path).await.text().await.unwrap();
        assert!(!page.contains("\"version\":3"), "{path} shows a deposit that no standby has: {page}");
    }

    standby.recover().await;
    let replay = eventually("the replay", || deposit(client, "two")).await;
    assert_eq!((&replay["version"], &replay["balance"]), (&json!(3), &json!(2)));
    eventually("the view", async || (balance(client, "").await == 2).then_some(())).await;
}
