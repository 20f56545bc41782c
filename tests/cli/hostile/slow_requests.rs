//! Requests that arrive byte by byte and never complete.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use tokio::time::sleep;

use super::harness::{AbuseHarness, connections};

/// The service buffers up to 64 KiB of incomplete headers per connection: 31 MiB for 500 connections, 156 MiB for 2 500.
const MEMORY_MIB_MAX: u64 = 500;
/// Incomplete headers, close to the limit per connection.
const UNFINISHED_BYTES: usize = 60_000;
const BYTE_EVERY_MS: u64 = 500;
/// The number of single bytes. Sending them takes longer than the timeouts for headers and bodies.
const BYTES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_complete_time_out_and_do_no_harm() {
    let quarter = connections() / 4;
    let harness = AbuseHarness::start().await;
    let send_all = |bytes: &str| -> Vec<TcpStream> { (0..quarter).map(|_| harness.send(bytes)).collect() };
    let mut slow = send_all("GET /livez HTTP/1.1\r\nx-slow: ");
    let body = "POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{";
    let bodies = send_all(body);
    let chunks = send_all(&body.replace("content-length: 999\r\n\r\n", "transfer-encoding: chunked\r\n\r\n1;"));
    let large_headers = send_all(&format!("GET /livez HTTP/1.1\r\nx-fat: {}", "a".repeat(UNFINISHED_BYTES)));
    slow.extend(bodies.iter().chain(&chunks).map(|stream| stream.try_clone().unwrap()));
    for _ in 0..BYTES {
        // Ignore errors: the service may have closed the connection.
        slow.iter_mut().for_each(|stream| drop(stream.write(b"a")));
        sleep(Duration::from_millis(BYTE_EVERY_MS)).await;
    }
    harness.connections_released().await;
    for mut stream in bodies {
        let mut status_line = [0; 12];
        // Unread bytes of the request can make the kernel reset the connection before the response arrives.
        if stream.read_exact(&mut status_line).is_ok() {
            assert_eq!(&status_line, b"HTTP/1.1 408");
        }
    }
    drop((slow, chunks, large_headers));
    harness.finish(MEMORY_MIB_MAX).await;
}
