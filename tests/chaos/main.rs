//! Fault injection against the real binary. These guarantees must hold under every fault. An acknowledged command is recorded
//! exactly once, and a rejected command is not recorded. Retries of any other command converge to a definite outcome. No view
//! skips an event or counts it twice.
//!
//! `cargo test` injects each kind of fault once. `make chaos` runs many rounds.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod account_views;
mod accounts;
mod balancer;
mod batch_client;
mod books;
mod client;
mod clock;
mod command;
mod degraded;
mod disk;
mod fault;
mod instance;
mod invariants;
mod late_attempt;
mod patroni;
mod postgres;
mod probe;
mod report;
mod rounds;
mod settings;
mod testbed;
mod unfinished_request;
mod upgrade;
mod workload;

use std::sync::Arc;

use settings::Settings;
use testbed::Testbed;

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
async fn guarantees_hold_for_instances_with_a_patroni_cluster() {
    patroni::run(Settings::read()).await;
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
