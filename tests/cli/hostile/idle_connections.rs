//! Thousands of idle connections.

use std::io::Read;

use super::harness::{AbuseHarness, connections};

/// The service's own memory plus about 15 KiB for each of 10 000 connections.
const MEMORY_MIB_MAX: u64 = 300;

const REQUEST: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_are_accepted_and_closed() {
    let count = connections();
    let harness = AbuseHarness::start().await;
    // Every other connection sends one request.
    let mut open = Vec::with_capacity(count);
    for number in 0..count {
        open.push(if number % 2 == 0 { harness.connect() } else { harness.send(REQUEST) });
    }
    harness.connections_released().await;
    for (number, mut stream) in open.into_iter().enumerate() {
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert_eq!(response.starts_with("HTTP/1.1 200 "), number % 2 == 1, "{response}");
    }
    harness.finish(MEMORY_MIB_MAX).await;
}
