//! The Postgres under a bank, as somebody sees it who may signal its processes.

use std::{fs, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions, query_scalar};
use tokio::time::timeout;

/// A server that does not answer a look by then is not there.
const LOOK_S_MAX: u64 = 2;

/// A server in the data folder of a passbook.
pub struct Postgres {
    data: PathBuf,
}

/// A process that stands still until this is dropped.
pub struct Frozen(Pid);

impl Postgres {
    pub fn in_folder(data: PathBuf) -> Self {
        Self { data }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.data.join("run/.s.PGSQL.5432")
    }

    pub fn database_url(&self) -> String {
        format!("postgres://passbook@localhost/passbook?host={}", self.data.join("run").display())
    }

    /// A connection past passbook and every proxy, as the superuser.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = self.database_url().parse()?;
        timeout(Duration::from_secs(LOOK_S_MAX), options.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    pub fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        is_postgres(pid).then(|| Pid::from_raw(pid))
    }

    /// The server process behind one of passbook's connections, by `application_name`.
    pub async fn backend(&self, of: &str) -> Option<Pid> {
        let look = async {
            let mut connection = self.connect().await.ok()?;
            query_scalar("SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY random() LIMIT 1")
                .bind(of)
                .fetch_optional(&mut connection)
                .await
                .ok()?
        };
        let pid = timeout(Duration::from_secs(LOOK_S_MAX), look).await.ok()??;
        is_postgres(pid).then(|| Pid::from_raw(pid))
    }
}

impl Frozen {
    pub fn new(pid: Pid) -> Option<Self> {
        kill(pid, Signal::SIGSTOP).ok()?;
        Some(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // One that has ended meanwhile needs no word.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn is_postgres(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
}
