//! One passbook that may die at any moment and is started again, each time at another address.

use std::{
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::{
    sync::{Mutex as Turn, MutexGuard},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    passbook::{Passbook, Running},
    postgres::Frozen,
};

/// So long it may find reasons not to start: its database may be down at this moment.
const START_S_MAX: u64 = 90;
const START_AGAIN_MS: u64 = 300;
/// So much of what it wrote is shown when a test fails.
const LINES_MAX: usize = 60;

/// How to start it.
type Command = Box<dyn Fn() -> Passbook + Send + Sync>;

pub struct Instance {
    pub name: &'static str,
    command: Command,
    base: Mutex<Arc<str>>,
    /// Whether clients may be sent to it. One that dies and comes back is always expected.
    is_expected: AtomicBool,
    running: Turn<Option<Running>>,
    /// What all its lives have written to standard error.
    written: Mutex<String>,
}

/// Somebody's exclusive hold on an instance: while it lasts, nobody else starts or ends it.
pub struct Hold<'a> {
    instance: &'a Instance,
    running: MutexGuard<'a, Option<Running>>,
}

impl Instance {
    /// Not started yet.
    pub fn new(name: &'static str, command: impl Fn() -> Passbook + Send + Sync + 'static) -> Self {
        let base = Mutex::new(Arc::from("http://127.0.0.1:9"));
        let is_expected = AtomicBool::new(true);
        Self {
            name,
            command: Box::new(command),
            base,
            is_expected,
            running: Turn::new(None),
            written: Mutex::default(),
        }
    }

    pub fn is_expected(&self) -> bool {
        self.is_expected.load(Ordering::Relaxed)
    }

    pub fn expect(&self, expected: bool) {
        self.is_expected.store(expected, Ordering::Relaxed);
    }

    /// Where it listens, or listened last.
    pub fn base(&self) -> Arc<str> {
        self.base.lock().unwrap().clone()
    }

    pub async fn hold(&self) -> Hold<'_> {
        Hold { instance: self, running: self.running.lock().await }
    }

    /// The end of what it has written to standard error.
    pub fn last_words(&self) -> String {
        let alive = self.running.try_lock().ok().and_then(|running| Some(running.as_ref()?.process.stderr()));
        let written = format!("{}{}", self.written.lock().unwrap(), alive.unwrap_or_default());
        let lines: Vec<&str> = written.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }

    fn note(&self, written: &str) {
        writeln!(self.written.lock().unwrap(), "{written}---").unwrap();
    }
}

impl Hold<'_> {
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it, until that succeeds.
    pub async fn start(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while self.running.is_none() {
            let passbook = (self.instance.command)();
            match spawn_blocking(|| passbook.try_start()).await.unwrap() {
                Ok(running) => {
                    *self.instance.base.lock().unwrap() = running.client.base().into();
                    *self.running = Some(running);
                }
                Err(process) => {
                    let (name, reason) = (self.instance.name, process.stderr());
                    self.instance.note(&reason);
                    assert!(Instant::now() < deadline, "{name} does not start: {reason}");
                    sleep(Duration::from_millis(START_AGAIN_MS)).await;
                }
            }
        }
    }

    /// Ends it without a word. Also one that is frozen.
    pub async fn kill(&mut self) {
        self.end(Signal::SIGKILL).await;
    }

    /// Lets it end in order.
    pub async fn stop(&mut self) {
        self.end(Signal::SIGTERM).await;
    }

    async fn end(&mut self, signal: Signal) {
        if let Some(running) = self.running.take() {
            let ended = spawn_blocking(move || running.stop(signal)).await.unwrap();
            self.instance.note(&ended.stderr);
        }
    }

    /// Lets it stand still until the answer is dropped.
    pub fn freeze(&self) -> Option<Frozen> {
        let running = self.running.as_ref()?;
        Frozen::new(Pid::from_raw(running.process.id().cast_signed()))
    }
}
