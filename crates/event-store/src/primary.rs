//! The servers that may hold the log, of which one takes writes at a time. After a failover it is another one, and whoever
//! connects finds it.

use std::{
    io,
    sync::{Arc, Once, Weak},
    time::{Duration, Instant},
};

use futures_util::future::select_ok;
use sqlx::{
    Connection, PgConnection, PgPool, Result,
    postgres::{PgConnectOptions, PgPoolOptions},
    query_scalar,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// So long a connection may have been on its way to a server that takes no writes any more.
const CONNECTING_MAX: Duration = Duration::from_secs(2);
/// How often somebody looks which one that is, though nobody writes.
const LOOK_OUT_MS: u64 = 2_000;
/// How long that may take.
const FIND_MS_MAX: u64 = 5_000;

/// The way to whichever server takes writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Primary {
    servers: Vec<PgConnectOptions>,
    /// Which of them took writes when somebody looked last; shared by all who were shaped from one.
    last: Arc<watch::Sender<usize>>,
    /// Whether somebody looks out for another; shared as well.
    looks_out: Arc<Once>,
}

impl Primary {
    /// One server, or several of which the one that takes writes is found.
    pub fn new(servers: Vec<PgConnectOptions>) -> Self {
        Self { servers, last: Arc::new(watch::Sender::new(0)), looks_out: Arc::new(Once::new()) }
    }

    /// The same servers, connected to otherwise.
    #[must_use]
    pub fn shaped(&self, shape: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Self {
        Self { servers: self.servers.iter().cloned().map(shape).collect(), ..self.clone() }
    }

    /// Connects to the server that takes writes. Several are asked at once, so that one that does not answer holds nobody up.
    ///
    /// # Errors
    /// None of them can be reached, or none takes writes.
    pub async fn connect(&self) -> Result<PgConnection> {
        let [only] = &self.servers[..] else {
            let asked = self.servers.iter().enumerate().map(|(at, server)| Box::pin(writable(at, server)));
            let ((at, connection), _) = select_ok(asked).await?;
            self.last.send_if_modified(|last| std::mem::replace(last, at) != at);
            return Ok(connection);
        };
        PgConnection::connect_with(only).await
    }

    /// Tells when another server is found: who keeps a connection for long lets go of it then, though it may answer.
    pub fn moves(&self) -> Moves {
        Moves(self.last.subscribe())
    }

    /// A pool of connections to it, which follows when somebody finds another: what is connected to the old one is not used
    /// again, though it may answer.
    pub fn pool(&self, options: PgPoolOptions) -> PgPool {
        let first = self.servers[*self.last.borrow()].clone();
        if self.servers.len() == 1 {
            return options.connect_lazy_with(first);
        }
        self.looks_out.call_once(|| drop(tokio::spawn(look_out(self.servers.clone(), Arc::downgrade(&self.last)))));
        let (moving, moved_at) = watch::channel(None::<Instant>);
        let options = options.before_acquire(move |_, connection| {
            let is_of_now = moved_at.borrow().is_none_or(|at| connection.age + CONNECTING_MAX < at.elapsed());
            Box::pin(async move { Ok(is_of_now) })
        });
        let pool = options.connect_lazy_with(first);
        tokio::spawn(follow(self.servers.clone(), self.last.subscribe(), pool.clone(), moving));
        pool
    }
}

/// What has become of the server since somebody looked.
pub struct Moves(watch::Receiver<usize>);

impl Moves {
    /// Whether another one takes writes now than at the last call.
    pub fn moved(&mut self) -> bool {
        let moved = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        moved
    }
}

async fn writable(at: usize, server: &PgConnectOptions) -> Result<(usize, PgConnection)> {
    let mut connection = PgConnection::connect_with(server).await?;
    let is_read_only = query_scalar!(r#"SELECT current_setting('transaction_read_only')::boolean AS "is_read_only!""#);
    if is_read_only.fetch_one(&mut connection).await? {
        return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "no server that answers takes writes").into());
    }
    Ok((at, connection))
}

/// Looks which server takes writes, for the sake of those who only read.
async fn look_out(servers: Vec<PgConnectOptions>, last: Weak<watch::Sender<usize>>) {
    loop {
        sleep(Duration::from_millis(LOOK_OUT_MS)).await;
        let Some(last) = last.upgrade() else { return };
        let primary = Primary { servers: servers.clone(), last, looks_out: Arc::new(Once::new()) };
        if let Ok(Ok(connection)) = timeout(Duration::from_millis(FIND_MS_MAX), primary.connect()).await {
            // A failed goodbye harms nobody.
            let _ = connection.close().await;
        }
    }
}

/// Ends with the last of those who may find another.
async fn follow(
    servers: Vec<PgConnectOptions>,
    mut last: watch::Receiver<usize>,
    pool: PgPool,
    moving: watch::Sender<Option<Instant>>,
) {
    while last.changed().await.is_ok() {
        let at = *last.borrow_and_update();
        tracing::warn!(server = at + 1, "writes are taken by another server");
        pool.set_connect_options(servers[at].clone());
        moving.send_replace(Some(Instant::now()));
    }
}

/// Runs database work with a time limit. Every other crate that bounds a statement uses this function.
///
/// # Errors
/// The error of the work, or [`sqlx::Error::Io`] of kind [`io::ErrorKind::TimedOut`] after `limit`. The connection is then in
/// an unknown state: close it, do not reuse it.
pub async fn with_timeout<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("no answer within {limit:?}");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
    })
}
