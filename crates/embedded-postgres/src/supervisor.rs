//! The thread that supervises the server: it starts Postgres, restarts it after a crash, and stops it at the end. It is a thread
//! and not a task, because Linux sends the parent-death signal when the thread that spawned the child ends.

use std::convert::Infallible;
use std::panic::{self, AssertUnwindSafe};
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

use super::error::Error;
use super::server::{Server, Settings};
use passbook_telemetry::metrics::METRICS;
use passbook_telemetry::supervision;

/// The name of the thread.
const THREAD: &str = "pg-supervisor";
const RESTART_PAUSE_MS_MIN: u64 = 250;
const RESTART_PAUSE_MS_MAX: u64 = 10_000;
const POLL_MS: u64 = 20;
const FAST_SHUTDOWN_S_MAX: u64 = 30;
const IMMEDIATE_SHUTDOWN_S_MAX: u64 = 10;

/// The handle of the supervisor thread. Dropping it stops the server too, but does not wait for that.
#[derive(Debug)]
pub struct Supervisor {
    /// Never sends a value. Dropping the sender tells the thread to stop the server.
    stop: Sender<Infallible>,
    /// Receives an error if the server exits before it has responded. Closed without a value after a regular stop.
    exit: oneshot::Receiver<Error>,
    shared: Arc<Shared>,
    pub log_path: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    /// Set when the server has responded once. Only then is it restarted after a crash; before, a crash is reported as an error.
    has_responded: AtomicBool,
    restarts: AtomicU64,
}

impl Supervisor {
    /// Prepares the data folder and starts the server, which does not accept connections yet.
    ///
    /// # Errors
    /// The data folder cannot be used, or the server could not be started.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let (stop, stop_requested) = mpsc::channel();
        let (report, reported) = oneshot::channel();
        let (exit_sender, exit) = oneshot::channel();
        let thread = {
            let (settings, shared) = (settings.clone(), Arc::clone(&shared));
            move || match Server::prepare(&settings) {
                Err(error) => drop(report.send(Err(error))),
                Ok(server) => {
                    drop(report.send(Ok(server.log_path())));
                    let thread = SupervisorThread { server, shared, stop_requested };
                    // The server ends with this thread.
                    match panic::catch_unwind(AssertUnwindSafe(|| thread.run())) {
                        Ok(outcome) => drop(outcome.map_err(|error| exit_sender.send(error))),
                        Err(panic) => supervision::report(THREAD, &*panic),
                    }
                }
            }
        };
        let spawned = thread::Builder::new().name(THREAD.into()).spawn(thread);
        spawned.map_err(Error::data_dir(&settings.data_dir))?;
        let log_path = reported.await.map_err(|_| thread_ended(settings.data_dir.clone()))??;
        Ok(Self { stop, exit, shared, log_path })
    }

    /// Waits until the server exits before it has responded.
    pub async fn exited(&mut self) -> Error {
        match (&mut self.exit).await {
            Ok(error) => error,
            Err(_) => thread_ended(self.log_path.clone()),
        }
    }

    /// Records that the server has responded. From now on it is restarted after each crash.
    pub fn mark_responded(&self) {
        self.shared.has_responded.store(true, Ordering::Release);
    }

    /// Stops the server and waits until it has exited.
    pub async fn stop(self) {
        drop(self.stop);
        // An error and a closed channel both mean that the server has exited.
        let _ = self.exit.await;
    }
}

fn thread_ended(log: PathBuf) -> Error {
    Error::Exited { reason: "its supervisor thread ended".into(), log }
}

/// Why one run of the server ended.
enum RunEnd {
    StopRequested,
    Crashed(String),
}

/// The state of the thread. Only this thread signals and reaps the child, so a signal never reaches a reused process id.
struct SupervisorThread {
    server: Server,
    shared: Arc<Shared>,
    stop_requested: Receiver<Infallible>,
}

impl SupervisorThread {
    fn run(self) -> Result<(), Error> {
        let mut pause = RESTART_PAUSE_MS_MIN;
        loop {
            let started = Instant::now();
            let why = match self.run_once()? {
                RunEnd::StopRequested => return Ok(()),
                RunEnd::Crashed(why) => why,
            };
            if !self.has_responded() {
                return Err(self.server.exited(why));
            }
            if started.elapsed() > Duration::from_millis(RESTART_PAUSE_MS_MAX) {
                pause = RESTART_PAUSE_MS_MIN;
            }
            error!(why, pause_ms = pause, "embedded Postgres crashed; restarting it");
            METRICS.postgres_restarts.inc();
            if self.stops_within(Duration::from_millis(pause)) {
                return Ok(());
            }
            pause = (pause * 2).min(RESTART_PAUSE_MS_MAX);
        }
    }

    /// Runs the server until it exits.
    fn run_once(&self) -> Result<RunEnd, Error> {
        let log_length = self.server.log_length();
        let mut child = match self.server.spawn() {
            Ok(child) => child,
            Err(error) if self.has_responded() => return Ok(RunEnd::Crashed(error.to_string())),
            Err(error) => return Err(error),
        };
        let mut is_recovering = self.has_responded();
        loop {
            if self.stops_within(Duration::from_millis(POLL_MS)) {
                shut_down(&mut child);
                return Ok(RunEnd::StopRequested);
            }
            if let Some(status) = child.try_wait().transpose() {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Ok(RunEnd::Crashed(format!("{status}, {}", self.server.last_error(log_length))));
            }
            if self.has_responded() {
                supervision::panic_if_injected(THREAD);
            }
            if is_recovering && self.server.is_ready(child.id()) {
                is_recovering = false;
                let restarts = self.shared.restarts.fetch_add(1, Ordering::Relaxed) + 1;
                warn!(restarts, "embedded Postgres accepts connections again after a crash");
            }
        }
    }

    fn has_responded(&self) -> bool {
        self.shared.has_responded.load(Ordering::Acquire)
    }

    /// Waits for a stop request, at most for `limit`.
    fn stops_within(&self, limit: Duration) -> bool {
        matches!(self.stop_requested.recv_timeout(limit), Err(RecvTimeoutError::Disconnected))
    }
}

/// Tries a fast shutdown, which ends connections and writes a checkpoint. If that takes too long, an immediate shutdown follows,
/// and the next start recovers from the write-ahead log.
fn shut_down(child: &mut Child) {
    if exits_after(child, Signal::SIGINT, FAST_SHUTDOWN_S_MAX) {
        info!("embedded Postgres stopped");
    } else {
        warn!("embedded Postgres did not stop within {FAST_SHUTDOWN_S_MAX} s; forcing an immediate shutdown");
        exits_after(child, Signal::SIGQUIT, IMMEDIATE_SHUTDOWN_S_MAX);
    }
}

fn exits_after(child: &mut Child, signal: Signal, seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    // The child has not been reaped yet, so no other process can have its id.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(POLL_MS));
    }
    false
}
