//! A proxy in front of Postgres that cuts connections and holds or discards bytes.
//!
//! Each [`ProxyConnection`] has a [`Flow`] for each of its two directions. Cutting a connection ends it for the client
//! only: bytes that the client has sent may still arrive at the server later, as in a real network.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Notify, watch},
};

use super::eventually;

/// The treatment of bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Forward them.
    Pass,
    /// Keep them until the flow changes.
    Hold,
    /// Drop them.
    Discard,
}

/// A listener that forwards connections to Postgres.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<ProxyState>>,
}

struct ProxyState {
    is_accepting: bool,
    /// The initial flow of both directions of a new connection.
    flow: Flow,
    connections: Vec<ProxyConnection>,
}

/// One proxied connection; the handle stays valid after the connection has closed.
#[derive(Clone)]
pub struct ProxyConnection(Arc<ConnectionState>);

struct ConnectionState {
    /// The client's `application_name`.
    name: String,
    /// The flows of requests and of responses.
    flows: watch::Sender<[Flow; 2]>,
    /// A text, and the flows to set when a request contains it.
    trigger: Mutex<Option<(&'static str, [Flow; 2])>>,
    cut: Notify,
    is_holding: [AtomicBool; 2],
    is_closed: AtomicBool,
}

const REQUESTS: usize = 0;
const RESPONSES: usize = 1;

impl Proxy {
    /// Starts a proxy for the Postgres that listens on `socket`.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(ProxyState { is_accepting: true, flow: Flow::Pass, connections: vec![] }));
        tokio::spawn(accept_loop(listener, socket, Arc::clone(&state)));
        Self { address, state }
    }

    /// The address on which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every open connection.
    pub fn connections(&self) -> Vec<ProxyConnection> {
        self.state.lock().unwrap().connections.iter().filter(|connection| !connection.is_closed()).cloned().collect()
    }

    /// Every open connection with this `application_name`.
    pub fn connections_named(&self, name: &str) -> Vec<ProxyConnection> {
        self.connections().into_iter().filter(|connection| connection.0.name == name).collect()
    }

    /// The newest open connection with this `application_name`; waits for one.
    pub async fn newest_connection(&self, name: &str) -> ProxyConnection {
        eventually(name, async || self.connections().into_iter().rfind(|connection| connection.0.name == name)).await
    }

    /// Simulates an unreachable database: cuts every connection and rejects new ones.
    pub fn disconnect(&self) {
        self.state.lock().unwrap().is_accepting = false;
        self.connections().iter().for_each(ProxyConnection::cut);
    }

    /// Accepts connections again.
    pub fn reconnect(&self) {
        self.state.lock().unwrap().is_accepting = true;
    }

    /// Simulates a frozen database: accepts connections and bytes but forwards nothing.
    pub fn freeze(&self) {
        self.set_flow(Flow::Hold);
    }

    /// Forwards all held bytes, and new ones.
    pub fn thaw(&self) {
        self.set_flow(Flow::Pass);
    }

    fn set_flow(&self, flow: Flow) {
        self.state.lock().unwrap().flow = flow;
        self.connections().iter().for_each(|connection| connection.set_flow(flow, flow));
    }
}

impl ProxyConnection {
    /// Sets the flows of requests and responses.
    pub fn set_flow(&self, requests: Flow, responses: Flow) {
        self.0.flows.send_replace([requests, responses]);
    }

    /// Sets the flows when a request contains `text`, that request included.
    pub fn set_flow_from(&self, text: &'static str, requests: Flow, responses: Flow) {
        *self.0.trigger.lock().unwrap() = Some((text, [requests, responses]));
    }

    /// Whether the request that [`set_flow_from`](Self::set_flow_from) waits for has not come yet.
    pub fn awaits_trigger(&self) -> bool {
        self.0.trigger.lock().unwrap().is_some()
    }

    /// Ends the connection for the client.
    pub fn cut(&self) {
        self.0.cut.notify_one();
    }

    /// Whether the proxy holds a request.
    pub fn is_holding_request(&self) -> bool {
        self.0.is_holding[REQUESTS].load(Ordering::Relaxed)
    }

    /// Whether both ends have closed. The server has then executed every request that it received.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Relaxed)
    }

    async fn serve(&self, client: TcpStream, server: UnixStream) {
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let responses = async {
            tokio::select! {
                () = self.forward(&mut from_server, &mut to_client, RESPONSES) => {}
                () = self.0.cut.notified() => {
                    let _ = to_client.shutdown().await;
                    // Read and drop the responses, so that a full socket does not stop the server.
                    let _ = io::copy(&mut from_server, &mut io::sink()).await;
                }
            }
        };
        tokio::join!(self.forward(from_client, to_server, REQUESTS), responses);
        self.0.is_closed.store(true, Ordering::Relaxed);
    }

    /// Forwards bytes in one direction until either end closes.
    async fn forward(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, direction: usize) {
        let mut flows = self.0.flows.subscribe();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..length];
            if direction == REQUESTS {
                self.check_trigger(bytes);
            }
            self.0.is_holding[direction].store(flows.borrow()[direction] == Flow::Hold, Ordering::Relaxed);
            let Ok(flow) = flows.wait_for(|flows| flows[direction] != Flow::Hold).await.map(|flows| flows[direction])
            else {
                break;
            };
            self.0.is_holding[direction].store(false, Ordering::Relaxed);
            if flow == Flow::Pass && to.write_all(bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    fn check_trigger(&self, request: &[u8]) {
        let mut trigger = self.0.trigger.lock().unwrap();
        if let Some((_, flows)) = trigger.take_if(|(text, _)| contains(request, text)) {
            self.0.flows.send_replace(flows);
        }
    }
}

async fn accept_loop(listener: TcpListener, socket: PathBuf, state: Arc<Mutex<ProxyState>>) {
    while let Ok((client, _)) = listener.accept().await {
        // A rejected connection is dropped; the client sees that it ends.
        if state.lock().unwrap().is_accepting {
            let (socket, state) = (socket.clone(), Arc::clone(&state));
            tokio::spawn(async move {
                let server = UnixStream::connect(socket).await.unwrap();
                let name = application_name(&client).await;
                let connection = state.lock().unwrap().register(name);
                connection.serve(client, server).await;
            });
        }
    }
}

impl ProxyState {
    fn register(&mut self, name: String) -> ProxyConnection {
        let connection = ProxyConnection(Arc::new(ConnectionState {
            name,
            flows: watch::Sender::new([self.flow; 2]),
            trigger: Mutex::new(None),
            cut: Notify::new(),
            is_holding: Default::default(),
            is_closed: AtomicBool::new(false),
        }));
        if !self.is_accepting {
            // `disconnect` was called after the connection was accepted.
            connection.cut();
        }
        self.connections.push(connection.clone());
        connection
    }
}

/// Reads the name from the start-up message, which is a list of names and values, each terminated by a zero byte.
async fn application_name(client: &TcpStream) -> String {
    let mut buffer = [0; 1024];
    let length = client.peek(&mut buffer).await.unwrap_or(0);
    let mut fields = buffer[..length].split(|byte| *byte == 0).skip_while(|field| *field != b"application_name");
    String::from_utf8_lossy(fields.nth(1).unwrap_or_default()).into_owned()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
