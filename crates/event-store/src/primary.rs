//! Connects to the server that accepts writes. Several servers may be configured. One of them is the primary; a failover makes
//! another one the primary.

use std::{
    io,
    ops::Range,
    sync::{Arc, Once, Weak},
    time::{Duration, Instant},
};

use super::{
    confirmation::confirm,
    session::{check_session, checked_pool_options},
};
use futures_util::future::select_ok;
use passbook_telemetry::supervision;
use sqlx::{
    Connection, PgConnection, PgPool, Result,
    postgres::{PgConnectOptions, PgPoolOptions},
    query_scalar,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long a connection attempt may take. A connection that opens within this time after a failover may lead to the former
/// primary, because its attempt may have started before.
const CONNECTING_MAX: Duration = Duration::from_secs(2);
/// How often the primary is searched for while nothing is written.
const WATCH_INTERVAL_MS: u64 = 2_000;
/// The time limit of one such search.
const FIND_MS_MAX: u64 = 5_000;

/// Connects to the configured server that accepts writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PrimaryConnector {
    servers: Vec<PgConnectOptions>,
    /// The index of the server that accepted writes last. All clones share it.
    primary: Arc<watch::Sender<usize>>,
    /// Starts [`watch_primary`] once for all clones.
    watch_started: Arc<Once>,
    /// The partitions whose rows each new connection confirms.
    confirmed: Option<Range<i16>>,
    /// Whether the partitions lie on the nodes of a Citus cluster.
    is_distributed: bool,
}

impl PrimaryConnector {
    /// Creates a connector to one server or to several. `servers` must not be empty.
    pub fn new(servers: Vec<PgConnectOptions>) -> Self {
        Self {
            servers,
            primary: Arc::new(watch::Sender::new(0)),
            watch_started: Arc::new(Once::new()),
            confirmed: None,
            is_distributed: false,
        }
    }

    /// Returns a connector to the same servers with changed connection options.
    #[must_use]
    pub fn with_options(&self, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Self {
        Self { servers: self.servers.iter().cloned().map(change).collect(), ..self.clone() }
    }

    /// Returns a connector whose connections show only rows of the log that the standbys have: each new connection first waits
    /// for a commit, as [`confirm`] does. For readers that pass on what they read.
    #[must_use]
    pub fn confirmed(&self, partitions: Range<i16>) -> Self {
        Self { confirmed: Some(partitions), ..self.clone() }
    }

    /// Returns a connector that knows whether the partitions lie on the nodes of a Citus cluster.
    #[must_use]
    pub fn distributed(&self, is_distributed: bool) -> Self {
        Self { is_distributed, ..self.clone() }
    }

    /// Whether the partitions lie on the nodes of a Citus cluster. It plans some statements for every shard, and others take their
    /// place.
    pub fn is_distributed(&self) -> bool {
        self.is_distributed
    }

    /// Connects to the server that accepts writes. With several servers, all are tried at once, so that one that does not
    /// respond causes no delay.
    ///
    /// # Errors
    /// No server can be reached, none accepts writes, or a session setting is not the requested one.
    pub async fn connect(&self) -> Result<PgConnection> {
        let mut connection = self.connect_to_primary().await?;
        if let Some(partitions) = &self.confirmed {
            confirm(&mut connection, partitions.clone()).await?;
        }
        Ok(connection)
    }

    async fn connect_to_primary(&self) -> Result<PgConnection> {
        let [only] = &self.servers[..] else {
            let attempts = self.servers.iter().enumerate();
            let attempts = attempts.map(|(index, server)| Box::pin(connect_if_writable(index, server)));
            let ((index, connection), _) = select_ok(attempts).await?;
            self.primary.send_if_modified(|primary| std::mem::replace(primary, index) != index);
            return Ok(connection);
        };
        connect_checked(only).await
    }

    /// Watches for failovers. A task that keeps a connection for long must replace it after a failover, even if the former
    /// primary still responds.
    pub fn failover_watch(&self) -> FailoverWatch {
        FailoverWatch(self.primary.subscribe())
    }

    /// Creates a pool of connections to the primary. After a failover the pool drops its old connections, even if the former
    /// primary still responds.
    ///
    /// With several servers it spawns tasks, so it must be called within a Tokio runtime.
    pub fn pool(&self, options: PgPoolOptions) -> PgPool {
        let primary = self.servers[*self.primary.borrow()].clone();
        let options = checked_pool_options(options, &primary, self.confirmed.clone());
        if self.servers.len() == 1 {
            return options.connect_lazy_with(primary);
        }
        let watch = watch_primary(self.servers.clone(), Arc::downgrade(&self.primary));
        let watch_task = || drop(supervision::spawn("primary watch", watch));
        self.watch_started.call_once(watch_task);
        let (retargeted, last_retarget) = watch::channel(None::<Instant>);
        let options = options.before_acquire(move |_, connection| {
            let leads_to_primary =
                last_retarget.borrow().is_none_or(|at| connection.age + CONNECTING_MAX < at.elapsed());
            Box::pin(async move { Ok(leads_to_primary) })
        });
        let pool = options.connect_lazy_with(primary);
        let retarget = retarget_pool(self.servers.clone(), self.primary.subscribe(), pool.clone(), retargeted);
        supervision::spawn("pool retarget", retarget);
        pool
    }
}

/// Reports whether a failover happened since the last check.
pub struct FailoverWatch(watch::Receiver<usize>);

impl FailoverWatch {
    /// Whether another server became the primary since the last call.
    pub fn has_failed_over(&mut self) -> bool {
        let has_failed_over = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        has_failed_over
    }
}

/// Connects, and checks the session settings.
async fn connect_checked(server: &PgConnectOptions) -> Result<PgConnection> {
    let mut connection = PgConnection::connect_with(server).await?;
    check_session(&mut connection, server).await?;
    Ok(connection)
}

async fn connect_if_writable(index: usize, server: &PgConnectOptions) -> Result<(usize, PgConnection)> {
    let mut connection = connect_checked(server).await?;
    let is_read_only = query_scalar!(r#"SELECT current_setting('transaction_read_only')::boolean AS "is_read_only!""#);
    if is_read_only.fetch_one(&mut connection).await? {
        let message = "no server that responds accepts writes";
        return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, message).into());
    }
    Ok((index, connection))
}

/// Searches for the primary at intervals, because an instance that only reads would not notice a failover. Ends when the last
/// connector is dropped.
async fn watch_primary(servers: Vec<PgConnectOptions>, primary: Weak<watch::Sender<usize>>) {
    loop {
        sleep(Duration::from_millis(WATCH_INTERVAL_MS)).await;
        let Some(primary) = primary.upgrade() else { return };
        let watch_started = Arc::new(Once::new());
        let connector = PrimaryConnector {
            servers: servers.clone(),
            primary,
            watch_started,
            confirmed: None,
            is_distributed: false,
        };
        if let Ok(connection) = with_timeout(Duration::from_millis(FIND_MS_MAX), connector.connect()).await {
            // Best effort: the connection is closed either way.
            let _ = connection.close().await;
        }
    }
}

/// Points the pool to each new primary. Ends when the last connector is dropped.
async fn retarget_pool(
    servers: Vec<PgConnectOptions>,
    mut primary: watch::Receiver<usize>,
    pool: PgPool,
    retargeted: watch::Sender<Option<Instant>>,
) {
    while primary.changed().await.is_ok() {
        let index = *primary.borrow_and_update();
        tracing::warn!(server = index + 1, "another server accepts writes; connecting to it");
        pool.set_connect_options(servers[index].clone());
        retargeted.send_replace(Some(Instant::now()));
    }
}

/// Runs database work with a time limit. Every other crate that bounds a statement uses this function.
///
/// # Errors
/// The error of the work, or [`sqlx::Error::Io`] of kind [`io::ErrorKind::TimedOut`] after `limit`. The connection is then in
/// an unknown state: close it, do not reuse it.
pub async fn with_timeout<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("no response within {limit:?}");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
    })
}
