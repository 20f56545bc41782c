//! A batch as lines of JSON: each is executed when it arrives, and the results are sent while further lines are still arriving.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::time::timeout;

use super::{Batch, NDJSON, exchange::Exchange, lines::Lines};
use crate::http::{
    extract::body::require_identity,
    header_names::{IDEMPOTENCY_KEY, X_ACCEL_BUFFERING},
    problem::Problem,
};

/// Begins the response. Its body reads the request while it is sent.
///
/// # Errors
/// The request has an option that is not for lines of JSON, or its body is compressed.
pub async fn execute(batch: Batch, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    if batch.dry_run {
        let detail = "Lines of JSON cannot be executed as a dry run. Send a batch as application/json.";
        return Err(Problem::invalid_parameter("dry_run", detail));
    }
    if headers.contains_key(IDEMPOTENCY_KEY) {
        let detail = "Idempotency-Key is for atomic batches. Give each line an idempotency_key.";
        return Err(Problem::invalid_parameter("Idempotency-Key", detail));
    }
    require_identity(headers)?;
    let mut lines = Lines::new(body);
    if headers.contains_key(header::EXPECT) {
        // Reading sends `100 Continue`, which must precede the response. A client that never sends is noticed by the exchange.
        let _ = timeout(batch.app.idle_timeout, lines.wait_for_first_bytes()).await;
    }
    let mut response_headers = HeaderMap::new();
    response_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response_headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    batch.note_preference(&mut response_headers);
    let exchange = Exchange::new(batch, headers, lines);
    let results = stream::unfold(exchange, async |mut exchange| {
        let results = exchange.next_results().await?;
        Some((Ok::<_, Infallible>(results), exchange))
    });
    Ok((response_headers, Body::from_stream(results)).into_response())
}
