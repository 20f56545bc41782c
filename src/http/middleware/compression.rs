//! Compresses the responses of the API for clients that accept gzip.
//!
//! Compressing costs more than most requests. At most half of the processor cores therefore compress at the same time; further
//! responses are sent uncompressed. Everything outside of `/v1/` is small or was compressed before ([`StaticContent`]).
//!
//! The compression layer of tower-http would replace the status by 406 after the handler has run, also that of a recorded command, if
//! the client accepts neither gzip nor the uncompressed body.
//!
//! [`StaticContent`]: crate::http::static_content::StaticContent

use std::{
    future::Future,
    io::Write,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread::available_parallelism,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::{extract::content_negotiation::accepts_gzip, static_content::SharedBody};

/// Smaller responses are not compressed.
const COMPRESSED_BYTES_MIN: u64 = 128;
/// The bytes that are compressed before another task gets a turn.
const INPUT_BYTES: usize = 16 * 1024;
/// The least bytes that are sent at once, except at the end.
const OUTPUT_BYTES_MIN: usize = 4 * 1024;

/// The encoders that may exist at the same time. A client that does not read its response occupies one.
#[derive(Clone, Debug)]
pub struct EncoderBudget(Arc<Semaphore>);

impl EncoderBudget {
    /// One encoder for every two processor cores, and at least one.
    pub fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((cores / 2).max(1))))
    }
}

/// Compresses a response under `/v1/` if its client accepts it and an encoder is free.
pub async fn compress<F: Future<Output = Response>>(
    budget: &EncoderBudget,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let is_api = request.uri().path().starts_with("/v1/");
    let is_accepted = accepts_gzip(request.headers());
    let mut response = next(request).await;
    if !is_api || !is_compressible(&response) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let is_small = response.body().size_hint().exact().is_some_and(|bytes| bytes < COMPRESSED_BYTES_MIN);
    if !is_accepted || is_small {
        return response;
    }
    match Arc::clone(&budget.0).try_acquire_owned() {
        Ok(permit) => gzip(response, permit),
        Err(_) => response,
    }
}

/// Whether the representation depends on the encoding that the client accepts. Streams of single events and lines are never
/// compressed, because an encoder would hold them back.
fn is_compressible(response: &Response) -> bool {
    if response.extensions().get::<SharedBody>().is_some() {
        return false;
    }
    match response.headers().get(header::CONTENT_TYPE) {
        Some(kind) => kind != "text/event-stream" && kind != "application/x-ndjson",
        None => response.status() == StatusCode::NOT_MODIFIED,
    }
}

fn gzip(response: Response, permit: OwnedSemaphorePermit) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    Response::from_parts(parts, Body::new(GzipBody { body, input: Bytes::new(), encoder, _permit: permit }))
}

/// A body that is compressed while it is sent.
struct GzipBody {
    body: Body,
    /// What was read from `body` and is not compressed yet.
    input: Bytes,
    /// `None` after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for GzipBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            if this.input.is_empty() {
                match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                    // Trailers are not used.
                    Some(Ok(frame)) => this.input = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => {
                        this.encoder = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => {
                        let output = this.encoder.take().map_or(Ok(Vec::new()), GzEncoder::finish);
                        return Poll::Ready(Some(
                            output.map(|last| Frame::data(last.into())).map_err(axum::Error::new),
                        ));
                    }
                }
                continue;
            }
            let piece = this.input.split_to(this.input.len().min(INPUT_BYTES));
            if let Err(error) = encoder.write_all(&piece) {
                this.encoder = None;
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
            if encoder.get_ref().len() >= OUTPUT_BYTES_MIN {
                return Poll::Ready(Some(Ok(Frame::data(mem::take(encoder.get_mut()).into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::to_bytes,
        extract::State,
        middleware::{Next, from_fn_with_state},
        routing::get,
    };
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn responses_beyond_the_encoder_budget_are_uncompressed() {
        let routes = Router::new()
            .route("/v1/data", get(async || "a".repeat(100_000)))
            .route("/data", get(async || "a".repeat(100_000)));
        let budget = EncoderBudget(Arc::new(Semaphore::new(1)));
        let layer = async |State(budget): State<EncoderBudget>, request: Request, next: Next| {
            compress(&budget, request, |request| next.run(request)).await
        };
        let service = routes.layer(from_fn_with_state(budget, layer));
        let fetch = async |path: &str| {
            let request = Request::builder().uri(path).header("accept-encoding", "gzip").body(Body::empty());
            service.clone().oneshot(request.expect("a request")).await.expect("a response")
        };
        let is_compressed = |response: &Response| response.headers().contains_key("content-encoding");
        let first = fetch("/v1/data").await;
        assert!(is_compressed(&first));
        assert!(!is_compressed(&fetch("/v1/data").await), "the first response is unread and occupies the encoder");
        assert!(to_bytes(first.into_body(), usize::MAX).await.expect("a body").len() < 2_000);
        assert!(is_compressed(&fetch("/v1/data").await));
        assert!(!is_compressed(&fetch("/data").await), "a path outside of the API");
    }
}
