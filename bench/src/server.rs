//! A server as a child process: ready once it prints `listening on http://…`, ended by SIGTERM.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, copy, sink};
use tokio::process::{Child, Command};

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 60;
const LOG_LINES_SHOWN_MAX: usize = 12;
const LOG_TAIL_BYTES_MAX: u64 = 8192;

pub struct Server {
    process: Child,
    log: PathBuf,
    pub pid: u32,
    pub url: String,
    /// From the start of the process to the line in which it said that it listens.
    pub ready_after_ms: f64,
}

impl Server {
    /// Starts a server and waits until it listens; what it logs goes to the file `log`.
    pub async fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log).context("cannot make a log")?;
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0).kill_on_drop(true);
        let started = Instant::now();
        let process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = process.id().context("the server has no process id")?;
        let mut server = Self { process, log, pid, url: String::new(), ready_after_ms: 0.0 };
        let listening = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), server.wait_until_listening());
        let listening = listening.await.map_err(anyhow::Error::new).and_then(|listening| listening);
        if let Err(error) = listening {
            let said = server.log_tail();
            server.stop().await.ok();
            return Err(error.context(format!("{name} does not listen; it said:\n{said}")));
        }
        server.ready_after_ms = started.elapsed().as_secs_f64() * 1000.0;
        Ok(server)
    }

    async fn wait_until_listening(&mut self) -> Result<()> {
        let stdout = self.process.stdout.take().context("the server's output is already read")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        while stdout.read_line(&mut line).await? > 0 {
            if let Some(url) = line.strip_prefix("listening on ") {
                self.url = url.trim().to_owned();
                tokio::spawn(async move { copy(&mut stdout, &mut sink()).await });
                return Ok(());
            }
            line.clear();
        }
        bail!("it ended before it listened")
    }

    pub fn check_alive(&mut self) -> Result<()> {
        let ended = self.process.try_wait().context("cannot look after the server")?;
        ensure!(ended.is_none(), "the server has ended by itself");
        Ok(())
    }

    pub fn show_log(&self) {
        eprintln!("the last lines of the server's log:\n{}", self.log_tail());
    }

    /// The last lines that the server logged.
    fn log_tail(&self) -> String {
        let mut tail = Vec::new();
        // A log of millions of requests is not read whole; a shorter one is.
        let read = File::open(&self.log).and_then(|mut log| {
            let skipped = log.metadata()?.len().saturating_sub(LOG_TAIL_BYTES_MAX);
            log.seek(SeekFrom::Start(skipped))?;
            log.read_to_end(&mut tail)
        });
        if let Err(error) = read {
            return format!("(its log cannot be read: {error})");
        }
        let tail = String::from_utf8_lossy(&tail);
        let lines: Vec<_> = tail.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)..].join("\n")
    }

    pub async fn stop(&mut self) -> Result<()> {
        let status = self.terminate().await?;
        ensure!(status.success(), "the server did not end well: {status}");
        Ok(())
    }

    async fn terminate(&mut self) -> Result<ExitStatus> {
        // Once it has been waited for, its process id may belong to another.
        if self.process.id().is_some() {
            kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM).context("cannot stop the server")?;
        }
        let stopped = tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), self.process.wait());
        match stopped.await {
            Ok(status) => status.context("cannot wait for the server"),
            Err(_) => {
                self.process.kill().await.context("cannot kill the server")?;
                bail!("the server did not stop within {STOP_SECONDS_MAX} s and was killed")
            }
        }
    }
}

/// The absolute path of a program that has to be built first.
pub fn built(binary: &Path) -> Result<PathBuf> {
    let shown = binary.display();
    binary.canonicalize().with_context(|| format!("there is no {shown} (`cargo build --release` makes it)"))
}

/// An address on this machine that nobody listens on, at least a moment ago.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.to_string())
}
