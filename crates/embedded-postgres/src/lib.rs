//! A Postgres of our own, for those who have none to offer: found on this machine, started as our child on a private
//! unix socket with durable settings, kept alive, and ended with us, however we end. No embedding crate does this as
//! root and without downloads.

mod account;
mod binaries;
mod error;
mod folder;
mod keeper;
mod left_over;
mod server;

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{User, getuid};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor};

pub use error::Error;
use keeper::Keeper;

const SUPERUSER: &str = "passbook";
const DATABASE: &str = "passbook";

const ANSWER_S_MAX: u64 = 60;
const ATTACH_S_MAX: u64 = 60;
const RETRY_MS_MIN: u64 = 10;
const RETRY_MS_MAX: u64 = 200;

/// What the embedded Postgres is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder for data, log, socket and lock; it is created where there is none.
    pub data_dir: PathBuf,
    /// The folder that holds `postgres` and `initdb`; searched for when not given.
    pub bin: Option<PathBuf>,
    /// Further settings of the server, which win over ours: `("fsync", "off")`.
    pub parameters: Vec<(String, String)>,
}

/// A running Postgres of our own. Dropped without [`stop`](Self::stop) it ends too, but nobody waits for that.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    options: PgConnectOptions,
    /// None: the server is another passbook's.
    keeper: Option<Keeper>,
}

impl EmbeddedPostgres {
    /// Starts the server and waits until it answers. A folder in use by another passbook is refused.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let mut keeper = Keeper::start(settings).await?;
        let options = connect_options(&settings.data_dir);
        let answered = tokio::select! {
            biased;
            error = keeper.died() => return Err(error),
            answered = wait_for_answer(&options) => answered,
        };
        match answered {
            Ok(()) => {
                keeper.confirm();
                Ok(Self { options, keeper: Some(keeper) })
            }
            Err(source) => {
                let log = keeper.log_path.clone();
                keeper.stop().await;
                Err(Error::Unanswered { source, log })
            }
        }
    }

    /// Attaches to the server that another passbook runs in this folder, or starts one for itself on the data there.
    /// An attached server goes on after [`stop`](Self::stop), and ends when the other passbook does.
    pub async fn attach_or_start(settings: &Settings) -> Result<Self, Error> {
        if !folder::holds_data(&settings.data_dir) {
            return Err(Error::NoData(settings.data_dir.clone()));
        }
        let deadline = Instant::now() + Duration::from_secs(ATTACH_S_MAX);
        loop {
            let in_use = match Self::start(settings).await {
                Err(error @ Error::InUse(_)) => error,
                started => return started,
            };
            let options = connect_options(&settings.data_dir);
            if answer(&options).await.is_ok() {
                return Ok(Self { options, keeper: None });
            }
            if Instant::now() >= deadline {
                return Err(in_use);
            }
            tokio::time::sleep(Duration::from_millis(RETRY_MS_MAX)).await;
        }
    }

    /// How to connect: by unix socket, as the superuser `passbook`, to the database `passbook`.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Shuts the server down and waits for its end.
    pub async fn stop(self) {
        if let Some(keeper) = self.keeper {
            keeper.stop().await;
        }
    }
}

/// Root: `/var/lib/passbook`. A user: `$XDG_DATA_HOME/passbook`, or `~/.local/share/passbook`.
pub fn default_data_dir() -> PathBuf {
    if getuid().is_root() {
        return PathBuf::from("/var/lib/passbook");
    }
    let data_home = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    data_home.unwrap_or_else(|| home().join(".local/share")).join("passbook")
}

fn home() -> PathBuf {
    let named = env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let known = || User::from_uid(getuid()).ok().flatten().map(|user| user.dir);
    named.or_else(known).unwrap_or_default()
}

/// How to connect to the server of this folder, if one runs: as the superuser `passbook`, to the database `passbook`.
pub fn connect_options(data_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(folder::socket_dir(data_dir))
        .port(5432)
        .username(SUPERUSER)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

/// A server that says that it is starting up recovers from a crash, which takes the time that it takes.
async fn wait_for_answer(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut deadline = Instant::now() + Duration::from_secs(ANSWER_S_MAX);
    let mut pause = Duration::from_millis(RETRY_MS_MIN);
    loop {
        match answer(options).await {
            Ok(()) => return Ok(()),
            Err(error) if has_code(&error, "57P03") => deadline = Instant::now() + Duration::from_secs(ANSWER_S_MAX),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(RETRY_MS_MAX));
    }
}

/// Connects once, and creates our database where it is missing.
async fn answer(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    match options.connect().await {
        Ok(connection) => connection.close().await,
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
