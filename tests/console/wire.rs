//! The wire between browser and bank: it can lead to another bank, and lose an answer after the command went through.

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
/// How much of a lost answer's end does not come.
const CUT_BYTES: usize = 10;

/// Listens where the browser was told, wherever the bank is.
pub struct Wire {
    address: SocketAddr,
    losing: Arc<AtomicU32>,
    commands: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Wire {
    /// A wire to the bank that serves at `base`.
    pub async fn to(base: &str) -> Self {
        let target: SocketAddr = base.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let losing = Arc::new(AtomicU32::new(0));
        let commands = Arc::new(AtomicU32::new(0));
        let (lose, count) = (Arc::clone(&losing), Arc::clone(&commands));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (lose, count) = (Arc::clone(&lose), Arc::clone(&count));
                tokio::spawn(async move { carry(client, target, &lose, &count).await });
            }
        });
        Self { address, losing, commands, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Loses the answers to the next commands: they are carried out, and nobody hears of it.
    pub fn lose_answers(&self, count: u32) {
        self.losing.store(count, Ordering::SeqCst);
    }

    /// How many commands were sent.
    pub fn commands(&self) -> u32 {
        self.commands.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one connection. A browser sends a request only when the one before it was answered.
async fn carry(mut client: TcpStream, target: SocketAddr, lose: &AtomicU32, count: &AtomicU32) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut asked, mut answered) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut is_command = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                if asked.starts_with(b"POST ") {
                    is_command = true;
                    count.fetch_add(1, Ordering::SeqCst);
                } else if asked.starts_with(b"GET ") {
                    is_command = false;
                }
                server.write_all(&asked[..length]).await?;
            }
            read = server.read(&mut answered) => {
                let length = read?;
                let is_lost = is_command && lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                if is_lost {
                    // Where nothing came at all, Chromium would ask again by itself.
                    client.write_all(&answered[..length.saturating_sub(CUT_BYTES)]).await?;
                }
                if length == 0 || is_lost {
                    return Ok(());
                }
                client.write_all(&answered[..length]).await?;
            }
        }
    }
}
