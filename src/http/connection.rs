//! One HTTP/1.1 connection: its timeouts and buffers, and the extensions of its requests.

use std::{
    any::Any,
    convert::Infallible,
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use futures_util::FutureExt;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1::Builder,
    service::{HttpService, service_fn},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    connection_timeouts::{RequestPhase, ServingGuard},
    error_code::ErrorCode,
    extract::{client_ip::PeerAddr, headers::RequestId},
    middleware::response_budget::ConnectionBudget,
    problem::Problem,
    unread_body::Unread,
};
use passbook_telemetry::{
    metrics::METRICS,
    supervision::{self, panic_message},
};

/// How long the headers of a request may take to arrive after their first byte, in milliseconds.
pub const HEADER_READ_MS_MAX: u64 = 10_000;
/// The pause after a connection could not be accepted, as when the process is out of file descriptors, in milliseconds.
pub const ACCEPT_RETRY_MS: u64 = 50;
/// The most bytes of a request's headers, and of an unread response, that one connection buffers.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
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

/// What the requests of one connection share, as extensions.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    /// The other end.
    pub peer: PeerAddr,
    /// Whether the current response is a stream without an end.
    pub streaming: StreamingFlag,
    /// The memory that the current response has reserved.
    pub budget: ConnectionBudget,
    /// Whether a request is being served.
    pub phase: RequestPhase,
}

impl ConnectionContext {
    /// The context of a new connection.
    pub fn new(peer: PeerAddr, budget: ConnectionBudget) -> Self {
        Self { peer, streaming: StreamingFlag::default(), budget, phase: RequestPhase::default() }
    }
}

/// The service of one connection.
pub fn connection_service(
    router: Router,
    context: ConnectionContext,
) -> impl HttpService<
    Incoming,
    ResBody = Body,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send,
> + Send {
    service_fn(move |request| serve_request(router.clone(), context.clone(), request))
}

async fn serve_request(
    router: Router,
    context: ConnectionContext,
    request: axum::http::Request<Incoming>,
) -> Result<Response, Infallible> {
    let ConnectionContext { peer, streaming, budget, phase } = context;
    let serving = phase.begin_request();
    // A new request shows that the previous response has ended.
    streaming.clear();
    budget.release();
    let (parts, body) = request.into_parts();
    let (body, unread) = Unread::track(body, parts.headers.contains_key(header::EXPECT));
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(streaming);
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(budget);
    let path = request.uri().path().to_owned();
    let mut response = match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
        Ok(response) => response?,
        Err(panic) => panic_response(&*panic, &path),
    };
    if !unread.discard().await {
        // The client then does not send its next request on a connection that is about to be closed.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Body::new(ServedBody { body, _serving: serving })))
}

/// Logs a panic of a layer around the handlers and answers 500. Panics of handlers are caught inside these layers.
fn panic_response(panic: &(dyn Any + Send), path: &str) -> Response {
    let RequestId(id) = RequestId::from_headers(&HeaderMap::new());
    METRICS.request_panics.inc();
    tracing::error!(request_id = &*id, path, panic = panic_message(panic), "request panicked");
    Problem::from_code(ErrorCode::InternalError).render(path, &id)
}

/// Runs a connection to its end. A panic, for example of the body of a response, ends only this connection.
pub async fn run_connection(connection: impl Future<Output = ()>) {
    let run = AssertUnwindSafe(async {
        supervision::panic_if_injected("http connection");
        connection.await;
    });
    if let Err(panic) = run.catch_unwind().await {
        METRICS.request_panics.inc();
        tracing::error!(panic = panic_message(&*panic), "connection panicked");
    }
}

/// The body of a response. The connection is idle when the body has been sent.
struct ServedBody {
    body: Body,
    _serving: ServingGuard,
}

impl HttpBody for ServedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Completes after shutdown has begun, if the connection still sends a stream that its client may not be reading.
pub async fn drain_streaming(streaming: StreamingFlag, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    sleep(Duration::from_millis(STREAMING_DRAIN_MS_MAX)).await;
    if !streaming.is_set() {
        pending::<()>().await;
    }
}

/// The HTTP/1.1 settings of a connection. [`super::connection_timeouts`] limits how long it waits.
pub fn http1() -> Builder {
    let mut builder = Builder::new();
    // A client may close its sending side after the request and still read the response.
    builder.half_close(true).max_buf_size(BUFFER_BYTES_MAX).header_read_timeout(None);
    builder
}
