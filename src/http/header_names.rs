//! Names of the headers that the `http` crate does not define.
//!
//! Extractors, middleware and responses share them, so they depend on none of these.

use axum::http::HeaderName;

/// The position of a command in the log, or the position up to which a view has read.
pub const PASSBOOK_POSITION: HeaderName = HeaderName::from_static("passbook-position");
/// Makes retries of a command safe (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `true` on the response to a command that was recorded earlier under the same key.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The rate limit (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>).
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The requests that remain of the rate limit.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client addresses that proxies add, each the address of its own client.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `no` makes nginx and similar proxies forward each piece of a response at once.
pub const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// What the client would like the response to be (RFC 7240).
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The preferences that the response follows.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
