//! Requests that come byte by byte, or never whole.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use tokio::time::sleep;

use super::harness::{AbuseHarness, connections};

/// The headers of a request that is not whole are kept, 64 KiB a connection: of 500 (of 2 500) 31 MiB (156).
const MEMORY_MIB_MAX: u64 = 500;
/// Headers and no end, close to what one connection may keep.
const UNFINISHED_BYTES: usize = 60_000;
const BYTE_EVERY_MS: u64 = 500;
/// Longer than the service lets headers or a body take.
const BYTES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_come_whole_are_given_up_and_harm_nobody() {
    let quarter = connections() / 4;
    let harness = AbuseHarness::start().await;
    let crowd = |what: &str| -> Vec<TcpStream> { (0..quarter).map(|_| harness.send(what)).collect() };
    let mut dripping = crowd("GET /livez HTTP/1.1\r\nx-slow: ");
    let body = "POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{";
    let bodies = crowd(body);
    let chunks = crowd(&body.replace("content-length: 999\r\n\r\n", "transfer-encoding: chunked\r\n\r\n1;"));
    let fat = crowd(&format!("GET /livez HTTP/1.1\r\nx-fat: {}", "a".repeat(UNFINISHED_BYTES)));
    dripping.extend(bodies.iter().chain(&chunks).map(|stream| stream.try_clone().unwrap()));
    for _ in 0..BYTES {
        // Whoever was given up is written to in vain.
        dripping.iter_mut().for_each(|stream| drop(stream.write(b"a")));
        sleep(Duration::from_millis(BYTE_EVERY_MS)).await;
    }
    harness.connections_released().await;
    for mut stream in bodies {
        let mut told = [0; 12];
        // What it did not read may have cut off its answer.
        if stream.read_exact(&mut told).is_ok() {
            assert_eq!(&told, b"HTTP/1.1 400");
        }
    }
    drop((dripping, chunks, fat));
    harness.finish(MEMORY_MIB_MAX).await;
}
