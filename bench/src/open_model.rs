//! Load at a constant rate: requests are sent when their time has come, whether or not others were
//! answered. Latency counts from the time that the schedule says, so a stall counts for all who
//! would have come during it (no coordinated omission).
//!
//! One thread with a runtime of its own, since the generator shares the cores with what it measures.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};

use crate::accounts::{ACCOUNTS, account_id};
use crate::latency::Latencies;
use crate::schedule::Schedule;

/// Enough for a stall of 0.2 s at 10 000 a second; a request that finds none free waits and is counted.
const CONNECTIONS: usize = 2_048;
/// Open files beside the connections.
const OTHER_FILES: u64 = 256;
/// How late a request may leave by this clock; a timer of tokio is four times coarser.
const TICK: Duration = Duration::from_micros(250);
const ANSWER_SECONDS_MAX: u64 = 30;
/// So that the service has taken all connections in before the first request's time.
const SETTLE: Duration = Duration::from_millis(300);

type Connection = SendRequest<Full<Bytes>>;

/// What became of all requests.
pub struct Outcome {
    pub latencies: Latencies,
    pub requests: u64,
    /// From the first request's time to the last answer.
    pub seconds: f64,
    /// Requests that found no connection free.
    pub waited: u64,
    pub refused: u64,
    pub broken: u64,
}

struct Generator {
    address: String,
    paths: Vec<String>,
    started: Instant,
    state: RefCell<State>,
    /// Told when the last request was answered.
    settled: Notify,
}

struct State {
    free: Vec<Connection>,
    waiting: VecDeque<(u64, Duration)>,
    unanswered: u64,
    outcome: Outcome,
}

/// Deposits spread over all accounts, so many a second for so long; `begun` is told when the first has its time.
pub async fn deposits(url: &str, per_second: f64, seconds: u32, begun: oneshot::Sender<()>) -> Result<Outcome> {
    let address = url.strip_prefix("http://").context("the service has no http:// URL")?.to_owned();
    // Dropped with this future, so that the thread ends when the caller gives up.
    let (_wanted, given_up) = oneshot::channel::<()>();
    let generating = spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build().context("no runtime for the generator")?;
        LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                outcome = generate(address, Schedule::new(per_second, seconds), begun) => outcome,
                _ = given_up => bail!("the load was given up"),
            }
        })
    });
    generating.await.context("the generator failed")?
}

async fn generate(address: String, mut schedule: Schedule, begun: oneshot::Sender<()>) -> Result<Outcome> {
    allow_open_files()?;
    let mut free = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        free.push(connect(&address).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let outcome = Outcome { latencies: Latencies::new()?, requests: 0, seconds: 0.0, waited: 0, refused: 0, broken: 0 };
    let generator = Rc::new(Generator {
        address,
        paths: (1..=ACCOUNTS).map(|n| format!("/v1/accounts/{}/deposits", account_id(n))).collect(),
        started: Instant::now(),
        state: RefCell::new(State { free, waiting: VecDeque::new(), unanswered: 0, outcome }),
        settled: Notify::new(),
    });
    let tick = ticker();
    // Whoever does not want to know has dropped the receiver.
    let _ = begun.send(());
    while !schedule.is_over() {
        while let Some((number, due)) = schedule.next_due(generator.started.elapsed()) {
            generator.clone().send(number, due);
        }
        tick.notified().await;
    }
    let settled = async {
        while generator.state.borrow().unanswered > 0 {
            generator.settled.notified().await;
        }
    };
    // Whoever has no answer by then counts as broken.
    let _ = tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), settled).await;
    generator.outcome()
}

impl Generator {
    fn send(self: Rc<Self>, number: u64, due: Duration) {
        let mut state = self.state.borrow_mut();
        state.outcome.requests += 1;
        state.unanswered += 1;
        match state.free.pop() {
            Some(connection) => {
                drop(state);
                spawn_local(self.carry(connection, number, due));
            }
            None => {
                state.outcome.waited += 1;
                state.waiting.push_back((number, due));
            }
        }
    }

    /// Sends one request, and then those that wait for a connection.
    async fn carry(self: Rc<Self>, mut connection: Connection, mut number: u64, mut due: Duration) {
        loop {
            let answer = self.ask(&mut connection, number).await;
            let is_usable = answer.is_ok();
            self.note(answer, due);
            let mut state = self.state.borrow_mut();
            if !is_usable {
                return;
            }
            match state.waiting.pop_front() {
                Some(next) => (number, due) = next,
                None => return state.free.push(connection),
            }
        }
    }

    async fn ask(&self, connection: &mut Connection, number: u64) -> Result<StatusCode> {
        // One that nobody used for some seconds may have been closed.
        if connection.is_closed() {
            *connection = connect(&self.address).await?;
        }
        connection.ready().await?;
        let request = Request::post(self.paths[any_of(self.paths.len(), number)].as_str())
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(b"{\"amount\":1}")))?;
        let mut answer = connection.send_request(request).await?;
        while let Some(frame) = answer.frame().await {
            frame?;
        }
        Ok(answer.status())
    }

    fn note(&self, answer: Result<StatusCode>, due: Duration) {
        let mut state = self.state.borrow_mut();
        let elapsed = self.started.elapsed();
        match answer {
            Ok(status) => {
                state.outcome.latencies.record_us((elapsed - due).as_micros() as u64);
                state.outcome.refused += u64::from(!status.is_success());
            }
            Err(_) => state.outcome.broken += 1,
        }
        state.outcome.seconds = elapsed.as_secs_f64();
        state.unanswered -= 1;
        if state.unanswered == 0 {
            self.settled.notify_one();
        }
    }

    fn outcome(&self) -> Result<Outcome> {
        let State { outcome, unanswered, .. } = &mut *self.state.borrow_mut();
        let latencies = std::mem::replace(&mut outcome.latencies, Latencies::new()?);
        Ok(Outcome { latencies, broken: outcome.broken + *unanswered, ..*outcome })
    }
}

/// Many systems allow fewer open files than there are connections, unless they are asked.
fn allow_open_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = (CONNECTIONS as u64 + OTHER_FILES).min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("cannot open so many connections")?;
    }
    Ok(())
}

async fn connect(address: &str) -> Result<Connection> {
    let stream = TcpStream::connect(address).await.context("cannot connect to the service")?;
    stream.set_nodelay(true)?;
    let (connection, driver) = handshake(TokioIo::new(stream)).await?;
    spawn_local(driver);
    Ok(connection)
}

/// Notifies every TICK, until nobody holds what it notifies.
fn ticker() -> Arc<Notify> {
    let tick = Arc::new(Notify::new());
    let notified: Weak<Notify> = Arc::downgrade(&tick);
    thread::spawn(move || {
        while let Some(tick) = notified.upgrade() {
            tick.notify_one();
            drop(tick);
            thread::sleep(TICK);
        }
    });
    tick
}

/// An account for the request of this number, as if by chance (the mixing of SplitMix64).
fn any_of(count: usize, number: u64) -> usize {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % count as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::any_of;

    #[test]
    fn every_account_has_its_share() {
        let mut hits = [0; 10];
        (0..10_000).for_each(|number| hits[any_of(10, number)] += 1);
        assert!(hits.iter().all(|count| (900..1_100).contains(count)), "{hits:?}");
    }
}
