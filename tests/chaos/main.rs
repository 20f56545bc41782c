//! Fault injection against the real binary. Under every fault these guarantees must hold: an acknowledged command is
//! recorded exactly once, a rejected command is not recorded, retries of any other command converge to a definite outcome,
//! and no view skips an event or counts it twice.
//!
//! `cargo test` injects each kind of fault once. `make chaos` runs many rounds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod balancer;
#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod client;
mod clock;
mod command;
mod degraded;
mod disk;
mod fault;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod folder;
mod instance;
mod invariants;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the command-line tests")]
mod passbook;
mod pg_protocol;
mod postgres;
mod probe;
mod proxy;
mod report;
mod rng;
mod rounds;
mod settings;
#[allow(dead_code, reason = "shared with the API tests")]
mod support;
mod testbed;
mod upgrade;
mod workload;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use settings::Settings;
use testbed::Testbed;

/// How long [`eventually`] waits before the test fails. Long enough that a slow machine fails no test.
const EVENTUALLY_S_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantees_hold_for_an_instance_with_embedded_postgres() {
    rounds::run(
        "embedded Postgres",
        Testbed::with_embedded_postgres().await,
        fault::EMBEDDED_DATABASE_FAULTS,
        Settings::read(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantees_hold_for_instances_that_share_a_postgres() {
    rounds::run(
        "shared Postgres",
        Testbed::with_shared_postgres().await,
        fault::SHARED_DATABASE_FAULTS,
        Settings::read(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantees_hold_for_instances_behind_a_load_balancer() {
    rounds::run(
        "load balancer",
        Testbed::behind_balancer(Arc::default()).await,
        fault::BALANCED_FAULTS,
        Settings::read(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_loses_no_request() {
    upgrade::run(Settings::read()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_projector_takes_no_instance_out_of_the_load_balancer() {
    degraded::run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantees_hold_for_an_instance_whose_disk_is_full() {
    rounds::run("small disk", Testbed::with_small_disk().await, fault::DISK_FAULTS, Settings::read()).await;
}

/// Polls `probe` until it returns a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, probe: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(EVENTUALLY_S_MAX);
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {EVENTUALLY_S_MAX} s waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
