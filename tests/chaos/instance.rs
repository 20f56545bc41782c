//! One instance of the service, which faults kill and restart. Each start listens on another address.

use std::{
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use passbook_testkit::process::{Passbook, Running};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::postgres::FrozenProcess;

/// How long starts may fail: the database may be down.
const START_S_MAX: u64 = 90;
const START_RETRY_MS: u64 = 300;
/// How many lines of standard error a failing test prints.
const LINES_MAX: usize = 60;

/// Builds the command that starts the instance.
type Command = Box<dyn Fn() -> Passbook + Send + Sync>;

pub struct Instance {
    pub name: &'static str,
    command: Command,
    base_url: Mutex<Arc<str>>,
    /// Whether clients send commands to this instance. Always true for an instance that restarts after a fault.
    is_target: AtomicBool,
    running: AsyncMutex<Option<Running>>,
    /// The standard error of all its processes.
    stderr: Mutex<String>,
}

/// An exclusive lock on an instance. Only its owner may start, stop or freeze the instance.
pub struct InstanceGuard<'a> {
    instance: &'a Instance,
    running: MutexGuard<'a, Option<Running>>,
}

impl Instance {
    /// Creates an instance without starting it.
    pub fn new(name: &'static str, command: impl Fn() -> Passbook + Send + Sync + 'static) -> Self {
        let base_url = Mutex::new(Arc::from("http://127.0.0.1:9"));
        let is_target = AtomicBool::new(true);
        Self {
            name,
            command: Box::new(command),
            base_url,
            is_target,
            running: AsyncMutex::new(None),
            stderr: Mutex::default(),
        }
    }

    pub fn is_target(&self) -> bool {
        self.is_target.load(Ordering::Relaxed)
    }

    pub fn set_target(&self, is_target: bool) {
        self.is_target.store(is_target, Ordering::Relaxed);
    }

    /// The URL of the current or last process.
    pub fn base_url(&self) -> Arc<str> {
        self.base_url.lock().unwrap().clone()
    }

    pub async fn lock(&self) -> InstanceGuard<'_> {
        InstanceGuard { instance: self, running: self.running.lock().await }
    }

    /// The last lines that it wrote to standard error.
    pub fn stderr_tail(&self) -> String {
        let current = self.running.try_lock().ok().and_then(|running| Some(running.as_ref()?.process.stderr()));
        let stderr = format!("{}{}", self.stderr.lock().unwrap(), current.unwrap_or_default());
        let lines: Vec<&str> = stderr.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }

    fn append_stderr(&self, text: &str) {
        writeln!(self.stderr.lock().unwrap(), "{text}---").unwrap();
    }
}

impl InstanceGuard<'_> {
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the instance, with retries until a start succeeds.
    pub async fn start(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while self.running.is_none() {
            let passbook = (self.instance.command)();
            match spawn_blocking(|| passbook.try_start()).await.unwrap() {
                Ok(running) => {
                    *self.instance.base_url.lock().unwrap() = running.client.base_url().into();
                    *self.running = Some(running);
                }
                Err(process) => {
                    let (name, reason) = (self.instance.name, process.stderr());
                    self.instance.append_stderr(&reason);
                    assert!(Instant::now() < deadline, "{name} does not start: {reason}");
                    sleep(Duration::from_millis(START_RETRY_MS)).await;
                }
            }
        }
    }

    /// Sends SIGKILL, which also ends a frozen process.
    pub async fn kill(&mut self) {
        self.terminate(Signal::SIGKILL).await;
    }

    /// Sends SIGTERM and waits for the graceful shutdown.
    pub async fn stop(&mut self) {
        self.terminate(Signal::SIGTERM).await;
    }

    async fn terminate(&mut self, signal: Signal) {
        if let Some(running) = self.running.take() {
            let exited = spawn_blocking(move || running.stop(signal)).await.unwrap();
            self.instance.append_stderr(&exited.stderr);
        }
    }

    /// Suspends the process until the result is dropped. `None` if it does not run.
    pub fn freeze(&self) -> Option<FrozenProcess> {
        let running = self.running.as_ref()?;
        FrozenProcess::new(Pid::from_raw(running.process.id().cast_signed()))
    }
}
