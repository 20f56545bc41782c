//! A client of the lines of `POST /v1/batches` on a connection of its own: it sends pieces of the body and reads results in any order,
//! and can break the body off at any byte.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::WAIT_S_MAX;

/// A connection is blocked if it accepts no byte for so long.
const BLOCKED_S: u64 = 2;

/// A request whose body is being sent, and its response.
pub struct LineExchange {
    sender: OwnedWriteHalf,
    receiver: OwnedReadHalf,
    /// The bytes of the response that are not decoded yet.
    received: Vec<u8>,
    /// The decoded body that is not returned yet.
    body: Vec<u8>,
    /// The head of the response; `None` before it has arrived.
    head: Option<String>,
    /// Whether `100 Continue` has arrived.
    is_continued: bool,
    /// Whether the last chunk has arrived.
    is_complete: bool,
}

impl LineExchange {
    /// Begins a request to the service at this base URL, with further headers, each ending with CRLF. Its body is chunked.
    pub async fn begin(url: &str, headers: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap();
        let (receiver, sender) = TcpStream::connect(address).await.unwrap().into_split();
        let (received, body) = (vec![], vec![]);
        let mut exchange =
            Self { sender, receiver, received, body, head: None, is_continued: false, is_complete: false };
        exchange.begin_next(headers).await;
        exchange
    }

    /// Begins another request on the same connection, after the response to the previous one.
    pub async fn begin_next(&mut self, headers: &str) {
        (self.head, self.is_complete) = (None, false);
        let head = format!(
            "POST /v1/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
             transfer-encoding: chunked\r\n{headers}\r\n"
        );
        self.sender.write_all(head.as_bytes()).await.unwrap();
    }

    /// Waits for `100 Continue`.
    pub async fn wait_for_continue(&mut self) {
        while !self.is_continued {
            assert!(self.receive().await && self.head.is_none(), "no 100 Continue before the response");
        }
    }

    /// Sends this piece up to so many times, and stops when the service has read nothing for a while. Returns how often it was sent
    /// completely. A part of another one may have been sent, so that the body cannot continue.
    pub async fn send_until_blocked(&mut self, piece: &str, times: usize) -> usize {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        for sent in 0..times {
            let write = timeout(Duration::from_secs(BLOCKED_S), self.sender.write_all(chunk.as_bytes())).await;
            match write {
                Ok(written) => written.expect("the service keeps the connection open"),
                Err(_) => return sent,
            }
        }
        times
    }

    /// Sends a piece of the body as one chunk. The service may have ended the response.
    pub async fn send(&mut self, piece: impl AsRef<[u8]>) {
        let piece = piece.as_ref();
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        self.send_raw(&chunk).await;
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.sender.write_all(bytes).await;
    }

    /// Ends the body.
    pub async fn end(&mut self) {
        self.send_raw(b"0\r\n\r\n").await;
    }

    /// Closes the sending side.
    pub async fn close_sending_side(&mut self) {
        let _ = self.sender.shutdown().await;
    }

    /// The head of the response.
    pub async fn head(&mut self) -> &str {
        while self.head.is_none() && self.receive().await {}
        self.head.as_deref().expect("a response")
    }

    /// The next result; `None` at the end of the response or of the connection.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.body.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            if self.is_complete || !self.receive().await {
                assert!(self.body.is_empty(), "an incomplete result");
                return None;
            }
        }
    }

    /// All further results.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut results = Vec::new();
        while let Some(result) = self.next().await {
            results.push(result);
        }
        results
    }

    /// Whether the response ended with its last chunk.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Reads bytes and decodes them. Returns `false` at the end of the connection.
    async fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = timeout(Duration::from_secs(WAIT_S_MAX), self.receiver.read(&mut buffer)).await;
        let read = read.expect("a response in time").unwrap_or(0);
        self.received.extend_from_slice(&buffer[..read]);
        self.decode_head();
        while self.head.is_some() && self.decode_chunk() {}
        read > 0
    }

    /// Separates the head, after `100 Continue` if the service sends that.
    fn decode_head(&mut self) {
        while self.head.is_none()
            && let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n")
        {
            let head: Vec<u8> = self.received.drain(..end + 4).collect();
            let head = String::from_utf8(head).unwrap();
            match head.starts_with("HTTP/1.1 100 ") {
                true => self.is_continued = true,
                false => self.head = Some(head),
            }
        }
    }

    /// Decodes one chunk. Returns `false` if none has arrived completely.
    fn decode_chunk(&mut self) -> bool {
        let Some(end) = self.received.windows(2).position(|bytes| bytes == b"\r\n") else { return false };
        let size = usize::from_str_radix(std::str::from_utf8(&self.received[..end]).unwrap(), 16).unwrap();
        if self.received.len() < end + 2 + size + 2 {
            return false;
        }
        self.body.extend_from_slice(&self.received[end + 2..end + 2 + size]);
        self.received.drain(..end + 2 + size + 2);
        self.is_complete |= size == 0;
        true
    }
}
