//! Many holds that are over in the same second, under load. Two instances record each expiry once, in small batches between the
//! other commands. `PASSBOOK_HOLD_EXPIRIES` sets the number of holds. The test reports how long the other commands took, and
//! asserts nothing about it.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use passbook_audit::verification;
use passbook_testkit::{ApiClient, App, audit::audit, eventually, log::Event, spawn_app};
use serde_json::json;
use sqlx::query_scalar;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The number of holds, unless `PASSBOOK_HOLD_EXPIRIES` sets it.
const HOLDS: usize = 2_000;
const HOLDS_PER_ACCOUNT: usize = 20;
const HOLD_AMOUNT: i64 = 10;
/// How many expiries a batch records.
const BATCH_EXPIRIES_MAX: usize = 500;
/// How many accounts are opened, and holds placed, at the same time.
const IN_FLIGHT: usize = 64;
/// The time of the load without expiries, in seconds.
const QUIET_S: i64 = 3;
/// The clients of the load at each instance.
const CLIENTS: usize = 4;

/// When a command was sent, and how long its response took.
type Latency = (DateTime<Utc>, Duration);

/// Clients that send deposits one after the other until they are stopped.
struct Load {
    is_stopped: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Latency>>>,
}

impl Load {
    async fn start(instances: &[&App]) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for client in instances.iter().flat_map(|app| (0..CLIENTS).map(|_| app.client())) {
            let account = client.open_with_balance(0).await;
            let is_stopped = Arc::clone(&is_stopped);
            clients.push(tokio::spawn(async move {
                let mut sent = Vec::new();
                while !is_stopped.load(Ordering::Relaxed) {
                    let (at, started) = (Utc::now(), Instant::now());
                    client.deposit(account, 1).await.expect(201);
                    sent.push((at, started.elapsed()));
                }
                sent
            }));
        }
        Self { is_stopped, clients }
    }

    /// The latencies of all deposits, with the moments at which they were sent.
    async fn stop(self) -> Vec<Latency> {
        self.is_stopped.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for client in self.clients {
            sent.extend(client.await.unwrap());
        }
        sent
    }
}

/// Prints how many deposits were sent in a period, and p50 and p99 of their latencies.
fn report(period: &str, sent: &[Latency], is_in: impl Fn(DateTime<Utc>) -> bool) {
    let mut took: Vec<_> = sent.iter().filter(|(at, _)| is_in(*at)).map(|(_, took)| took.as_secs_f64() * 1e3).collect();
    took.sort_unstable_by(f64::total_cmp);
    let share = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    println!("{period}: {} deposits, p50 {:.1} ms, p99 {:.1} ms", took.len(), share(50), share(99));
}

/// Places holds on each account that are over in the same second.
async fn place_holds(clients: &[ApiClient], accounts: &[Uuid], over_at: DateTime<Utc>) {
    let holds = accounts.iter().flat_map(|account| [*account; HOLDS_PER_ACCOUNT]).enumerate();
    let placing = holds.map(|(n, account)| async move {
        let expires_in_seconds = (over_at - Utc::now()).num_seconds().max(1);
        let body = json!({"amount": HOLD_AMOUNT, "expires_in_seconds": expires_in_seconds});
        clients[n % clients.len()].place_hold(account, body).await.expect(201);
    });
    stream::iter(placing).buffer_unordered(IN_FLIGHT).collect::<()>().await;
}

async fn count_expiries(app: &App) -> usize {
    let expiries = "SELECT count(*) FROM event WHERE type = 'HoldReleased' AND data->>'cause' = 'expired'";
    let expiries: i64 = query_scalar(expiries).fetch_one(&mut app.database().await).await.unwrap();
    usize::try_from(expiries).unwrap()
}

/// Waits until all expiries are recorded.
async fn wait_for_expiries(app: &App, holds: usize) {
    // A long form may take more than one of these waits. Each must bring it forward.
    let mut before = 0;
    while before < holds {
        before = eventually("the next recorded expiry", async || {
            let found = count_expiries(app).await;
            assert!(found <= holds, "{found} expiries of {holds} holds");
            tokio::time::sleep(Duration::from_millis(100)).await;
            (found > before).then_some(found)
        })
        .await;
    }
}

/// Checks the events of one partition: no batch has more expiries than allowed. Returns whether other commands are recorded between
/// them. The events of a batch have a time that no other batch of their partition has.
fn check_batches(events: &[&Event]) -> bool {
    let is_expiry =
        |event: &&Event| event.event_type == "HoldReleased" && event.metadata.contains("\"passbook:expiry\"");
    let batches: Vec<usize> = events
        .chunk_by(|one, next| one.recorded_at == next.recorded_at)
        .map(|batch| batch.iter().filter(|event| is_expiry(event)).count())
        .filter(|expiries| *expiries > 0)
        .collect();
    println!("{} batches have expiries: {batches:?}", batches.len());
    assert!(batches.iter().all(|expiries| *expiries <= BATCH_EXPIRIES_MAX), "expiries of each batch: {batches:?}");
    let expiries: usize = batches.iter().sum();
    match (events.iter().position(is_expiry), events.iter().rposition(is_expiry)) {
        (Some(first), Some(last)) => last - first + 1 > expiries,
        (None, _) | (_, None) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_holds_expire_in_small_batches_between_other_commands() {
    let holds = env::var("PASSBOOK_HOLD_EXPIRIES").map_or(HOLDS, |holds| holds.parse().unwrap());
    let holds = holds.next_multiple_of(HOLDS_PER_ACCOUNT);
    let app = spawn_app().await;
    let peer = app.spawn_peer().await;
    let clients = [app.client(), peer.client()];
    let balance = HOLD_AMOUNT * HOLDS_PER_ACCOUNT as i64;
    let opening = (0..holds / HOLDS_PER_ACCOUNT).map(|n| clients[n % 2].open_with_balance(balance));
    let accounts: Vec<Uuid> = stream::iter(opening).buffered(IN_FLIGHT).collect().await;
    // Some 1 000 holds are placed in a second. On a slower machine the last ones are over later, and the test is as valid.
    let over_at = Utc::now() + TimeDelta::seconds(QUIET_S + holds as i64 / 1_000);
    place_holds(&clients, &accounts, over_at).await;
    let placed_at = Utc::now();
    let load = Load::start(&[&app, &peer]).await;
    tokio::time::sleep((over_at - placed_at).to_std().unwrap_or_default()).await;
    wait_for_expiries(&app, holds).await;
    let recorded_at = Utc::now();
    tokio::time::sleep(Duration::from_secs(QUIET_S.unsigned_abs())).await;
    let sent = load.stop().await;

    report("before the expiries", &sent, |at| (placed_at..over_at).contains(&at));
    report("with the expiries  ", &sent, |at| (over_at..recorded_at).contains(&at));
    report("after the expiries ", &sent, |at| at >= recorded_at);
    println!("{holds} expiries were recorded in {} ms", (recorded_at - over_at).num_milliseconds());
    assert_eq!(count_expiries(&app).await, holds);
    let log = audit(&app).await;
    let mut has_others_between = false;
    for partition in app.partitions().all() {
        let events: Vec<_> = log.events.iter().filter(|event| event.partition == partition).collect();
        has_others_between |= check_batches(&events);
    }
    assert!(has_others_between, "no other command is recorded between the expiries");
    for (n, account) in accounts.iter().enumerate() {
        let decided = clients[n % 2].dry_run().withdraw(*account, 1).await.expect(200);
        let view = clients[n % 2].get_account(*account, decided.position()).await.expect(200).body;
        let money = ["balance", "held", "available"].map(|member| view[member].as_i64().unwrap());
        assert_eq!((money, &decided.body["available"]), ([balance, 0, balance], &json!(balance - 1)));
    }
    let path = format!("/v1/overview?min_position={}", app.latest_position());
    assert_eq!(clients[0].get(&path).await.expect(200).body["held"], json!({"EUR": "0"}));
    verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}
