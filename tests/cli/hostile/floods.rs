//! Much at once, and broken off.

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
/// Questions in one breath.
const QUESTIONS: usize = 500;
const BOMBS: usize = 100;
/// As much as a body may have; a thousand times that, unpacked.
const BOMB_BYTES: usize = 64 * 1_024;

/// Ends without the goodbye of TCP.
fn reset(stream: TcpStream) {
    setsockopt(&stream, Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

fn answers(mut stream: TcpStream) -> String {
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_resets_and_bombs_harm_nobody() {
    let crowd = connections();
    let harness = AbuseHarness::start().await;
    let post = |headers: &str| {
        format!("POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n\r\n")
    };
    for words in ["", "GET /li", "GET /v1/accounts HTTP/1.1\r\nhost: localhost\r\n\r\n", &post("content-length: 30")] {
        (0..crowd / 4).for_each(|_| reset(harness.send(words)));
    }

    let question = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let last = question.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let breath = question.repeat(QUESTIONS - 1) + &last;
    for flood in (0..crowd / 100).map(|_| harness.send(&breath)).collect::<Vec<_>>() {
        assert_eq!(answers(flood).matches("HTTP/1.1 200 ").count(), QUESTIONS);
    }

    let bomb = post(&format!("connection: close\r\ncontent-encoding: gzip\r\ncontent-length: {BOMB_BYTES}"));
    for _ in 0..BOMBS {
        let mut stream = harness.send(&bomb);
        // Whoever answers before it has read it all may not read the rest.
        let _ = stream.write_all(&vec![0x1f; BOMB_BYTES]);
        let told = answers(stream);
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 415 "), "{told}");
    }
    harness.finish(MEMORY_MIB_MAX).await;
}
