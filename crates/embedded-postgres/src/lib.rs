//! The embedded Postgres: `passbook serve` starts it if no database is configured. The server is an installed Postgres that runs as
//! a child process, on a private Unix socket, with durable settings that follow the machine. It is restarted after a crash, and
//! stops when Passbook stops. No published crate does this as root and without downloads.

mod binaries;
mod data_dir;
mod error;
mod machine;
mod os_user;
mod program;
mod server;
mod stale_server;
mod supervisor;
pub mod tuning;

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{User, getuid};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor};

use server::SUPERUSER;
use supervisor::Supervisor;

pub use binaries::{Binaries, installed};
pub use error::Error;
pub use machine::{Machine, free_disk};
pub use server::Settings;

const DATABASE: &str = "passbook";

/// How long a started server may take to accept connections, apart from crash recovery.
const START_S_MAX: u64 = 60;
const ATTACH_S_MAX: u64 = 60;
const RETRY_MS_MIN: u64 = 10;
const RETRY_MS_MAX: u64 = 200;

/// A running embedded Postgres. Dropping it without [`stop`](Self::stop) stops the server as well, but does not wait for that.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    options: PgConnectOptions,
    /// `None` if another Passbook process runs the server.
    supervisor: Option<Supervisor>,
}

impl EmbeddedPostgres {
    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// [`Error::InUse`] if another Passbook process uses the data folder. The other variants say why the server cannot start.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let mut supervisor = Supervisor::start(settings).await?;
        let options = connect_options(&settings.data_dir);
        let ready = tokio::select! {
            biased;
            error = supervisor.exited() => return Err(error),
            ready = wait_until_ready(&options) => ready,
        };
        match ready {
            Ok(()) => {
                supervisor.mark_responded();
                Ok(Self { options, supervisor: Some(supervisor) })
            }
            Err(source) => {
                let log = supervisor.log_path.clone();
                supervisor.stop().await;
                Err(Error::NoConnection { source, log })
            }
        }
    }

    /// Attaches to the server that another Passbook process runs on this data folder, or starts one on the existing data.
    ///
    /// An attached server keeps running after [`stop`](Self::stop), and ends when the other process ends.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`Error::NoData`] if the folder contains no data. [`Error::InUse`] means that the other
    /// process's server does not accept connections.
    pub async fn attach_or_start(settings: &Settings) -> Result<Self, Error> {
        if !data_dir::contains_data(&settings.data_dir) {
            return Err(Error::NoData(settings.data_dir.clone()));
        }
        let deadline = Instant::now() + Duration::from_secs(ATTACH_S_MAX);
        loop {
            let in_use = match Self::start(settings).await {
                Err(error @ Error::InUse(_)) => error,
                started => return started,
            };
            let options = connect_options(&settings.data_dir);
            if connect_once(&options).await.is_ok() {
                return Ok(Self { options, supervisor: None });
            }
            if Instant::now() >= deadline {
                return Err(in_use);
            }
            tokio::time::sleep(Duration::from_millis(RETRY_MS_MAX)).await;
        }
    }

    /// Connection options: the Unix socket, the superuser `passbook` and the database `passbook`.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Stops the server and waits until it has exited.
    pub async fn stop(self) {
        if let Some(supervisor) = self.supervisor {
            supervisor.stop().await;
        }
    }
}

/// Returns the default data folder: `/var/lib/passbook` for root, else `$XDG_DATA_HOME/passbook` or `~/.local/share/passbook`.
pub fn default_data_dir() -> PathBuf {
    if getuid().is_root() {
        return PathBuf::from("/var/lib/passbook");
    }
    data_home().join("passbook")
}

/// The folder for the data of this user's programs.
fn data_home() -> PathBuf {
    let data_home = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    data_home.unwrap_or_else(|| home().join(".local/share"))
}

fn home() -> PathBuf {
    let from_environment = env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let from_user = || User::from_uid(getuid()).ok().flatten().map(|user| user.dir);
    from_environment.or_else(from_user).unwrap_or_default()
}

/// Connection options for the server of a data folder, whether or not it runs. See [`EmbeddedPostgres::connect_options`].
pub fn connect_options(data_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(data_dir::socket_dir(data_dir))
        .port(5432)
        .username(SUPERUSER)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

/// Waits until the server accepts connections. Crash recovery has no time limit: the deadline moves while the server responds that
/// it is starting up.
async fn wait_until_ready(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut deadline = Instant::now() + Duration::from_secs(START_S_MAX);
    let mut pause = Duration::from_millis(RETRY_MS_MIN);
    loop {
        match connect_once(options).await {
            Ok(()) => return Ok(()),
            // cannot_connect_now: the server is starting up.
            Err(error) if has_code(&error, "57P03") => deadline = Instant::now() + Duration::from_secs(START_S_MAX),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(RETRY_MS_MAX));
    }
}

/// Connects once, and creates the database `passbook` if it is missing.
async fn connect_once(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    match options.connect().await {
        Ok(connection) => connection.close().await,
        // invalid_catalog_name: the database does not exist.
        Err(error) if has_code(&error, "3D000") => {
            let mut connection = options.clone().database("postgres").connect().await?;
            connection.execute("CREATE DATABASE passbook").await?;
            connection.close().await
        }
        Err(error) => Err(error),
    }
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(code))
}
