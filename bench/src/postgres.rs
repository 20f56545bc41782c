//! The Postgres that the service runs, reached by psql and pgbench as its superuser.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::tools;

/// The database that holds the bank.
pub const BANK: &str = "passbook";
const USER: &str = "passbook";

/// psql and pgbench, and the way to the server.
#[derive(Clone)]
pub struct Postgres {
    binaries: PathBuf,
    socket_folder: PathBuf,
    port: String,
}

/// Finds the folder that holds pgbench and psql.
pub async fn find() -> Result<PathBuf> {
    let set = std::env::var_os("PASSBOOK_PG_BIN").map(PathBuf::from);
    let configured = tools::said("pg_config", &["--bindir"]).await.map(PathBuf::from);
    let on_path = tools::on_path("pgbench").and_then(|path| Some(path.parent()?.to_owned()));
    set.into_iter()
        .chain(configured)
        .chain(newest_of_debian())
        .chain(on_path)
        .find(|folder| folder.join("pgbench").is_file() && folder.join("psql").is_file())
        .context("pgbench and psql are not there: they come with Postgres (`apt-get install postgresql`)")
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        Some((path.file_name()?.to_str()?.parse::<u32>().ok()?, path))
    });
    versions.max().map(|(_, path)| path.join("bin"))
}

impl Postgres {
    /// Reaches the server whose socket is in `socket_folder`.
    pub fn reach(binaries: PathBuf, socket_folder: PathBuf) -> Result<Self> {
        let port = port_of(&socket_folder)?;
        Ok(Self { binaries, socket_folder, port })
    }

    /// Makes a database beside the bank's.
    pub async fn create(&self, database: &str) -> Result<()> {
        self.bank(&format!("CREATE DATABASE {database}")).await.map(|_| ())
    }

    /// Asks the server for the value of one setting.
    pub async fn setting(&self, name: &str) -> Result<String> {
        self.bank(&format!("SHOW {name}")).await
    }

    /// In how many transactions the events after a position were written.
    pub async fn commits_after(&self, position: u64) -> Result<u64> {
        let transactions =
            format!("SELECT xmin FROM event WHERE partition = 0 AND position > {position} GROUP BY xmin");
        let count = self.bank(&format!("SELECT count(*) FROM ({transactions}) AS written")).await?;
        count.parse().with_context(|| format!("{count:?} is no number"))
    }

    /// Carries out statements on the bank's database, all of them in one transaction.
    pub async fn bank(&self, statements: &str) -> Result<String> {
        self.psql(BANK, &["--command", statements]).await
    }

    pub async fn psql(&self, database: &str, what: &[&str]) -> Result<String> {
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--dbname", database]).args(what);
        tools::output(&mut psql).await
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.arg("--host").arg(&self.socket_folder);
        command.args(["--port", &self.port, "--username", USER]);
        command
    }

    /// How others reach a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@localhost/{database}?host={}&port={}", self.socket_folder.display(), self.port)
    }
}

/// A server's socket is a file whose name ends in the port: `.s.PGSQL.5432`.
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
