//! Starts a Passbook with its embedded Postgres in a temporary folder, and removes both afterwards.
//!
//! The folder is accessible to all users, because a service that runs as root starts Postgres as another user. The service
//! restricts access to its data folder itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::postgres::{PASSBOOK_DATABASE, Postgres};
use crate::process::{Server, built_binary, free_address};

/// Settings that are not inherited from the environment: they would select another database, or refuse the requests of
/// the benchmark.
const SETTINGS_CLEARED: [&str; 7] = [
    "PASSBOOK_DATABASE_URL",
    "PASSBOOK_READ_DATABASE_URL",
    "PASSBOOK_AUTH",
    "PASSBOOK_AUTH_ISSUER",
    "PASSBOOK_AUTH_AUDIENCE",
    "PASSBOOK_AUTH_JWKS_FILE",
    "PASSBOOK_RATE_LIMIT_PER_SECOND",
];

/// The measured service.
pub struct Service {
    binary: PathBuf,
    address: String,
    settings: Vec<(&'static str, String)>,
    pub folder: PathBuf,
    pub server: Server,
}

/// Environment variables of a service.
type Settings = [(&'static str, String)];

/// Starts a service in a temporary folder below `parent`, runs `work`, and stops the service even if `work` fails.
pub async fn with_fresh_service<T>(
    binary: &Path,
    parent: &Path,
    settings: &Settings,
    work: impl AsyncFnOnce(&mut Service) -> Result<T>,
) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let folder = fresh_folder(parent).with_context(|| format!("cannot create a folder in {}", parent.display()))?;
    eprintln!("starting {}", binary.display());
    let mut service = Service::start(binary, folder.path(), settings).await?;
    let mut failed = false;
    let outcome = tokio::select! {
        outcome = work(&mut service) => outcome.inspect_err(|_| failed = true),
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted; the service was stopped and its folder removed")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated; the service was stopped and its folder removed")),
    };
    if failed {
        service.server.show_log();
    }
    let stopped = service.server.stop().await;
    folder.close().context("cannot remove the service's folder")?;
    match (outcome, stopped) {
        (Ok(_), Err(error)) => bail!(error),
        (outcome, _) => outcome,
    }
}

impl Service {
    async fn start(binary: &Path, folder: &Path, settings: &Settings) -> Result<Self> {
        let (binary, folder, address) = (built_binary(binary)?, folder.to_owned(), free_address()?);
        let mut command = serve(&binary, &folder, &address, settings);
        let server = Server::start(&mut command, folder.join("passbook.log")).await?;
        Ok(Self { binary, address, settings: settings.to_vec(), folder, server })
    }

    /// Restarts the service on the same data and address. Returns the time to ready in milliseconds.
    pub async fn restart(&mut self) -> Result<f64> {
        self.server.stop().await?;
        let mut command = serve(&self.binary, &self.folder, &self.address, &self.settings);
        self.server = Server::start(&mut command, self.folder.join("passbook.log")).await?;
        Ok(self.server.ready_after_ms)
    }

    /// Starts another instance on the same database, with these settings.
    pub async fn start_instance(&self, postgres: &Postgres, name: &str, settings: &Settings) -> Result<Server> {
        let mut command = serve(&self.binary, &self.folder, &free_address()?, settings);
        command.env("PASSBOOK_DATABASE_URL", postgres.url(PASSBOOK_DATABASE));
        Server::start(&mut command, self.folder.join(format!("{name}.log"))).await
    }

    /// Another command of the same binary on the same data.
    pub fn command(&self, name: &str) -> Command {
        passbook(&self.binary, &self.folder, name)
    }

    /// The folder of the embedded Postgres's socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("data").join("run")
    }
}

/// Whether the service inherits this variable from the environment of `bench`.
pub fn is_forwarded(variable: &str) -> bool {
    let overridden = ["PASSBOOK_DATA_DIR", "PASSBOOK_LISTEN"];
    variable.starts_with("PASSBOOK_") && !SETTINGS_CLEARED.contains(&variable) && !overridden.contains(&variable)
}

fn serve(binary: &Path, folder: &Path, address: &str, settings: &Settings) -> Command {
    let mut command = passbook(binary, folder, "serve");
    command.env("PASSBOOK_LISTEN", address).envs(settings.iter().cloned());
    command
}

fn passbook(binary: &Path, folder: &Path, name: &str) -> Command {
    let mut command = Command::new(binary);
    for setting in SETTINGS_CLEARED {
        command.env_remove(setting);
    }
    command.arg(name).env("PASSBOOK_DATA_DIR", folder.join("data")).current_dir(folder);
    command
}

/// Creates a folder that every user may enter, regardless of the umask.
fn fresh_folder(parent: &Path) -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("passbook-bench-").tempdir_in(parent.canonicalize()?)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}
