//! The promise, put to the test: what was answered with success is recorded exactly once and for ever, what was refused
//! is not, everything else converges, and no view skips or counts twice, whatever dies, stands still or is lost on its
//! way. `make chaos` runs the long form; as a test among others each kind of fault happens once.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod balancer;
mod books;
#[path = "../cli/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod client;
mod clock;
mod command;
mod crowd;
mod degraded;
mod dice;
mod disk;
mod fault;
#[path = "../cli/folder.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod folder;
mod instance;
#[path = "../cli/passbook.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod passbook;
mod postgres;
mod probe;
mod proxy;
mod rounds;
mod settings;
mod site;
#[allow(dead_code, reason = "shared with the tests of the API")]
mod support;
mod tally;
mod upgrade;
mod wire;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use settings::Settings;
use site::Site;

/// After so long a thing that must come is taken for lost. No test passes or fails by being fast or slow.
const PATIENCE_S_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_with_its_own_postgres_keeps_its_promise() {
    rounds::run("a bank of its own", Site::own().await, fault::OF_AN_OWN_DATABASE, Settings::read()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banks_that_share_a_postgres_keep_their_promise() {
    rounds::run("a shared database", Site::shared().await, fault::OF_A_SHARED_DATABASE, Settings::read()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banks_behind_a_load_balancer_keep_their_promise() {
    rounds::run("a load balancer", Site::balanced(Arc::default()).await, fault::OF_BALANCED_BANKS, Settings::read())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_one_bank_after_the_other_loses_no_request() {
    upgrade::run(Settings::read()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_stands_still_closes_no_bank_behind_the_load_balancer() {
    degraded::run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_whose_disk_is_full_keeps_its_promise() {
    rounds::run("a small disk", Site::own_on_a_small_disk().await, fault::OF_A_DISK, Settings::read()).await;
}

/// Looks until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S_MAX);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
