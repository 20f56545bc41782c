//! Takes each request from the bucket of its caller, and adds the `RateLimit` headers to the response.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::http::{
    error_code::ErrorCode,
    extract::client_ip::{ClientIp, ClientKey},
    header_names::{RATELIMIT, RATELIMIT_POLICY},
    problem::Problem,
    rate_limiter::whole_seconds,
    state::AppState,
};
use passbook_auth::{Access, Caller};

/// Rejects requests beyond the limit. Probes are never limited.
pub async fn enforce(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let Some(limiter) = app.rate_limiter.as_ref().filter(|_| !is_probe(request.uri().path())) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let Some(key) = bucket_key(&mut parts, &app).await else {
        return Problem::from_code(ErrorCode::InternalError).into_response();
    };
    let (remaining, mut response) = match limiter.take(&key) {
        Ok(remaining) => (format!("\"default\";r={remaining}"), next.run(Request::from_parts(parts, body)).await),
        Err(wait) => {
            let seconds = whole_seconds(wait);
            let detail = "The caller sent too many requests. Retry after the seconds in the header Retry-After.";
            (format!("\"default\";r=0;t={seconds}"), Problem::rate_limited(detail, seconds).into_response())
        }
    };
    response.headers_mut().insert(RATELIMIT_POLICY, limiter.policy().clone());
    if let Ok(remaining) = HeaderValue::from_str(&remaining) {
        response.headers_mut().insert(RATELIMIT, remaining);
    }
    response
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
