//! Accepts a bounded number of connections, and drains them on shutdown.
//!
//! It replaces `axum::serve`, which limits neither the number of connections nor the time that headers may take.

use std::{
    future::{Future, pending},
    time::Duration,
};

use axum::Router;
use futures_util::FutureExt;
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt::SndBuf},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{
        ACCEPT_RETRY_MS, ConnectionContext, HEADER_READ_MS_MAX, connection_service, drain_streaming, http1,
        run_connection,
    },
    connection_timeouts::{ReadLimits, TimedStream},
    extract::client_ip::{PeerAddr, TrustedProxies},
    middleware::{denial_log, response_budget::ResponseBudget},
    router::{overloaded_router, router},
    shares::{Reservation, Shares},
    state::AppState,
};
use passbook_telemetry::metrics::METRICS;

/// The most connections that are served at once, if the process may have that many file descriptors.
const CONNECTIONS_MAX: u64 = 16_384;
/// File descriptors for other uses, such as the database and rejected connections; at most half of all.
const OTHER_DESCRIPTORS: u64 = 512;
/// The most connections beyond the limit that are answered 503. Further ones are closed at once.
const OVERFLOW_CONNECTIONS_MAX: u64 = 256;
/// How long the request of a connection beyond the limit may take to arrive, in milliseconds.
const OVERFLOW_READ_MS_MAX: u64 = 1_000;
/// The send buffer of a connection in the kernel, which doubles it. By default it grows to megabytes, and a client that does not
/// read would be noticed only once it is full.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// How long requests in flight may take to complete after shutdown has begun, in milliseconds.
const DRAIN_MS_MAX: u64 = 15_000;

/// Serves the API on `listener` until `shutdown` is cancelled. Then it accepts no further connections, and returns when the
/// requests in flight have completed or [`DRAIN_MS_MAX`] has passed.
///
/// Static content is compressed before the function returns, so that the first connections do not wait for it.
pub fn serve(listener: TcpListener, app: AppState, shutdown: CancellationToken) -> impl Future<Output = ()> + Send {
    // Accepted connections inherit the size from their listener.
    if let Err(error) = setsockopt(&listener, SndBuf, &SEND_BUFFER_BYTES) {
        tracing::warn!(%error, "send buffer size could not be set");
    }
    accept_connections(listener, Server::new(app, shutdown.clone()), shutdown)
}

async fn accept_connections(listener: TcpListener, server: Server, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.serve_connection(stream, PeerAddr(peer)),
                Err(error) => {
                    tracing::warn!(%error, "connection could not be accepted");
                    sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                }
            },
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    server.drain().await;
}

/// The open connections, and the routers and limits for new ones.
struct Server {
    router: Router,
    overloaded: Router,
    limits: ReadLimits,
    budget: ResponseBudget,
    proxies: TrustedProxies,
    slots: Shares,
    overflow_slots: Shares,
    graceful: GracefulShutdown,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// Cancelled when the drain time is over.
    abort: CancellationToken,
}

impl Server {
    fn new(app: AppState, shutdown: CancellationToken) -> Self {
        let (slots, overflow_slots) = connection_limits();
        Self {
            overloaded: overloaded_router(app.trusted_proxies.clone()),
            proxies: app.trusted_proxies.clone(),
            limits: ReadLimits { idle: app.idle_timeout, headers: Duration::from_millis(HEADER_READ_MS_MAX) },
            router: router(app),
            budget: ResponseBudget::new(),
            slots: Shares::new(slots),
            overflow_slots: Shares::new(overflow_slots),
            graceful: GracefulShutdown::new(),
            tasks: TaskTracker::new(),
            shutdown,
            abort: CancellationToken::new(),
        }
    }

    /// Serves the connection. Beyond the limit, or the share of its address, it answers 503. Beyond the limit of such answers it
    /// closes the connection.
    fn serve_connection(&self, stream: TcpStream, peer: PeerAddr) {
        // Small responses are sent at once.
        let _ = stream.set_nodelay(true);
        let context = ConnectionContext::new(peer, self.budget.for_connection());
        let (phase, budget) = (context.phase.clone(), context.budget.clone());
        let timed = |limits| TokioIo::new(TimedStream::new(stream, phase, budget, limits));
        let client = self.proxies.connection_client(peer);
        if let Some(slot) = self.slots.try_reserve(client.clone(), 1) {
            let stream = timed(self.limits);
            let abandoned = drain_streaming(context.streaming.clone(), self.shutdown.child_token());
            let service = connection_service(self.router.clone(), context);
            let connection = self.graceful.watch(http1().serve_connection(stream, service));
            self.spawn_connection(connection, abandoned, slot);
        } else if let Some(slot) = self.overflow_slots.try_reserve(client, 1) {
            let limit = Duration::from_millis(OVERFLOW_READ_MS_MAX);
            let stream = timed(ReadLimits { idle: limit, headers: limit });
            let service = connection_service(self.overloaded.clone(), context);
            let connection = http1().keep_alive(false).serve_connection(stream, service);
            self.spawn_connection(connection, pending(), slot);
        }
    }

    /// Occupies `slot` until the connection ends, is abandoned or aborted. A connection error concerns only its client.
    fn spawn_connection<T>(
        &self,
        connection: impl Future<Output = T> + Send + 'static,
        abandoned: impl Future<Output = ()> + Send + 'static,
        slot: Reservation,
    ) {
        METRICS.connections.inc();
        let abort = self.abort.child_token();
        self.tasks.spawn(async move {
            tokio::select! {
                () = run_connection(connection.map(drop)) => {}
                () = abort.cancelled() => {}
                () = abandoned => {}
            }
            METRICS.connections.dec();
            drop(slot);
        });
    }

    /// Waits for the requests in flight, and aborts those that take too long.
    async fn drain(self) {
        let Self { graceful, tasks, abort, .. } = self;
        if timeout(Duration::from_millis(DRAIN_MS_MAX), graceful.shutdown()).await.is_err() {
            tracing::warn!(drain_ms = DRAIN_MS_MAX, "requests in flight did not complete in time and are aborted");
        }
        abort.cancel();
        tasks.close();
        tasks.wait().await;
        denial_log::flush().await;
    }
}

/// How many connections are served, and how many more are answered 503. Raises the soft limit of file descriptors as far as
/// needed.
fn connection_limits() -> (u64, u64) {
    let wanted = CONNECTIONS_MAX + OTHER_DESCRIPTORS;
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(wanted, |(soft, hard)| {
        let raised = wanted.clamp(soft.min(hard), hard);
        // If the limit cannot be raised, the soft limit applies.
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map_or(soft, |()| raised)
    });
    let others = OTHER_DESCRIPTORS.min(allowed / 2);
    (CONNECTIONS_MAX.min(allowed - others), OVERFLOW_CONNECTIONS_MAX.min(others / 2))
}
