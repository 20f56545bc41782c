//! One client that takes as much as it gets: others are still served.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use super::{harness::AbuseHarness, unread_responses::long_history};

/// The address of the greedy client. The honest client and the second one have others.
const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// More statements than the budget of 256 MiB has reservations of 512 KiB.
const UNREAD_STATEMENTS: usize = 600;
/// The limit of file descriptors, and more connections than the service then accepts.
const DESCRIPTORS: &str = "600";
const HALF_SENT: usize = 400;
const MEMORY_MIB_MAX: u64 = 450;

/// The status line of the response to a request on a new connection.
fn status_line(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line).unwrap();
    String::from_utf8(status_line.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_statements_of_one_address_leave_room_for_others() {
    let harness = AbuseHarness::start().await;
    let account = long_history(&harness).await;
    let statement = format!(
        "GET {account}/statement?from=2020-01-01&to=2100-01-01 HTTP/1.1\r\nhost: localhost\r\naccept: text/csv\r\n\r\n"
    );
    let unread: Vec<TcpStream> =
        (0..UNREAD_STATEMENTS).map(|_| AbuseHarness::leave_unread(harness.connect_from(GREEDY), &statement)).collect();
    assert_eq!(status_line(harness.connect_from(SECOND), &statement), "HTTP/1.1 200");
    drop(unread);
    harness.finish(MEMORY_MIB_MAX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_of_one_address_leave_room_for_others() {
    let harness = AbuseHarness::start_with(|service| service.with_descriptor_limit(DESCRIPTORS)).await;
    let mut half_sent = Vec::new();
    for _ in 0..HALF_SENT {
        let mut stream = harness.connect_from(GREEDY);
        // The service closes connections beyond its limit.
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nx-slow: ");
        half_sent.push(stream);
    }
    let probe = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(status_line(harness.connect_from(SECOND), probe), "HTTP/1.1 200");
    drop(half_sent);
    harness.finish(MEMORY_MIB_MAX).await;
}
