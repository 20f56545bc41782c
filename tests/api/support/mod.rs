//! What the tests stand on: a cluster, an app of one's own, clients by role, and the log as it is recorded.

pub mod answer;
pub mod app;
pub mod audit;
pub mod cluster;
pub mod follower;
pub mod guarded;
pub mod heard;
pub mod history;
pub mod home;
pub mod log;
pub mod many;
pub mod provider;
pub mod proxy;
pub mod teller;
pub mod tokens;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub use answer::Answer;
pub use app::{
    App, spawn_app, spawn_app_at_home, spawn_app_at_home_behind_proxy, spawn_app_at_home_with, spawn_app_behind_proxy,
    spawn_app_on, spawn_app_with,
};
pub use follower::{Follower, Told};
pub use guarded::{Guarded, spawn_guarded, spawn_guarded_with};
pub use teller::Teller;

/// After so long a thing that must come is taken for lost. No test passes or fails by being fast or slow.
pub const PATIENCE_S_MAX: u64 = 120;

/// Looks until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S_MAX);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Throws the same numbers on every run.
pub struct Dice(u64);

impl Dice {
    /// Dice of their own for each `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`.
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
