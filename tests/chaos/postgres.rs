//! Access to the Postgres of a testbed: its connection URL, and the process ids that faults send signals to.

use std::{fs, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions, query_scalar};
use tokio::time::timeout;

/// A server that does not respond within this time counts as down.
const RESPONSE_S_MAX: u64 = 2;

/// A Postgres server in a Passbook data folder.
pub struct Postgres {
    data: PathBuf,
}

/// A process that is suspended (SIGSTOP) until this is dropped.
pub struct FrozenProcess(Pid);

impl Postgres {
    pub fn in_folder(data: PathBuf) -> Self {
        Self { data }
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join("run/.s.PGSQL.5432")
    }

    pub fn database_url(&self) -> String {
        format!("postgres://passbook@localhost/passbook?host={}", self.data.join("run").display())
    }

    /// Connects as the superuser, without any proxy in between.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = self.database_url().parse()?;
        timeout(Duration::from_secs(RESPONSE_S_MAX), options.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    pub fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        is_postgres(pid).then(|| Pid::from_raw(pid))
    }

    /// A random backend of the connections with this `application_name`.
    pub async fn backend(&self, application_name: &str) -> Option<Pid> {
        let query = async {
            let mut connection = self.connect().await.ok()?;
            query_scalar("SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY random() LIMIT 1")
                .bind(application_name)
                .fetch_optional(&mut connection)
                .await
                .ok()?
        };
        let pid = timeout(Duration::from_secs(RESPONSE_S_MAX), query).await.ok()??;
        is_postgres(pid).then(|| Pid::from_raw(pid))
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
