//! Shared by the API tests: the Postgres cluster, the app under test, HTTP clients by role, and direct reads of the
//! log.

pub mod app;
pub mod audit;
pub mod auth_app;
pub mod bulk_events;
pub mod client;
pub mod cluster;
pub mod feed_subscriber;
pub mod log;
pub mod oidc_provider;
pub mod partition_view;
pub mod position_tracker;
pub mod proxy;
pub mod random_history;
pub mod response;
pub mod tokens;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub use app::{
    App, spawn_app, spawn_app_behind_proxy, spawn_app_from_dump, spawn_app_in_one_partition,
    spawn_app_in_one_partition_behind_proxy, spawn_app_in_one_partition_with, spawn_app_with,
};
pub use auth_app::{AuthApp, spawn_auth_app, spawn_auth_app_with};
pub use client::ApiClient;
pub use feed_subscriber::{FeedEvent, FeedSubscriber};
pub use response::Response;

/// How long a test waits for something that must happen. It is long, so that a slow machine fails no test.
pub const WAIT_S_MAX: u64 = 120;

/// Polls `check` every 10 ms until it returns a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A random number generator (xorshift) that yields the same numbers in every run.
pub struct Rng(u64);

impl Rng {
    /// A generator with a sequence of its own for each `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
