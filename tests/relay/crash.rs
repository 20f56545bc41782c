//! Relays and NATS servers are killed at random while clients write: the stream misses no event, and holds no duplicate.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::stream::Config;
use passbook_testkit::{Rng, service_client::Client};
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::{
    nats::{Nats, SERVERS},
    testbed::{Testbed, kill, stop},
};

/// The number of concurrent writers.
const WRITERS: usize = 16;

fn setting(name: &str) -> Option<u64> {
    let text = env::var(format!("PASSBOOK_RELAY_{name}")).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("PASSBOOK_RELAY_{name} has an invalid value: {text}")))
}

fn rng() -> Rng {
    let seed = setting("SEED").unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1 % 1_000_000);
    println!("PASSBOOK_RELAY_SEED={seed}");
    Rng::new(seed)
}

fn rounds() -> u64 {
    setting("ROUNDS").unwrap_or(8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_matches_the_log_after_relay_and_server_crashes() {
    let mut rng = rng();
    let mut testbed = Testbed::new().await;
    // With a short window the server's deduplication cannot hide a duplicate of the relay.
    testbed.nats.create_stream(Config { duplicate_window: Duration::from_millis(200), ..Config::default() }).await;
    let workload = DepositWorkload::start(&testbed.client());
    let mut relays = vec![testbed.start_relay().await];
    for round in 0..rounds() {
        sleep(rng.millis(0, 700)).await;
        match rng.below(4) {
            0 => kill(relays.remove(0)).await,
            1 => testbed.nats.restart(),
            2 => {
                testbed.nats.kill();
                kill(relays.remove(0)).await;
                sleep(rng.millis(0, 500)).await;
                testbed.nats.restart();
            }
            // A second relay starts, then the first one is killed.
            _ => {
                relays.push(testbed.start_relay().await);
                sleep(rng.millis(0, 500)).await;
                kill(relays.remove(0)).await;
            }
        }
        if relays.is_empty() {
            relays.push(testbed.start_relay().await);
        }
        println!("round {round}: {:?} of {}", testbed.nats.last_sequence().await, testbed.head().await);
    }
    let written = workload.stop().await;
    testbed.wait_until_published().await;
    assert_eq!(testbed.head().await, written + 1, "all deposits and the opening must be in the log");
    testbed.assert_streams_match_log().await;
    for relay in relays {
        stop(relay).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_matches_the_log_after_crashes_in_a_cluster() {
    let mut rng = rng();
    let mut testbed = Testbed::with(Nats::cluster().await).await;
    testbed.nats.create_stream(Config { num_replicas: SERVERS, ..Config::default() }).await;
    let workload = DepositWorkload::start(&testbed.client());
    let mut relay = testbed.start_relay().await;
    for round in 0..rounds().div_ceil(2) {
        sleep(rng.millis(0, 1_500)).await;
        let server = usize::try_from(rng.below(SERVERS as u64)).unwrap();
        testbed.nats.kill_one(server);
        if rng.below(4) == 0 {
            kill(relay).await;
            relay = testbed.start_relay().await;
        }
        sleep(rng.millis(0, 3_000)).await;
        testbed.nats.restart_one(server);
        println!(
            "round {round}: server {server}, {:?} of {}",
            testbed.nats.last_sequence().await,
            testbed.head().await
        );
    }
    let written = workload.stop().await;
    testbed.wait_until_published().await;
    assert_eq!(testbed.head().await, written + 1, "all deposits and the opening must be in the log");
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

/// Concurrent writers that deposit without a pause.
struct DepositWorkload {
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writers: JoinSet<()>,
}

impl DepositWorkload {
    fn start(client: &Client) -> Self {
        let mut workload = Self { is_over: Arc::default(), written: Arc::default(), writers: JoinSet::new() };
        for writer in 0..WRITERS {
            let (client, is_over, written) = (client.clone(), workload.is_over.clone(), workload.written.clone());
            workload.writers.spawn(async move {
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    client.deposit_ok(&format!("writer-{writer}-{number}")).await;
                    written.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            });
        }
        workload
    }

    /// Stops the writers. Returns the number of deposits.
    async fn stop(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        self.written.load(Ordering::Relaxed)
    }
}
