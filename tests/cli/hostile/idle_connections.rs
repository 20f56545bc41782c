//! Connections that are only there.

use std::io::Read;

use super::harness::{AbuseHarness, connections};

/// What the service needs for itself, and what 10 000 connections take: some 15 KiB each.
const MEMORY_MIB_MAX: u64 = 300;

const QUESTION: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_that_say_nothing_are_held_and_let_go() {
    let crowd = connections();
    let harness = AbuseHarness::start().await;
    // Every other one has asked something once.
    let mut held = Vec::with_capacity(crowd);
    for number in 0..crowd {
        held.push(if number % 2 == 0 { harness.connect() } else { harness.send(QUESTION) });
    }
    harness.connections_released().await;
    for (number, mut stream) in held.into_iter().enumerate() {
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        assert_eq!(told.starts_with("HTTP/1.1 200 "), number % 2 == 1, "{told}");
    }
    harness.finish(MEMORY_MIB_MAX).await;
}
