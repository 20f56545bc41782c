//! A Passbook of our own: started with its embedded Postgres in a fresh folder, stopped by SIGTERM,
//! and nothing of it left behind.
//!
//! The folder may be entered by everybody, because a service run by root starts Postgres as another
//! user; what is private inside it the service sees to itself.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, copy, sink};
use tokio::process::{Child, Command};

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 30;
const LOG_LINES_SHOWN_MAX: usize = 12;
const LOG_TAIL_BYTES_MAX: usize = 8192;

/// Settings that must not come from the caller's environment: they would lead to a database that
/// is not ours, or refuse our requests.
const SETTINGS_CLEARED: [&str; 7] = [
    "PASSBOOK_DATABASE_URL",
    "PASSBOOK_READ_DATABASE_URL",
    "PASSBOOK_AUTH",
    "PASSBOOK_AUTH_ISSUER",
    "PASSBOOK_AUTH_AUDIENCE",
    "PASSBOOK_AUTH_JWKS_FILE",
    "PASSBOOK_RATE_LIMIT_PER_SECOND",
];

pub struct Service {
    process: Child,
    folder: TempDir,
    pub pid: u32,
    pub url: String,
}

impl Service {
    pub fn start(binary: &Path, parent: &Path) -> Result<Self> {
        let binary = binary
            .canonicalize()
            .with_context(|| format!("there is no {} (`cargo build --release` makes it)", binary.display()))?;
        let folder = fresh_folder(parent).with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let log = File::create(folder.path().join("passbook.log")).context("cannot make a log")?;
        let address = free_address()?;
        let mut command = Command::new(&binary);
        for setting in SETTINGS_CLEARED {
            command.env_remove(setting);
        }
        let process = command
            .arg("serve")
            .env("PASSBOOK_DATA_DIR", folder.path().join("data"))
            .env("PASSBOOK_LISTEN", &address)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let pid = process.id().context("the service has no process id")?;
        Ok(Self { process, folder, pid, url: format!("http://{address}") })
    }

    /// Waits for the line in which the service says that it serves.
    pub async fn wait_until_listening(&mut self) -> Result<()> {
        let stdout = self.process.stdout.take().context("the service's output is already read")?;
        let mut stdout = BufReader::new(stdout);
        let listening = async {
            let mut line = String::new();
            while stdout.read_line(&mut line).await? > 0 {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return Ok(url.trim().to_owned());
                }
                line.clear();
            }
            bail!("the service ended before it listened")
        };
        self.url = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), listening)
            .await
            .with_context(|| format!("the service does not listen after {START_SECONDS_MAX} s"))??;
        tokio::spawn(async move { copy(&mut stdout, &mut sink()).await });
        Ok(())
    }

    pub fn check_alive(&mut self) -> Result<()> {
        let ended = self.process.try_wait().context("cannot look after the service")?;
        ensure!(ended.is_none(), "the service has ended by itself");
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the embedded Postgres has its socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.path().join("data").join("run")
    }

    /// The last lines that the service logged.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.folder.path().join("passbook.log")).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
        let tail = String::from_utf8_lossy(tail);
        let lines: Vec<_> = tail.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)..].join("\n")
    }

    /// Stops the service and removes its folder.
    pub async fn stop(mut self) -> Result<()> {
        let outcome = self.terminate().await;
        let path = self.folder.path().display().to_string();
        self.folder.close().with_context(|| format!("cannot remove {path}"))?;
        let status = outcome?;
        ensure!(status.success(), "the service did not end well: {status}");
        Ok(())
    }

    async fn terminate(&mut self) -> Result<ExitStatus> {
        // Once it has been waited for, its process id may belong to another.
        if self.process.id().is_some() {
            kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM).context("cannot stop the service")?;
        }
        let stopped = tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), self.process.wait());
        match stopped.await {
            Ok(status) => status.context("cannot wait for the service"),
            Err(_) => {
                self.process.kill().await.context("cannot kill the service")?;
                bail!("the service did not stop within {STOP_SECONDS_MAX} s and was killed")
            }
        }
    }
}

/// Whether a service started here takes this variable over from the caller's environment.
pub fn is_passed_on(variable: &str) -> bool {
    let ours = ["PASSBOOK_DATA_DIR", "PASSBOOK_LISTEN"];
    variable.starts_with("PASSBOOK_") && !SETTINGS_CLEARED.contains(&variable) && !ours.contains(&variable)
}

/// A folder that everybody may enter, whatever the umask.
fn fresh_folder(parent: &Path) -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("passbook-bench-").tempdir_in(parent.canonicalize()?)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// An address on this machine that nobody listens on, at least a moment ago.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.to_string())
}
