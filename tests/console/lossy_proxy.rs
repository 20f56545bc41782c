//! A TCP proxy between browser and service. It can drop the response to a command after the service has executed it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const CHUNK_BYTES: usize = 64 * 1024;
/// The bytes that are cut off the end of a lost response.
const CUT_BYTES: usize = 10;

/// A proxy that listens on its own port.
pub struct LossyProxy {
    address: SocketAddr,
    responses_to_lose: Arc<AtomicU32>,
    commands: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl LossyProxy {
    /// Starts a proxy to the service at the URL `base`.
    pub async fn start(base: &str) -> Self {
        let target: SocketAddr = base.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let responses_to_lose = Arc::new(AtomicU32::new(0));
        let commands = Arc::new(AtomicU32::new(0));
        let (lose, count) = (Arc::clone(&responses_to_lose), Arc::clone(&commands));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (lose, count) = (Arc::clone(&lose), Arc::clone(&count));
                tokio::spawn(async move { forward(client, target, &lose, &count).await });
            }
        });
        Self { address, responses_to_lose, commands, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Truncates the responses to the next `count` commands. The service still executes them.
    pub fn lose_responses(&self, count: u32) {
        self.responses_to_lose.store(count, Ordering::SeqCst);
    }

    /// The number of commands that were sent.
    pub fn commands(&self) -> u32 {
        self.commands.load(Ordering::SeqCst)
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards one connection. On a connection the browser sends a request only after the response to the previous one.
async fn forward(mut client: TcpStream, target: SocketAddr, lose: &AtomicU32, count: &AtomicU32) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut request, mut response) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut is_command = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                if request.starts_with(b"POST ") {
                    is_command = true;
                    count.fetch_add(1, Ordering::SeqCst);
                } else if request.starts_with(b"GET ") {
                    is_command = false;
                }
                server.write_all(&request[..length]).await?;
            }
            read = server.read(&mut response) => {
                let length = read?;
                let is_lost = is_command && lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                if is_lost {
                    // Send a part of it: without any byte, Chromium would resend the request itself.
                    client.write_all(&response[..length.saturating_sub(CUT_BYTES)]).await?;
                }
                if length == 0 || is_lost {
                    return Ok(());
                }
                client.write_all(&response[..length]).await?;
            }
        }
    }
}
