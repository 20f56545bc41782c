//! Takes each request from the bucket of its caller, and adds the `RateLimit` headers to the response.

use std::{future::Future, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request},
    http::{header, request::Parts},
    response::{IntoResponse, Response},
};

use tokio::{select, time::sleep};

use crate::http::{
    batches::is_slowed_down,
    error_code::ErrorCode,
    extract::client_ip::{ClientIp, ClientKey},
    header_names::{RATELIMIT, RATELIMIT_POLICY},
    problem::Problem,
    rate_limiter::{RateLimiter, exhausted_header, remaining_header, whole_seconds},
    state::AppState,
};
use passbook_auth::{Access, Caller};

/// Rejects requests beyond the limit. Probes are never limited.
pub async fn enforce<F: Future<Output = Response>>(
    app: &AppState,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let Some(limiter) = app.rate_limiter.as_ref().filter(|_| !is_probe(request.uri().path())) else {
        return next(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let Some(key) = bucket_key(&mut parts, app).await else {
        return Problem::from_code(ErrorCode::InternalError).into_response();
    };
    let taken = match is_slowed_down(&parts) && is_accepted(&key, app) {
        true => Ok(wait_and_take(app, limiter, &key).await),
        false => limiter.take(&key),
    };
    let (limit, mut response) = match taken {
        Ok(remaining) => (remaining_header(remaining), next(Request::from_parts(parts, body)).await),
        Err(wait) => {
            let seconds = whole_seconds(wait);
            let detail = "The caller sent too many requests. Retry after the seconds in the header Retry-After.";
            (exhausted_header(seconds), Problem::rate_limited(detail, seconds).into_response())
        }
    };
    let headers = response.headers_mut();
    headers.insert(RATELIMIT_POLICY, limiter.policy().clone());
    // A batch counts as its number of commands, and says itself what remains.
    headers.entry(RATELIMIT).or_insert(limit);
    response
}

/// Whether the bucket is that of an accepted caller: a request without a valid token is not worth a wait.
fn is_accepted(key: &ClientKey, app: &AppState) -> bool {
    match key {
        ClientKey::Caller(_) => true,
        ClientKey::Network(_) => !matches!(app.access, Access::Tokens(_)),
    }
}

/// Takes a request from a bucket when it has one, and returns how many remain. After shutdown has begun, the request need not wait:
/// its handler ends the answer.
async fn wait_and_take(app: &AppState, limiter: &RateLimiter, key: &ClientKey) -> u32 {
    while !app.shutdown.is_cancelled() {
        match limiter.take(key) {
            Ok(remaining) => return remaining,
            Err(wait) => select! {
                () = app.shutdown.cancelled() => {}
                () = sleep(wait) => {}
            },
        }
    }
    0
}

/// Whether the path is that of a probe, which load balancers send all the time.
pub fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// The bucket of the caller, or of the address if the request has no valid token.
async fn bucket_key(parts: &mut Parts, app: &AppState) -> Option<ClientKey> {
    if matches!(app.access, Access::Tokens(_))
        && parts.headers.contains_key(header::AUTHORIZATION)
        && let Ok(caller) = Caller::from_request_parts(parts, app).await
    {
        return Some(ClientKey::Caller(Arc::clone(caller.subject())));
    }
    parts.extensions.get().map(|ClientIp(address)| ClientKey::of_address(*address))
}
