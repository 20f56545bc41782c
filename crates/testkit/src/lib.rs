//! The helpers of the integration tests. Every test runs against a real Postgres, over HTTP or with the real binary.
//!
//! A test of the API starts an [`App`] in its own process, on a database of its own. A test of the binary runs it as a
//! process ([`process`]) with its data in a temporary folder ([`folder`]).
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

pub mod api_client;
pub mod app;
pub mod audit;
pub mod auth_app;
pub mod books_audit;
pub mod cluster;
pub mod config;
pub mod contract;
pub mod endpoint;
pub mod fault_proxy;
pub mod feed_subscriber;
pub mod folder;
pub mod given_server;
pub mod hold_audit;
pub mod line_exchange;
pub mod log;
mod migrated_folder;
pub mod nats;
pub mod own_server;
pub mod partition_view;
pub mod pgbouncer;
pub mod ports;
pub mod position_tracker;
pub mod postgres_server;
pub mod process;
pub mod response;
pub mod rng;
pub mod service_client;
pub mod tls;
pub mod tokens;

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{net::TcpSocket, runtime::Handle, task::block_in_place};

pub use api_client::ApiClient;
pub use app::{
    App, spawn_app, spawn_app_behind_proxy, spawn_app_from_dump, spawn_app_in_one_partition,
    spawn_app_in_one_partition_behind_proxy, spawn_app_in_one_partition_with, spawn_app_with,
};
pub use auth_app::{AuthApp, spawn_auth_app, spawn_auth_app_with};
pub use feed_subscriber::{FeedEvent, FeedSubscriber};
pub use line_exchange::LineExchange;
pub use response::Response;
pub use rng::Rng;

/// How long a test waits for something that must happen. It is long, so that a slow machine fails no test.
pub const WAIT_S_MAX: u64 = 120;

/// How long a test waits between two checks of a condition.
const POLL_MS: u64 = 10;
/// The same on a given server, in the end. A check often connects anew, which costs a cluster a process on each node.
const POLL_MS_MAX: u64 = 200;

/// Polls `check` until it returns a value. Panics after [`WAIT_S_MAX`]; `what` completes the message.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    let poll_ms_max = given_server::given_url().map_or(POLL_MS, |_| POLL_MS_MAX);
    let mut poll_ms = POLL_MS;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {WAIT_S_MAX} s waiting for {what}");
        tokio::time::sleep(Duration::from_millis(poll_ms)).await;
        poll_ms = (poll_ms * 3 / 2).min(poll_ms_max);
    }
}

/// A builder of HTTP clients that connect without a proxy, with the crypto provider of the service.
pub fn http_client() -> reqwest::ClientBuilder {
    passbook_auth::install_crypto_provider();
    reqwest::Client::builder().no_proxy()
}

/// Connects to `server` from this local address. Linux accepts every address in 127.0.0.0/8. Needs a runtime of several threads.
pub fn connect_from(source: Ipv4Addr, server: &str) -> TcpStream {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((source, 0)))?;
        socket.connect(server.parse().unwrap()).await?.into_std()
    };
    let stream = block_in_place(|| Handle::current().block_on(connect)).unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// The root folder of the repository.
pub fn repository_root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}
