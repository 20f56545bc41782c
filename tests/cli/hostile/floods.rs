//! Connection resets, floods of pipelined requests, and compressed bodies.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt::Linger},
};

use super::harness::{AbuseHarness, connections};

const MEMORY_MIB_MAX: u64 = 300;
/// The number of pipelined requests per connection.
const PIPELINED: usize = 500;
const BOMBS: usize = 100;
/// The largest allowed body. A real bomb would expand to a thousand times that.
const BOMB_BYTES: usize = 64 * 1_024;

/// Closes the connection with a TCP reset.
fn reset(stream: TcpStream) {
    setsockopt(&stream, Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

fn responses(mut stream: TcpStream) -> String {
    let mut responses = Vec::new();
    let _ = stream.read_to_end(&mut responses);
    String::from_utf8_lossy(&responses).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_resets_and_compressed_bodies_do_no_harm() {
    let count = connections();
    let harness = AbuseHarness::start().await;
    let post = |headers: &str| {
        format!("POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n\r\n")
    };
    for request in ["", "GET /li", "GET /v1/accounts HTTP/1.1\r\nhost: localhost\r\n\r\n", &post("content-length: 30")]
    {
        (0..count / 4).for_each(|_| reset(harness.send(request)));
    }

    let request = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let last = request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let pipeline = request.repeat(PIPELINED - 1) + &last;
    for flood in (0..count / 100).map(|_| harness.send(&pipeline)).collect::<Vec<_>>() {
        assert_eq!(responses(flood).matches("HTTP/1.1 200 ").count(), PIPELINED);
    }

    let bomb = post(&format!("connection: close\r\ncontent-encoding: gzip\r\ncontent-length: {BOMB_BYTES}"));
    for _ in 0..BOMBS {
        let mut stream = harness.send(&bomb);
        // Ignore errors: the service may respond and close before it has read the whole body.
        let _ = stream.write_all(&vec![0x1f; BOMB_BYTES]);
        let response = responses(stream);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 415 "), "{response}");
    }
    harness.finish(MEMORY_MIB_MAX).await;
}
