//! Access to the Postgres that the service runs, with psql and pgbench as its superuser.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::process;

/// The database of the service.
pub const PASSBOOK_DATABASE: &str = "passbook";
const USER: &str = "passbook";

/// The folder of psql and pgbench, and the address of the server.
#[derive(Clone)]
pub struct Postgres {
    binaries: PathBuf,
    socket_folder: PathBuf,
    port: String,
}

/// Finds the folder that contains pgbench and psql.
pub async fn find() -> Result<PathBuf> {
    let set = std::env::var_os("PASSBOOK_PG_BIN").map(PathBuf::from);
    let configured = process::stdout_if_ok("pg_config", &["--bindir"]).await.map(PathBuf::from);
    let on_path = process::on_path("pgbench").and_then(|path| Some(path.parent()?.to_owned()));
    set.into_iter()
        .chain(configured)
        .chain(newest_of_debian())
        .chain(on_path)
        .find(|folder| folder.join("pgbench").is_file() && folder.join("psql").is_file())
        .context("pgbench and psql were not found; install them with Postgres (`apt-get install postgresql`)")
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        Some((path.file_name()?.to_str()?.parse::<u32>().ok()?, path))
    });
    versions.max().map(|(_, path)| path.join("bin"))
}

impl Postgres {
    /// Uses the server whose socket is in `socket_folder`.
    pub fn connect(binaries: PathBuf, socket_folder: PathBuf) -> Result<Self> {
        let port = port_of(&socket_folder)?;
        Ok(Self { binaries, socket_folder, port })
    }

    /// Creates another database on the server.
    pub async fn create(&self, database: &str) -> Result<()> {
        self.execute(&format!("CREATE DATABASE {database}")).await.map(|_| ())
    }

    /// The value of a Postgres setting.
    pub async fn setting(&self, name: &str) -> Result<String> {
        self.execute(&format!("SHOW {name}")).await
    }

    /// The number of transactions that wrote the events after a position.
    pub async fn commits_after(&self, position: u64) -> Result<u64> {
        let transactions =
            format!("SELECT xmin FROM event WHERE partition = 0 AND position > {position} GROUP BY xmin");
        let count = self.execute(&format!("SELECT count(*) FROM ({transactions}) AS written")).await?;
        count.parse().with_context(|| format!("psql printed {count:?} instead of a number"))
    }

    /// The number of bytes of WAL that the server has written since it was created.
    pub async fn wal_bytes(&self) -> Result<u64> {
        let bytes = self.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").await?;
        bytes.parse().with_context(|| format!("psql printed {bytes:?} instead of a number"))
    }

    /// Executes statements in the service's database, all of them in one transaction.
    pub async fn execute(&self, statements: &str) -> Result<String> {
        self.psql(PASSBOOK_DATABASE, &["--command", statements]).await
    }

    /// Runs psql with these arguments and returns its output.
    pub async fn psql(&self, database: &str, arguments: &[&str]) -> Result<String> {
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--dbname", database]).args(arguments);
        process::run(&mut psql).await
    }

    /// A command of Postgres with the connection arguments.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.arg("--host").arg(&self.socket_folder);
        command.args(["--port", &self.port, "--username", USER]);
        command
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@localhost/{database}?host={}&port={}", self.socket_folder.display(), self.port)
    }
}

/// The port, which is the suffix of the socket's file name: `.s.PGSQL.5432`.
fn port_of(socket_folder: &Path) -> Result<String> {
    let shown = socket_folder.display();
    let names = fs::read_dir(socket_folder)
        .with_context(|| format!("the embedded Postgres has no socket in {shown}"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| Some(name.strip_prefix(".s.PGSQL.")?.to_owned()))
        .find(|port| port.bytes().all(|b| b.is_ascii_digit()))
        .with_context(|| format!("the embedded Postgres has no socket in {shown}"))
}
