//! A proxy before Postgres, where connections are cut, held up, and robbed of what they carry.
//!
//! Each connection is a [`Link`], and each of its two directions has a [`Flow`]. A link that is cut ends for the client
//! alone: what the client has sent is still on its way and may arrive later, as in a real network.

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

/// What becomes of the bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    Pass,
    /// They arrive once the flow is another one.
    Hold,
    /// They are lost.
    Lose,
}

/// Listens where a server believes the database to be.
pub struct Proxy {
    address: SocketAddr,
    door: Arc<Mutex<Door>>,
}

struct Door {
    open: bool,
    /// How both directions of a new connection flow.
    flow: Flow,
    links: Vec<Link>,
}

/// One connection, also after it has ended.
#[derive(Clone)]
pub struct Link(Arc<Connection>);

struct Connection {
    /// The `application_name` that the client gave.
    name: String,
    /// Requests and answers.
    flows: watch::Sender<[Flow; 2]>,
    /// The flows from the request on that contains these words.
    turn: Mutex<Option<(&'static str, [Flow; 2])>>,
    cut: Notify,
    holding: [AtomicBool; 2],
    over: AtomicBool,
}

const REQUESTS: usize = 0;
const ANSWERS: usize = 1;

impl Proxy {
    /// A proxy before the Postgres that listens on `socket`.
    pub async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Arc::new(Mutex::new(Door { open: true, flow: Flow::Pass, links: vec![] }));
        tokio::spawn(take_in(listener, socket, Arc::clone(&door)));
        Self { address, door }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection that has not ended.
    pub fn links(&self) -> Vec<Link> {
        self.door.lock().unwrap().links.iter().filter(|link| !link.is_over()).cloned().collect()
    }

    /// Every connection of this `application_name` that has not ended.
    pub fn links_of(&self, name: &str) -> Vec<Link> {
        self.links().into_iter().filter(|link| link.0.name == name).collect()
    }

    /// The newest connection of this `application_name`.
    pub async fn link(&self, name: &str) -> Link {
        eventually(name, async || self.links().into_iter().rfind(|link| link.0.name == name)).await
    }

    /// The database goes away: every connection is cut, and new ones are turned away at the door.
    pub fn go_away(&self) {
        self.door.lock().unwrap().open = false;
        self.links().iter().for_each(Link::cut);
    }

    /// The database is back.
    pub fn come_back(&self) {
        self.door.lock().unwrap().open = true;
    }

    /// The database takes everything, new connections too, and moves no more.
    pub fn freeze(&self) {
        self.flow(Flow::Hold);
    }

    /// The database goes on where it stood still.
    pub fn thaw(&self) {
        self.flow(Flow::Pass);
    }

    fn flow(&self, flow: Flow) {
        self.door.lock().unwrap().flow = flow;
        self.links().iter().for_each(|link| link.flow(flow, flow));
    }
}

impl Link {
    /// What becomes of requests and answers from now on.
    pub fn flow(&self, requests: Flow, answers: Flow) {
        self.0.flows.send_replace([requests, answers]);
    }

    /// What becomes of them from the request on that contains `words`.
    pub fn flow_from(&self, words: &'static str, requests: Flow, answers: Flow) {
        *self.0.turn.lock().unwrap() = Some((words, [requests, answers]));
    }

    /// Whether the request that [`flow_from`](Self::flow_from) waits for is yet to come.
    pub fn awaits_turn(&self) -> bool {
        self.0.turn.lock().unwrap().is_some()
    }

    /// Ends it for the client.
    pub fn cut(&self) {
        self.0.cut.notify_one();
    }

    /// Whether a request is being held.
    pub fn holds_request(&self) -> bool {
        self.0.holding[REQUESTS].load(Ordering::Relaxed)
    }

    /// Whether both ends have closed: whatever arrived at the server has been carried out.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    async fn serve(&self, client: TcpStream, server: UnixStream) {
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let answers = async {
            tokio::select! {
                () = self.carry(&mut from_server, &mut to_client, ANSWERS) => {}
                () = self.0.cut.notified() => {
                    let _ = to_client.shutdown().await;
                    // Nobody is told any more, and the server is not kept from going on.
                    let _ = io::copy(&mut from_server, &mut io::sink()).await;
                }
            }
        };
        tokio::join!(self.carry(from_client, to_server, REQUESTS), answers);
        self.0.over.store(true, Ordering::Relaxed);
    }

    /// Carries bytes one way until either end closes.
    async fn carry(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, way: usize) {
        let mut flows = self.0.flows.subscribe();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..length];
            if way == REQUESTS {
                self.take_turn(bytes);
            }
            self.0.holding[way].store(flows.borrow()[way] == Flow::Hold, Ordering::Relaxed);
            let Ok(flow) = flows.wait_for(|flows| flows[way] != Flow::Hold).await.map(|flows| flows[way]) else {
                break;
            };
            self.0.holding[way].store(false, Ordering::Relaxed);
            if flow == Flow::Pass && to.write_all(bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    fn take_turn(&self, request: &[u8]) {
        let mut turn = self.0.turn.lock().unwrap();
        if let Some((_, flows)) = turn.take_if(|(words, _)| contains(request, words)) {
            self.0.flows.send_replace(flows);
        }
    }
}

async fn take_in(listener: TcpListener, socket: PathBuf, door: Arc<Mutex<Door>>) {
    while let Ok((client, _)) = listener.accept().await {
        // Dropped at a closed door, which the client sees as a connection that ends.
        if door.lock().unwrap().open {
            let (socket, door) = (socket.clone(), Arc::clone(&door));
            tokio::spawn(async move {
                let server = UnixStream::connect(socket).await.unwrap();
                let name = application_name(&client).await;
                let link = door.lock().unwrap().enter(name);
                link.serve(client, server).await;
            });
        }
    }
}

impl Door {
    fn enter(&mut self, name: String) -> Link {
        let link = Link(Arc::new(Connection {
            name,
            flows: watch::Sender::new([self.flow; 2]),
            turn: Mutex::new(None),
            cut: Notify::new(),
            holding: Default::default(),
            over: AtomicBool::new(false),
        }));
        if !self.open {
            // Closed since it was passed.
            link.cut();
        }
        self.links.push(link.clone());
        link
    }
}

/// As the first message of the protocol tells it: names and values, each ended by a zero.
async fn application_name(client: &TcpStream) -> String {
    let mut buffer = [0; 1024];
    let length = client.peek(&mut buffer).await.unwrap_or(0);
    let mut words = buffer[..length].split(|byte| *byte == 0).skip_while(|word| *word != b"application_name");
    String::from_utf8_lossy(words.nth(1).unwrap_or_default()).into_owned()
}

fn contains(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}
