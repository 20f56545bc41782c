//! A proxy between one instance and Postgres that injects network faults: it closes or stalls all connections, or drops or
//! delays the response to one chosen write.
//!
//! A cut closes only the client's side. Requests that the client has sent already still reach Postgres.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UnixStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
        unix,
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::pg_protocol::{MessageBuffer, Write, WriteDetector, application_name, is_ready_for_query};

const CHUNK_BYTES: usize = 64 << 10;
/// A delayed request is delivered after this time even if its sender still waits.
const DELAY_S_MAX: u64 = 20;

/// A fault that affects one write and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// Postgres executes the write, then the connection closes without a response.
    CloseBeforeResponse,
    /// Postgres executes the write, and the client receives nothing on this connection any more, not even its end.
    NeverRespond,
    /// The write reaches Postgres this long after its sender has closed the connection.
    Delay(Duration),
    /// The write and its response pass, then the whole proxy stalls.
    StallAfterResponse,
}

/// Applies a fault to the next matching write, once.
#[derive(Clone, Copy, Debug)]
pub struct FaultRule {
    /// The client's `application_name`.
    pub application: &'static str,
    /// The kinds of write that match.
    pub writes: &'static [Write],
    pub fault: MessageFault,
}

/// Listens on the address that one instance uses as its database.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<ProxyState>,
    accepting: AbortHandle,
}

struct ProxyState {
    socket: PathBuf,
    open: AtomicBool,
    stalled: watch::Sender<bool>,
    /// False after [`Proxy::restore`], so that a rule from before cannot stall the proxy afterwards.
    may_stall: AtomicBool,
    cuts: watch::Sender<u64>,
    rule: Mutex<Option<FaultRule>>,
}

/// How a connection treats responses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ResponseMode {
    Forward,
    ForwardThenStall,
    DropThenClose,
    DropSilently,
}

impl Proxy {
    /// Starts a proxy to the Postgres that listens on `socket`.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState {
            socket,
            open: AtomicBool::new(true),
            stalled: watch::Sender::new(false),
            may_stall: AtomicBool::new(false),
            cuts: watch::Sender::new(0),
            rule: Mutex::new(None),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, accepting }
    }

    pub fn database_url(&self) -> String {
        format!("postgres://passbook@{}/passbook?sslmode=disable", self.address)
    }

    /// Closes every connection, and refuses new ones until [`restore`](Self::restore).
    pub fn cut(&self) {
        self.state.open.store(false, Ordering::Relaxed);
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forwards nothing on old and new connections until [`restore`](Self::restore).
    pub fn stall(&self) {
        self.state.stalled.send_replace(true);
    }

    /// Ends every fault of the network.
    pub fn restore(&self) {
        self.state.open.store(true, Ordering::Relaxed);
        self.state.may_stall.store(false, Ordering::Relaxed);
        self.state.stalled.send_replace(false);
    }

    pub fn set_rule(&self, rule: Option<FaultRule>) {
        self.state.may_stall.store(true, Ordering::Relaxed);
        *self.state.rule.lock().unwrap() = rule;
    }

    /// Whether no write has matched the rule yet.
    pub fn is_rule_pending(&self) -> bool {
        self.state.rule.lock().unwrap().is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<ProxyState>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if state.open.load(Ordering::Relaxed) {
            connections.spawn(Arc::clone(&state).serve(client));
        }
    }
}

impl ProxyState {
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        self.wait_while_stalled().await;
        let (Some(startup), Ok(server)) = (startup(&mut client).await, UnixStream::connect(&self.socket).await) else {
            return;
        };
        let application = application_name(&startup);
        // Forward small responses at once.
        let _ = client.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        if to_server.write_all(&startup).await.is_err() {
            return;
        }
        let modes = watch::Sender::new(ResponseMode::Forward);
        let forward_responses = self.forward_responses(from_server, to_client, modes.subscribe(), &mut cuts);
        tokio::join!(self.forward_requests(from_client, to_server, &application, modes), forward_responses);
    }

    /// Waits until the proxy is not stalled.
    async fn wait_while_stalled(&self) {
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    async fn forward_requests(
        &self,
        mut from: OwnedReadHalf,
        mut to: unix::OwnedWriteHalf,
        application: &str,
        modes: watch::Sender<ResponseMode>,
    ) {
        let mut buffer = MessageBuffer::default();
        let mut detector = WriteDetector::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            buffer.push(&chunk[..length]);
            while let Some(request) = buffer.pop() {
                let fault = detector.classify(&request).and_then(|write| self.match_rule(application, write));
                match fault {
                    Some(MessageFault::StallAfterResponse) => drop(modes.send_replace(ResponseMode::ForwardThenStall)),
                    Some(MessageFault::CloseBeforeResponse) => drop(modes.send_replace(ResponseMode::DropThenClose)),
                    Some(MessageFault::NeverRespond) => drop(modes.send_replace(ResponseMode::DropSilently)),
                    Some(MessageFault::Delay(delay)) => {
                        let rest = read_until_closed(&mut from).await;
                        sleep(delay).await;
                        let _ = to.write_all(&[request, buffer.rest(), rest].concat()).await;
                        return;
                    }
                    None => {}
                }
                self.wait_while_stalled().await;
                if to.write_all(&request).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Takes the fault of the rule if this write matches it.
    fn match_rule(&self, application: &str, write: Write) -> Option<MessageFault> {
        let matches = |rule: &mut FaultRule| rule.application == application && rule.writes.contains(&write);
        self.rule.lock().unwrap().take_if(matches).map(|rule| rule.fault)
    }

    /// Keeps reading from Postgres after the client's side is closed, so that Postgres does not block.
    async fn forward_responses(
        &self,
        mut from: unix::OwnedReadHalf,
        to: OwnedWriteHalf,
        mut modes: watch::Receiver<ResponseMode>,
        cuts: &mut watch::Receiver<u64>,
    ) {
        let mut to = Some(to);
        let mut buffer = MessageBuffer::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = tokio::select! {
                read = from.read(&mut chunk) => read.unwrap_or(0),
                Ok(()) = cuts.changed(), if to.is_some() => {
                    to = None;
                    continue;
                }
            };
            buffer.push(&chunk[..length]);
            let responses: Vec<_> = std::iter::from_fn(|| buffer.pop()).collect();
            let mode = *modes.borrow();
            match mode {
                ResponseMode::DropThenClose if length == 0 || responses.iter().any(is_ready_for_query) => to = None,
                // Wait until the client closes the connection.
                ResponseMode::DropSilently if length == 0 => while modes.changed().await.is_ok() {},
                ResponseMode::DropThenClose | ResponseMode::DropSilently => {}
                ResponseMode::Forward | ResponseMode::ForwardThenStall => {
                    self.wait_while_stalled().await;
                    if mode == ResponseMode::ForwardThenStall && responses.iter().any(is_ready_for_query) {
                        self.stalled.send_replace(self.may_stall.load(Ordering::Relaxed));
                    }
                    if let Some(client) = &mut to
                        && client.write_all(&responses.concat()).await.is_err()
                    {
                        to = None;
                    }
                }
            }
            if length == 0 {
                return;
            }
        }
    }
}

/// Reads the whole first message of a connection.
async fn startup(client: &mut TcpStream) -> Option<Vec<u8>> {
    let length = client.read_u32().await.ok()?;
    let mut startup = length.to_be_bytes().to_vec();
    startup.resize(usize::try_from(length).ok()?, 0);
    client.read_exact(&mut startup[4..]).await.ok()?;
    Some(startup)
}

/// Reads until the client closes the connection.
async fn read_until_closed(client: &mut OwnedReadHalf) -> Vec<u8> {
    let mut bytes = Vec::new();
    // On a timeout, forward the bytes that were read until then.
    let _ = timeout(Duration::from_secs(DELAY_S_MAX), client.read_to_end(&mut bytes)).await;
    bytes
}
