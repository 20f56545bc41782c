//! One HTTP/1.1 connection: its timeouts and buffers, and the extensions of its requests.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1::Builder};
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
use tokio::{net::TcpStream, time::sleep};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, util::MapRequest};

use super::{extract::client_ip::PeerAddr, middleware::response_budget::ConnectionBudget};

/// How long the headers of a request may take to arrive, in milliseconds.
pub const HEADER_READ_MS_MAX: u64 = 10_000;
/// The pause after a connection could not be accepted, as when the process is out of file descriptors, in milliseconds.
pub const ACCEPT_RETRY_MS: u64 = 50;
/// The most bytes of a request's headers, and of an unread response, that one connection buffers.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long a client may read nothing of its response, in milliseconds.
const WRITE_MS_MAX: u64 = 30_000;
/// How long a streaming response may continue after shutdown has begun, in milliseconds.
const STREAMING_DRAIN_MS_MAX: u64 = 500;

/// Whether the current response of a connection is a stream without an end. The handler sets it.
#[derive(Clone, Debug, Default)]
pub struct StreamingFlag(Arc<AtomicBool>);

impl StreamingFlag {
    /// Marks the current response as a stream without an end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The extensions of every request of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    /// The other end.
    pub peer: PeerAddr,
    /// Whether the current response is a stream without an end.
    pub streaming: StreamingFlag,
    /// The memory that the current response has reserved.
    pub budget: ConnectionBudget,
}

/// The service of one connection.
pub type ConnectionService<F> = TowerToHyperService<MapRequest<Router, F>>;

/// The router for the requests of one connection.
pub fn connection_service(
    router: Router,
    context: ConnectionContext,
) -> ConnectionService<impl FnMut(axum::http::Request<Incoming>) -> Request + Clone> {
    TowerToHyperService::new(router.map_request(move |request: axum::http::Request<Incoming>| {
        let ConnectionContext { peer, streaming, budget } = &context;
        // A new request shows that the previous response has ended.
        streaming.clear();
        budget.release();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(streaming.clone());
        request.extensions_mut().insert(*peer);
        request.extensions_mut().insert(budget.clone());
        request
    }))
}

/// Completes after shutdown has begun, if the connection still sends a stream that its client may not be reading.
pub async fn drain_streaming(streaming: StreamingFlag, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    sleep(Duration::from_millis(STREAMING_DRAIN_MS_MAX)).await;
    if !streaming.is_set() {
        pending::<()>().await;
    }
}

/// The HTTP/1.1 settings of a connection whose request headers may take `header_read_ms_max` milliseconds to arrive.
pub fn http1(header_read_ms_max: u64) -> Builder {
    let mut builder = Builder::new();
    // A client may close its sending side after the request and still read the response.
    builder.half_close(true).max_buf_size(BUFFER_BYTES_MAX);
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(header_read_ms_max));
    builder
}

/// Closes a connection whose client stops reading. Otherwise it would stay open for ever.
pub fn with_write_timeout(stream: TcpStream) -> TimeoutStream<TcpStream> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_millis(WRITE_MS_MAX)));
    stream
}
