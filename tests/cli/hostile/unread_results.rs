//! Clients that send lines of commands without an end and never read the results.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    thread::{self, JoinHandle},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::harness::{AbuseHarness, connections};

/// The service's own memory, and at most 512 KiB for each client.
const MEMORY_MIB_MAX: u64 = 300;
const RECEIVE_BUFFER_BYTES: usize = 4_096;

/// Sends lines until the service closes the connection, and returns how many blocks it accepted.
fn send_endlessly(mut stream: TcpStream, block: Vec<u8>) -> JoinHandle<usize> {
    thread::spawn(move || {
        let chunk = [format!("{:x}\r\n", block.len()).into_bytes(), block, b"\r\n".to_vec()].concat();
        let mut sent = 0;
        while stream.write_all(&chunk).is_ok() {
            sent += 1;
        }
        // The service may already have closed the connection.
        let _ = stream.shutdown(Shutdown::Both);
        sent
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_results_stop_the_reading_and_use_bounded_memory() {
    let clients = connections() / 64;
    let harness = AbuseHarness::start().await;
    let head = "POST /v1/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                transfer-encoding: chunked\r\n\r\n";
    // Lines whose problems repeat much of the line, and lines that are executed.
    let long = format!("{{\"command\":\"deposit\",\"account_id\":17,\"reference\":\"{}\"}}\n", "x".repeat(60_000));
    let unknown = "{\"command\":\"deposit\",\"account_id\":\"01900000-0000-7000-8000-000000000404\",\"amount\":1}\n";
    let mut threads = Vec::new();
    for number in 0..clients {
        let mut stream = harness.connect();
        setsockopt(&stream, RcvBuf, &RECEIVE_BUFFER_BYTES).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let block = if number % 2 == 0 { long.clone() } else { unknown.repeat(600) };
        threads.push(send_endlessly(stream, block.into_bytes()));
    }
    harness.connections_released().await;
    let sent: Vec<usize> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    println!(
        "the service accepted {} to {} blocks of about 60 KB",
        sent.iter().min().unwrap(),
        sent.iter().max().unwrap()
    );
    harness.finish(MEMORY_MIB_MAX).await;
}
