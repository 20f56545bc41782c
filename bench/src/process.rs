//! Child processes: programs that run to completion, and servers.
//!
//! A server is ready when it prints `listening on http://…`, and is stopped with SIGTERM. Each process runs in its own
//! process group, so that Ctrl-C reaches only `bench`, which then stops its children.

use std::env;
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

/// A running server. Dropping it kills the process.
pub struct Server {
    process: Child,
    log: PathBuf,
    pub pid: u32,
    pub url: String,
    /// The time from the start of the process to the line `listening on …`, in milliseconds.
    pub ready_after_ms: f64,
}

impl Server {
    /// Starts a server and waits until it listens. Its stderr goes to the file `log`.
    pub async fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log).context("cannot create the log file")?;
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0).kill_on_drop(true);
        let started = Instant::now();
        let process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = process.id().context("the server has no process id")?;
        let mut server = Self { process, log, pid, url: String::new(), ready_after_ms: 0.0 };
        let listening = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), server.wait_until_listening());
        let listening = listening.await.map_err(anyhow::Error::new).and_then(|listening| listening);
        if let Err(error) = listening {
            let log = server.log_tail();
            server.stop().await.ok();
            return Err(error.context(format!("{name} does not listen; its log ends with:\n{log}")));
        }
        server.ready_after_ms = started.elapsed().as_secs_f64() * 1000.0;
        Ok(server)
    }

    async fn wait_until_listening(&mut self) -> Result<()> {
        let stdout = self.process.stdout.take().context("the server's output has already been taken")?;
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
        bail!("the process exited before it listened")
    }

    /// Fails if the process has exited.
    pub fn check_alive(&mut self) -> Result<()> {
        let exited = self.process.try_wait().context("cannot read the server's state")?;
        ensure!(exited.is_none(), "the server exited unexpectedly");
        Ok(())
    }

    /// Prints the end of the server's log to stderr.
    pub fn show_log(&self) {
        eprintln!("the last lines of the server's log:\n{}", self.log_tail());
    }

    /// The last lines of the log.
    fn log_tail(&self) -> String {
        let mut tail = Vec::new();
        // The log may have a line for each of millions of requests, so only its end is read.
        let read = File::open(&self.log).and_then(|mut log| {
            let skipped = log.metadata()?.len().saturating_sub(LOG_TAIL_BYTES_MAX);
            log.seek(SeekFrom::Start(skipped))?;
            log.read_to_end(&mut tail)
        });
        if let Err(error) = read {
            return format!("(cannot read the log: {error})");
        }
        let tail = String::from_utf8_lossy(&tail);
        let lines: Vec<_> = tail.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)..].join("\n")
    }

    /// Stops the server with SIGTERM, and fails if it does not exit with success in time.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.terminate().await?;
        ensure!(status.success(), "the server exited with {status}");
        Ok(())
    }

    async fn terminate(&mut self) -> Result<ExitStatus> {
        // After `wait`, the process id may belong to another process.
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

/// The absolute path of a binary that Cargo builds.
pub fn built_binary(binary: &Path) -> Result<PathBuf> {
    let shown = binary.display();
    binary.canonicalize().with_context(|| format!("{shown} does not exist; build it with `cargo build --release`"))
}

/// A loopback address with a free port.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.to_string())
}

/// The path of a program in the folders of PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|p| p.is_file())
}

/// The path of a program in `target/tools`, where `scripts/install-deps` puts it, or on PATH.
pub fn find_tool(program: &str) -> Result<PathBuf> {
    let installed = Some(Path::new("target/tools").join(program)).filter(|path| path.is_file());
    let path = installed.or_else(|| on_path(program));
    let path = path.with_context(|| format!("{program} was not found; `scripts/install-deps --bench` installs it"))?;
    path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))
}

/// Runs a program to completion and returns its trimmed stdout. Fails if the exit status is not a success.
pub async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("cannot start {name}"))?;
    let printed = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, String::from_utf8_lossy(printed).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The stdout of a program; `None` if it is missing, fails or prints nothing.
pub async fn stdout_if_ok(program: &str, arguments: &[&str]) -> Option<String> {
    run(Command::new(program).args(arguments)).await.ok().filter(|text| !text.is_empty())
}
