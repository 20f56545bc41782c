//! A network between a passbook and Postgres that can be cut, stand still, and rob or delay exactly the message that
//! matters.
//!
//! A connection that is cut ends for the client alone: what the client has sent is on its way and still arrives.

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

use crate::wire::{Messages, Write, Writes, application_name, is_ready_for_query};

const CHUNK_BYTES: usize = 64 << 10;
/// A delayed request is delivered after so long even if its sender still waits.
const DELAY_S_MAX: u64 = 20;

/// What happens to a write and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theft {
    /// It is carried out; then the connection ends without an answer.
    CutBeforeAnswer,
    /// It is carried out, and nothing more is ever heard on this connection, not even its end.
    SilentForEver,
    /// It arrives so long after its sender has given up.
    Late(Duration),
    /// Nothing is stolen: it is carried out and answered, and then nothing moves any more.
    StandStillAfter,
}

/// A thief who waits for the next write of one kind of client.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// The client's `application_name`.
    pub who: &'static str,
    /// Whichever of these comes first.
    pub writes: &'static [Write],
    pub theft: Theft,
}

/// Listens where one passbook believes the database to be.
pub struct Proxy {
    address: SocketAddr,
    ground: Arc<Ground>,
    accepting: AbortHandle,
}

struct Ground {
    socket: PathBuf,
    open: AtomicBool,
    still: watch::Sender<bool>,
    /// Nothing stands still because of a trap that was laid before the last mending.
    may_stand_still: AtomicBool,
    cuts: watch::Sender<u64>,
    trap: Mutex<Option<Trap>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Pass,
    PassThenStandStill,
    LoseThenCut,
    LoseForEver,
}

impl Proxy {
    /// Before the Postgres that listens on `socket`.
    pub async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ground = Arc::new(Ground {
            socket,
            open: AtomicBool::new(true),
            still: watch::Sender::new(false),
            may_stand_still: AtomicBool::new(false),
            cuts: watch::Sender::new(0),
            trap: Mutex::new(None),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&ground))).abort_handle();
        Self { address, ground, accepting }
    }

    pub fn database_url(&self) -> String {
        format!("postgres://passbook@{}/passbook?sslmode=disable", self.address)
    }

    /// Every connection ends at once; new ones are refused until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.ground.open.store(false, Ordering::Relaxed);
        self.ground.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nothing moves any more, new connections included, until [`mend`](Self::mend).
    pub fn stand_still(&self) {
        self.ground.still.send_replace(true);
    }

    pub fn mend(&self) {
        self.ground.open.store(true, Ordering::Relaxed);
        self.ground.may_stand_still.store(false, Ordering::Relaxed);
        self.ground.still.send_replace(false);
    }

    pub fn set_trap(&self, trap: Option<Trap>) {
        self.ground.may_stand_still.store(true, Ordering::Relaxed);
        *self.ground.trap.lock().unwrap() = trap;
    }

    /// Whether the trap is still waiting.
    pub fn is_trap_set(&self) -> bool {
        self.ground.trap.lock().unwrap().is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, ground: Arc<Ground>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if ground.open.load(Ordering::Relaxed) {
            connections.spawn(Arc::clone(&ground).serve(client));
        }
    }
}

impl Ground {
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        self.passage().await;
        let (Some(startup), Ok(server)) = (startup(&mut client).await, UnixStream::connect(&self.socket).await) else {
            return;
        };
        let who = application_name(&startup);
        // Small answers go on at once, as they came.
        let _ = client.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        if to_server.write_all(&startup).await.is_err() {
            return;
        }
        let answers = watch::Sender::new(Answers::Pass);
        let way_back = self.carry_answers(from_server, to_client, answers.subscribe(), &mut cuts);
        tokio::join!(self.carry_requests(from_client, to_server, &who, answers), way_back);
    }

    /// Waits while everything stands still.
    async fn passage(&self) {
        let _ = self.still.subscribe().wait_for(|still| !still).await;
    }

    async fn carry_requests(
        &self,
        mut from: OwnedReadHalf,
        mut to: unix::OwnedWriteHalf,
        who: &str,
        answers: watch::Sender<Answers>,
    ) {
        let mut messages = Messages::default();
        let mut writes = Writes::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            messages.push(&chunk[..length]);
            while let Some(request) = messages.pop() {
                let theft = writes.tell(&request).and_then(|write| self.spring(who, write));
                match theft {
                    Some(Theft::StandStillAfter) => drop(answers.send_replace(Answers::PassThenStandStill)),
                    Some(Theft::CutBeforeAnswer) => drop(answers.send_replace(Answers::LoseThenCut)),
                    Some(Theft::SilentForEver) => drop(answers.send_replace(Answers::LoseForEver)),
                    Some(Theft::Late(delay)) => {
                        let rest = until_end(&mut from).await;
                        sleep(delay).await;
                        let _ = to.write_all(&[request, messages.rest(), rest].concat()).await;
                        return;
                    }
                    None => {}
                }
                self.passage().await;
                if to.write_all(&request).await.is_err() {
                    return;
                }
            }
        }
    }

    fn spring(&self, who: &str, write: Write) -> Option<Theft> {
        let fits = |trap: &mut Trap| trap.who == who && trap.writes.contains(&write);
        self.trap.lock().unwrap().take_if(fits).map(|trap| trap.theft)
    }

    /// Also reads on when nobody is told any more, so that the server is not kept from going on.
    async fn carry_answers(
        &self,
        mut from: unix::OwnedReadHalf,
        to: OwnedWriteHalf,
        mut fates: watch::Receiver<Answers>,
        cuts: &mut watch::Receiver<u64>,
    ) {
        let mut to = Some(to);
        let mut messages = Messages::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = tokio::select! {
                read = from.read(&mut chunk) => read.unwrap_or(0),
                Ok(()) = cuts.changed(), if to.is_some() => {
                    to = None;
                    continue;
                }
            };
            messages.push(&chunk[..length]);
            let answers: Vec<_> = std::iter::from_fn(|| messages.pop()).collect();
            let fate = *fates.borrow();
            match fate {
                Answers::LoseThenCut if length == 0 || answers.iter().any(is_ready_for_query) => to = None,
                // Until the client hangs up.
                Answers::LoseForEver if length == 0 => while fates.changed().await.is_ok() {},
                Answers::LoseThenCut | Answers::LoseForEver => {}
                Answers::Pass | Answers::PassThenStandStill => {
                    self.passage().await;
                    if fate == Answers::PassThenStandStill && answers.iter().any(is_ready_for_query) {
                        self.still.send_replace(self.may_stand_still.load(Ordering::Relaxed));
                    }
                    if let Some(client) = &mut to
                        && client.write_all(&answers.concat()).await.is_err()
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

/// The first message, whole.
async fn startup(client: &mut TcpStream) -> Option<Vec<u8>> {
    let length = client.read_u32().await.ok()?;
    let mut startup = length.to_be_bytes().to_vec();
    startup.resize(usize::try_from(length).ok()?, 0);
    client.read_exact(&mut startup[4..]).await.ok()?;
    Some(startup)
}

/// What a client still says before it gives up.
async fn until_end(client: &mut OwnedReadHalf) -> Vec<u8> {
    let mut said = Vec::new();
    // Whatever has come by then has come.
    let _ = timeout(Duration::from_secs(DELAY_S_MAX), client.read_to_end(&mut said)).await;
    said
}
