//! Access to the Postgres of a testbed: its connection URL, and the process ids that faults send signals to.

use std::{fs, path::PathBuf, time::Duration};

use passbook_testkit::cluster::TestDatabase;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions, query, query_scalar};
use tokio::time::timeout;

/// A server that does not respond within this time counts as down.
const RESPONSE_S_MAX: u64 = 2;

/// The Postgres of a testbed.
pub enum Postgres {
    /// A server in a Passbook data folder.
    InFolder(PathBuf),
    /// A database of the server that the run was given. Its processes cannot be reached.
    Given(TestDatabase),
}

/// A process that is suspended (SIGSTOP) until this is dropped.
pub struct FrozenProcess(Pid);

impl Postgres {
    /// Whether faults can end and suspend the processes of the server.
    pub fn has_processes(&self) -> bool {
        match self {
            Self::InFolder(_) => true,
            Self::Given(_) => false,
        }
    }

    pub fn database_url(&self) -> String {
        match self {
            Self::InFolder(data) => {
                format!("postgres://passbook@localhost/passbook?host={}", data.join("run").display())
            }
            Self::Given(database) => database.url(),
        }
    }

    /// Connects as the owner, without any proxy in between.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = self.database_url().parse()?;
        timeout(Duration::from_secs(RESPONSE_S_MAX), options.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    pub fn postmaster(&self) -> Option<Pid> {
        let Self::InFolder(data) = self else { return None };
        let file = fs::read_to_string(data.join("postgres/postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        is_postgres(pid).then(|| Pid::from_raw(pid))
    }

    /// The process of a random connection with this `application_name`.
    pub async fn backend(&self, application_name: &str) -> Option<Pid> {
        let pid = self.random_backend(application_name).await.filter(|_| self.has_processes())?;
        is_postgres(pid).then(|| Pid::from_raw(pid))
    }

    /// Ends a random connection with this `application_name`. Returns whether there was one.
    pub async fn terminate_backend(&self, application_name: &str) -> bool {
        let Some(pid) = self.random_backend(application_name).await else { return false };
        let Ok(mut connection) = self.connect().await else { return false };
        query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut connection).await.is_ok()
    }

    async fn random_backend(&self, application_name: &str) -> Option<i32> {
        let random = async {
            let mut connection = self.connect().await.ok()?;
            let pid = query_scalar(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1
                 ORDER BY random() LIMIT 1",
            );
            pid.bind(application_name).fetch_optional(&mut connection).await.ok()?
        };
        timeout(Duration::from_secs(RESPONSE_S_MAX), random).await.ok()?
    }
}

impl FrozenProcess {
    pub fn new(pid: Pid) -> Option<Self> {
        kill(pid, Signal::SIGSTOP).ok()?;
        Some(Self(pid))
    }
}

impl Drop for FrozenProcess {
    fn drop(&mut self) {
        // Ignore errors: the process may have exited.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn is_postgres(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
}
