//! An open-loop load generator: it sends each request at its scheduled time, even if earlier ones have no response yet.
//!
//! Latency counts from the scheduled time, so that a stall delays every request scheduled during it (no coordinated
//! omission). The generator runs on one thread with its own runtime, because it shares the cores with the service.

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

use crate::latency::Latencies;
use crate::schedule::Schedule;
use crate::seed::{ACCOUNTS, account_id};
use crate::stalls::Stalls;

/// Enough for a stall of 0.2 s at 10 000 requests per second. A request without a free connection waits and is counted.
const CONNECTIONS: usize = 2_048;
/// Open files in addition to the connections.
const OTHER_FILES: u64 = 256;
/// The interval of the generator's clock, which delays requests. tokio's timers are four times coarser.
const TICK: Duration = Duration::from_micros(250);
const RESPONSE_SECONDS_MAX: u64 = 30;
/// Time for the service to accept all connections before the first request.
const SETTLE: Duration = Duration::from_millis(300);

type Connection = SendRequest<Full<Bytes>>;

/// The result of a run.
pub struct Outcome {
    pub latencies: Latencies,
    pub stalls: Stalls,
    pub requests: u64,
    /// The time from the first scheduled request to the last response.
    pub seconds: f64,
    /// Requests that had to wait for a free connection.
    pub waited: u64,
    /// Responses with an error status.
    pub refused: u64,
    /// Requests without a response.
    pub broken: u64,
}

struct Generator {
    address: String,
    paths: Vec<String>,
    started: Instant,
    state: RefCell<State>,
    /// Notified when no request is outstanding.
    completed: Notify,
}

struct State {
    free: Vec<Connection>,
    waiting: VecDeque<(u64, Duration)>,
    outstanding: u64,
    outcome: Outcome,
}

/// Sends deposits spread over all accounts at a constant rate. `started` receives a message before the first request.
pub async fn deposits(url: &str, per_second: f64, seconds: u32, started: oneshot::Sender<()>) -> Result<Outcome> {
    let address = url.strip_prefix("http://").context("the service's URL must begin with http://")?.to_owned();
    // The sender is dropped with this future, so that the thread stops when the caller cancels it.
    let (_cancel_on_drop, cancelled) = oneshot::channel::<()>();
    let generator = spawn_blocking(move || {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("cannot create the generator's runtime")?;
        LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                outcome = generate(address, Schedule::new(per_second, seconds), started) => outcome,
                _ = cancelled => bail!("the load was cancelled"),
            }
        })
    });
    generator.await.context("the generator failed")?
}

async fn generate(address: String, mut schedule: Schedule, started: oneshot::Sender<()>) -> Result<Outcome> {
    raise_open_file_limit()?;
    let mut free = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        free.push(connect(&address).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let outcome = Outcome {
        latencies: Latencies::new()?,
        stalls: Stalls::default(),
        requests: 0,
        seconds: 0.0,
        waited: 0,
        refused: 0,
        broken: 0,
    };
    let generator = Rc::new(Generator {
        address,
        paths: (1..=ACCOUNTS).map(|n| format!("/v1/accounts/{}/deposits", account_id(n))).collect(),
        started: Instant::now(),
        state: RefCell::new(State { free, waiting: VecDeque::new(), outstanding: 0, outcome }),
        completed: Notify::new(),
    });
    let tick = ticker();
    // An error means that the caller dropped the receiver and needs no message.
    let _ = started.send(());
    while !schedule.is_over() {
        while let Some((number, due)) = schedule.next_due(generator.started.elapsed()) {
            generator.clone().send(number, due);
        }
        tick.notified().await;
    }
    let completed = async {
        while generator.state.borrow().outstanding > 0 {
            generator.completed.notified().await;
        }
    };
    // Requests without a response after the timeout count as broken.
    let _ = tokio::time::timeout(Duration::from_secs(RESPONSE_SECONDS_MAX), completed).await;
    generator.outcome()
}

impl Generator {
    /// Sends a request on a free connection, or queues it.
    fn send(self: Rc<Self>, number: u64, due: Duration) {
        let mut state = self.state.borrow_mut();
        state.outcome.requests += 1;
        state.outstanding += 1;
        match state.free.pop() {
            Some(connection) => {
                drop(state);
                spawn_local(self.run_connection(connection, number, due));
            }
            None => {
                state.outcome.waited += 1;
                state.waiting.push_back((number, due));
            }
        }
    }

    /// Sends one request, then the queued requests, and returns the connection to the free ones.
    async fn run_connection(self: Rc<Self>, mut connection: Connection, mut number: u64, mut due: Duration) {
        loop {
            let response = self.deposit(&mut connection, number).await;
            let is_usable = response.is_ok();
            self.record(response, due);
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

    async fn deposit(&self, connection: &mut Connection, number: u64) -> Result<StatusCode> {
        // The service may have closed an idle connection.
        if connection.is_closed() {
            *connection = connect(&self.address).await?;
        }
        connection.ready().await?;
        let request = Request::post(self.paths[pseudo_random_index(self.paths.len(), number)].as_str())
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(b"{\"amount\":1}")))?;
        let mut response = connection.send_request(request).await?;
        while let Some(frame) = response.frame().await {
            frame?;
        }
        Ok(response.status())
    }

    fn record(&self, response: Result<StatusCode>, due: Duration) {
        let mut state = self.state.borrow_mut();
        let elapsed = self.started.elapsed();
        match response {
            Ok(status) => {
                let latency = elapsed - due;
                state.outcome.latencies.record_us(latency.as_micros() as u64);
                state.outcome.stalls.record(due, latency);
                state.outcome.refused += u64::from(!status.is_success());
            }
            Err(_) => state.outcome.broken += 1,
        }
        state.outcome.seconds = elapsed.as_secs_f64();
        state.outstanding -= 1;
        if state.outstanding == 0 {
            self.completed.notify_one();
        }
    }

    fn outcome(&self) -> Result<Outcome> {
        let State { outcome, outstanding, .. } = &mut *self.state.borrow_mut();
        let latencies = std::mem::replace(&mut outcome.latencies, Latencies::new()?);
        let stalls = std::mem::take(&mut outcome.stalls);
        Ok(Outcome { latencies, stalls, broken: outcome.broken + *outstanding, ..*outcome })
    }
}

/// Raises the soft limit of open files, which is below the number of connections on many systems.
fn raise_open_file_limit() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = (CONNECTIONS as u64 + OTHER_FILES).min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("cannot raise the limit of open files")?;
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

/// Returns a `Notify` that is notified every `TICK` until it is dropped.
fn ticker() -> Arc<Notify> {
    let tick = Arc::new(Notify::new());
    let weak: Weak<Notify> = Arc::downgrade(&tick);
    thread::spawn(move || {
        while let Some(tick) = weak.upgrade() {
            tick.notify_one();
            drop(tick);
            thread::sleep(TICK);
        }
    });
    tick
}

/// A pseudo-random index below `count` for the request with this number (the mixing function of SplitMix64).
fn pseudo_random_index(count: usize, number: u64) -> usize {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % count as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::pseudo_random_index;

    #[test]
    fn requests_are_spread_evenly_over_the_accounts() {
        let mut hits = [0; 10];
        (0..10_000).for_each(|number| hits[pseudo_random_index(10, number)] += 1);
        assert!(hits.iter().all(|count| (900..1_100).contains(count)), "{hits:?}");
    }
}
