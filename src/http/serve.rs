//! Accepts connections, at most so many at once, and lets them end in order.
//!
//! In place of `axum::serve`, which bounds neither the number of connections nor the time that headers may take.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1::Builder};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt::SndBuf},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tower::{ServiceExt, util::MapRequest};

use super::{
    App, Rooms,
    address::Peer,
    unread::{Budget, Unread},
};
use passbook_telemetry::metrics::METRICS;

/// How many connections are served at once, as far as the process may have so many file descriptors.
const CONNECTIONS_MAX: usize = 16_384;
/// File descriptors left for everything else, half of all where there are few: the database, those who are turned away.
const OTHER_DESCRIPTORS: usize = 512;
/// How many connections beyond that are told so at once; others are closed without a word.
const TURNED_AWAY_MAX: usize = 256;
/// How long one that is turned away may take to ask.
const TURNED_AWAY_READ_MS_MAX: u64 = 1_000;
/// How long the headers of a request may take to arrive.
pub(super) const HEADER_READ_MS_MAX: u64 = 10_000;
/// How much of a request's headers and of an unread answer one connection may keep in memory.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How much of an unread answer the kernel may keep for one connection; it takes twice as much for its own needs. Left to
/// itself it keeps megabytes, and whoever does not read is noticed only once all of that is full.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// How long a client may go without taking any of its answer.
const WRITE_MS_MAX: u64 = 30_000;
/// How long requests in flight may take to end when the service stops.
const DRAIN_MS_MAX: u64 = 15_000;
/// The same for an answer without an end, which the client may not be reading.
const ENDLESS_DRAIN_MS_MAX: u64 = 500;
/// Pause when no connection can be accepted, as when the process is out of file descriptors.
pub(super) const ACCEPT_RETRY_MS: u64 = 50;

/// A listening server.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    is_leaving: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on for `delay`, and says that it is not ready any more: whoever shares requests out sends no more of them. What
    /// is on its way when the listener is gone would be lost.
    pub async fn leave(&self, delay: Duration) {
        self.is_leaving.store(true, Ordering::Relaxed);
        sleep(delay).await;
    }

    /// Accepts no more, and waits for the requests in flight.
    pub async fn stop(self) {
        // A server that has ended needs no word.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the server did not end as it should");
        }
    }
}

/// Serves `rooms` on `listener` until told to stop.
pub fn serve(listener: TcpListener, rooms: Rooms) -> Server {
    // Accepted connections have it from their listener.
    if let Err(error) = setsockopt(&listener, SndBuf, &SEND_BUFFER_BYTES) {
        tracing::warn!(%error, "connections keep as much unread as the kernel likes");
    }
    let (stop, stopped) = oneshot::channel();
    let is_leaving = Arc::clone(&rooms.is_leaving);
    Server { stop, is_leaving, task: tokio::spawn(run(listener, App(Arc::new(rooms)), stopped)) }
}

async fn run(listener: TcpListener, app: App, mut stopped: oneshot::Receiver<()>) {
    let feed = app.feed.clone();
    let overloaded = super::overloaded(app.proxies.clone());
    let bank = super::router(app);
    let (served, turned_away) = bounds();
    let places = Arc::new(Semaphore::new(served));
    let waiting_room = Arc::new(Semaphore::new(turned_away));
    let open = GracefulShutdown::new();
    let budget = Budget::new();
    let (cut, cutting) = watch::channel(());
    let (stop, stopping) = watch::channel(false);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => (stream, Peer(peer)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                    continue;
                }
            },
            _ = &mut stopped => break,
        };
        // Small answers go out at once.
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Box::pin(with_write_timeout(stream)));
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let endless = Endless::default();
            let service = service(bank.clone(), peer, endless.clone(), budget.connection());
            let connection = open.watch(http1(HEADER_READ_MS_MAX).serve_connection(stream, service));
            let left = abandoned(endless, stopping.clone());
            hold(connection, left, cutting.clone(), place);
        } else if let Ok(place) = Arc::clone(&waiting_room).try_acquire_owned() {
            let service = service(overloaded.clone(), peer, Endless::default(), budget.connection());
            let connection = http1(TURNED_AWAY_READ_MS_MAX).keep_alive(false).serve_connection(stream, service);
            hold(connection, pending(), cutting.clone(), place);
        }
    }
    drop((listener, bank));
    feed.end();
    stop.send_replace(true);
    if timeout(Duration::from_millis(DRAIN_MS_MAX), open.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in {DRAIN_MS_MAX} ms and are cut off");
    }
    // With them go the last handles to the bank, which then ends.
    drop(cut);
}

/// Says of a connection that what it carries has no end of its own. Every request can tell its connection so.
#[derive(Clone, Debug, Default)]
pub(super) struct Endless(Arc<AtomicBool>);

impl Endless {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The router for one connection.
fn service(
    router: Router,
    peer: Peer,
    endless: Endless,
    unread: Unread,
) -> TowerToHyperService<MapRequest<Router, impl FnMut(axum::http::Request<Incoming>) -> Request + Clone>> {
    TowerToHyperService::new(router.map_request(move |request: axum::http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        // What the connection carried before has ended.
        endless.0.store(false, Ordering::Relaxed);
        unread.was_read();
        request.extensions_mut().insert(endless.clone());
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(unread.clone());
        request
    }))
}

/// Comes when the service stops and the connection still carries what has no end: nobody reads it.
async fn abandoned(endless: Endless, mut stopping: watch::Receiver<bool>) {
    let stops = stopping.wait_for(|stopping| *stopping).await.is_ok();
    sleep(Duration::from_millis(ENDLESS_DRAIN_MS_MAX)).await;
    if !(stops && endless.0.load(Ordering::Relaxed)) {
        pending::<()>().await;
    }
}

pub(super) fn http1(header_read_ms_max: u64) -> Builder {
    let mut builder = Builder::new();
    // A client may close its side once it has asked, and still be answered.
    builder.half_close(true).max_buf_size(BUFFER_BYTES_MAX);
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(header_read_ms_max));
    builder
}

/// Keeps the place until the connection ends, however it does: a client that breaks it off is its own affair.
fn hold<T>(
    connection: impl Future<Output = T> + Send + 'static,
    left: impl Future<Output = ()> + Send + 'static,
    mut cutting: watch::Receiver<()>,
    place: OwnedSemaphorePermit,
) {
    METRICS.connections.inc();
    tokio::spawn(async move {
        tokio::select! {
            _ = connection => {}
            _ = cutting.changed() => {}
            () = left => {}
        }
        METRICS.connections.dec();
        drop(place);
    });
}

/// A client that does not read would otherwise keep its connection for ever.
pub(super) fn with_write_timeout(stream: TcpStream) -> TimeoutStream<TcpStream> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_millis(WRITE_MS_MAX)));
    stream
}

/// How many connections are served and how many more are turned away, as far as the process may have descriptors, once
/// its soft limit is raised as far as needed.
fn bounds() -> (usize, usize) {
    let wanted = (CONNECTIONS_MAX + OTHER_DESCRIPTORS) as u64;
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(wanted, |(soft, hard)| {
        let raised = wanted.clamp(soft.min(hard), hard);
        // Where the limit cannot be raised, it stays as it is.
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map_or(soft, |()| raised)
    });
    let descriptors = usize::try_from(allowed).unwrap_or(usize::MAX);
    let others = OTHER_DESCRIPTORS.min(descriptors / 2);
    (CONNECTIONS_MAX.min(descriptors - others), TURNED_AWAY_MAX.min(others / 2))
}
