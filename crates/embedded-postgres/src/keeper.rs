//! The thread that keeps the server alive: it starts it, starts it again when it crashes, and ends it when we are done.
//! It is a thread of its own because Linux ends the server together with the thread that spawned it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::server::Server;
use super::{Error, Settings};
use passbook_telemetry::metrics::METRICS;

const RESTART_PAUSE_MS_MIN: u64 = 250;
const RESTART_PAUSE_MS_MAX: u64 = 10_000;
const LOOK_MS: u64 = 20;
const FAST_SHUTDOWN_S_MAX: u64 = 30;
const IMMEDIATE_SHUTDOWN_S_MAX: u64 = 10;

/// Our end of the thread. Dropping it ends the server too, but does not wait for that.
#[derive(Debug)]
pub struct Keeper {
    /// Nothing is ever sent: hanging up is the order to stop.
    orders: Sender<Infallible>,
    /// Why the server ended before it was confirmed; nothing if it was ordered to.
    ended: oneshot::Receiver<Error>,
    shared: Arc<Shared>,
    pub log_path: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    /// A server that has answered once is worth restarting; one that never did has an error to report.
    confirmed: AtomicBool,
    restarts: AtomicU64,
}

impl Keeper {
    /// Prepares the folder and starts the server, which does not answer yet.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let (orders, received) = mpsc::channel();
        let (report, reported) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = {
            let (settings, shared) = (settings.clone(), Arc::clone(&shared));
            move || match Server::prepare(&settings) {
                Err(error) => drop(report.send(Err(error))),
                Ok(server) => {
                    drop(report.send(Ok(server.log_path())));
                    let outcome = Watch { server, shared, orders: received }.keep();
                    drop(outcome.map_err(|error| end.send(error)));
                }
            }
        };
        let spawned = thread::Builder::new().name("postgres-keeper".into()).spawn(thread);
        spawned.map_err(Error::folder(&settings.data_dir))?;
        let gone = |_| Error::Died { reason: "its keeper ended".into(), log: settings.data_dir.clone() };
        let log_path = reported.await.map_err(gone)??;
        Ok(Self { orders, ended, shared, log_path })
    }

    /// Waits until the server ends without having been confirmed.
    pub async fn died(&mut self) -> Error {
        match (&mut self.ended).await {
            Ok(error) => error,
            Err(_) => Error::Died { reason: "its keeper ended".into(), log: self.log_path.clone() },
        }
    }

    /// The server has answered: from now on it is restarted whenever it ends.
    pub fn confirm(&self) {
        self.shared.confirmed.store(true, Ordering::Release);
    }

    /// Ends the server and waits for its end.
    pub async fn stop(self) {
        drop(self.orders);
        // Both answers, an error and a hang-up, mean that the server is gone.
        let _ = self.ended.await;
    }
}

enum End {
    Ordered,
    Crashed(String),
}

/// The thread's own end. Only this thread signals and reaps the child, so a signal never meets a reused process id.
struct Watch {
    server: Server,
    shared: Arc<Shared>,
    orders: Receiver<Infallible>,
}

impl Watch {
    fn keep(self) -> Result<(), Error> {
        let mut pause = RESTART_PAUSE_MS_MIN;
        loop {
            let started = Instant::now();
            let why = match self.run_once()? {
                End::Ordered => return Ok(()),
                End::Crashed(why) => why,
            };
            if !self.shared.confirmed.load(Ordering::Acquire) {
                return Err(self.server.died(why));
            }
            if started.elapsed() > Duration::from_millis(RESTART_PAUSE_MS_MAX) {
                pause = RESTART_PAUSE_MS_MIN;
            }
            error!(why, pause_ms = pause, "Postgres ended by itself and is started again");
            METRICS.postgres_restarts.inc();
            if self.ordered_to_stop(Duration::from_millis(pause)) {
                return Ok(());
            }
            pause = (pause * 2).min(RESTART_PAUSE_MS_MAX);
        }
    }

    /// One life of the server.
    fn run_once(&self) -> Result<End, Error> {
        let log_length = self.server.log_length();
        let mut child = match self.server.spawn() {
            Ok(child) => child,
            Err(error) if self.shared.confirmed.load(Ordering::Acquire) => return Ok(End::Crashed(error.to_string())),
            Err(error) => return Err(error),
        };
        let mut healing = self.shared.confirmed.load(Ordering::Acquire);
        loop {
            if self.ordered_to_stop(Duration::from_millis(LOOK_MS)) {
                shut_down(&mut child);
                return Ok(End::Ordered);
            }
            if let Some(status) = child.try_wait().transpose() {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Ok(End::Crashed(format!("{status}, {}", self.server.last_words(log_length))));
            }
            if healing && self.server.is_ready(child.id()) {
                healing = false;
                let restarts = self.shared.restarts.fetch_add(1, Ordering::Relaxed) + 1;
                warn!(restarts, "Postgres is back after a crash");
            }
        }
    }

    fn ordered_to_stop(&self, patience: Duration) -> bool {
        matches!(self.orders.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
    }
}

/// "Fast": connections are ended and a checkpoint is written. "Immediate": the next start recovers from the log.
fn shut_down(child: &mut Child) {
    if ends_after(child, Signal::SIGINT, FAST_SHUTDOWN_S_MAX) {
        info!("Postgres is shut down");
    } else {
        warn!("Postgres did not shut down within {FAST_SHUTDOWN_S_MAX} s and is ended");
        ends_after(child, Signal::SIGQUIT, IMMEDIATE_SHUTDOWN_S_MAX);
    }
}

fn ends_after(child: &mut Child, signal: Signal, seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    // The child is not reaped yet, so its id is still its own.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(LOOK_MS));
    }
    false
}
