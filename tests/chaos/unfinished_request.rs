//! A request whose last byte is held back, so that it arrives after others.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{command::Command, instance::Instance};

/// Longer than an instance stays frozen plus the time that a command may wait in its queue.
const RESPONSE_S_MAX: u64 = 25;

/// A request whose last byte was not sent yet.
pub struct UnfinishedRequest {
    stream: TcpStream,
    last: u8,
}

#[derive(Debug)]
pub struct LateResponse {
    pub status: u16,
    pub is_replay: bool,
    pub body: Value,
}

impl UnfinishedRequest {
    /// Sends all but the last byte of a command. `None` if the instance cannot be reached.
    pub async fn send(instance: &Instance, command: &Command) -> Option<Self> {
        let url = instance.base_url();
        let address = url.strip_prefix("http://").unwrap();
        let (method, path, key, body) = (&command.method, &command.path, &command.key, command.body.to_string());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nx-request-id: {key}\r\nidempotency-key: {key}\r\n\r\n{body}",
            body.len()
        );
        let (last, sent) = request.as_bytes().split_last().unwrap();
        let sending = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(sent).await?;
            std::io::Result::Ok(stream)
        };
        let stream = timeout(Duration::from_secs(RESPONSE_S_MAX), sending).await.ok()?.ok()?;
        Some(Self { stream, last: *last })
    }

    /// Sends the last byte and reads the response. `None` if there is none.
    pub async fn finish(mut self) -> Option<LateResponse> {
        let mut response = Vec::new();
        let exchange = async {
            self.stream.write_all(&[self.last]).await?;
            self.stream.read_to_end(&mut response).await
        };
        timeout(Duration::from_secs(RESPONSE_S_MAX), exchange).await.ok()?.ok()?;
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().unwrap();
        let is_replay = head.to_lowercase().contains("idempotency-replayed: true");
        Some(LateResponse { status, is_replay, body: serde_json::from_str(body).ok()? })
    }
}
