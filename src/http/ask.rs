//! A command as it comes in: the body parsed into its struct, and the circumstances around it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    App,
    caller::reach,
    envelope::RequestId,
    headers::{idempotency_key, if_match, if_match_text, traceparent},
    parameters::invalid_query,
    problem::{Code, Problem},
};
use passbook_auth::Caller;
use passbook_bank::{IdempotencyKey, Reach, Request};

/// How long a body may take to arrive.
const BODY_MS_MAX: u64 = 10_000;

/// A body of type `B` and what stands around it.
#[derive(Debug)]
pub struct Ask<B> {
    /// The parsed body.
    pub body: B,
    /// Who asks, under which key and on which condition.
    pub request: Request,
}

/// What every command may be asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Options {
    /// Answer what would happen, and record nothing.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
}

impl<B: DeserializeOwned> FromRequest<App> for Ask<B> {
    type Rejection = Problem;

    async fn from_request(http: axum::extract::Request, state: &App) -> Result<Self, Problem> {
        let (mut parts, body) = http.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let http = axum::extract::Request::from_parts(parts, body);
        let options: Query<Options> = Query::try_from_uri(http.uri()).map_err(invalid_query)?;
        let correlation_id = match http.extensions().get::<RequestId>() {
            Some(RequestId(id)) => Arc::clone(id),
            None => Arc::from(""),
        };
        let method = http.method().clone();
        let path = http.uri().path().to_owned();
        let headers = http.headers().clone();
        let key = idempotency_key(&headers)?.filter(|_| !options.dry_run);
        let condition = if_match(&headers)?;

        let body = read(http, state).await?;
        must_be_json(&headers, &body)?;
        let parsed = parse(&body)?;
        let idempotency_key = match key {
            Some(key) => {
                let fingerprint = fingerprint(&[
                    method.as_str().as_bytes(),
                    path.as_bytes(),
                    &canonical(&body)?,
                    &if_match_text(&headers),
                ]);
                Some(IdempotencyKey { key, fingerprint })
            }
            None => None,
        };
        let request = Request {
            caller: Arc::clone(caller.subject()),
            reach: reach(&caller),
            correlation_id,
            causation_id: traceparent(&headers).map_or_else(Uuid::now_v7, |parent| Uuid::from_bytes(parent.trace_id())),
            idempotency_key,
            if_match: condition,
            dry_run: options.dry_run,
        };
        Ok(Self { body: parsed, request })
    }
}

impl<B> Ask<B> {
    /// The same for somebody whose power has nothing to do with owning accounts.
    #[must_use]
    pub fn reaching(mut self, reach: Reach) -> Self {
        self.request.reach = reach;
        self
    }

    /// Refuses a condition where there is no one account to compare it with.
    pub fn without_condition(self) -> Result<Self, Problem> {
        match self.request.if_match {
            None => Ok(self),
            Some(_) => {
                let detail = "this operation takes no If-Match";
                Err(Problem::field(Code::InvalidParameter, "If-Match", detail))
            }
        }
    }
}

async fn read(http: axum::extract::Request, state: &App) -> Result<Bytes, Problem> {
    match timeout(Duration::from_millis(BODY_MS_MAX), Bytes::from_request(http, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(unreadable(&rejection)),
        Err(_) => Err(Problem::new(Code::MalformedRequest, format!("the body did not arrive within {BODY_MS_MAX} ms"))),
    }
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::of(Code::PayloadTooLarge),
        _ => Problem::new(Code::MalformedRequest, "the body did not arrive whole"),
    }
}

/// An empty body needs no type: it is the empty object.
fn must_be_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::new(Code::UnsupportedMediaType, "a body is taken as it is, and in no Content-Encoding"));
    }
    match essence.as_deref() {
        Some("application/json") => Ok(()),
        None if body.is_empty() => Ok(()),
        Some(_) | None => Err(Problem::of(Code::UnsupportedMediaType)),
    }
}

pub(super) fn parse<B: DeserializeOwned>(body: &[u8]) -> Result<B, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    // A struct would be read from an array, too, by the order of its fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(Code::MalformedRequest, "the body is not a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::new(Code::MalformedRequest, error.to_string()))
}

/// The body as sent, without what two equal JSON texts may differ in: white space and the order of members.
pub(super) fn canonical(body: &[u8]) -> Result<Vec<u8>, Problem> {
    let value: serde_json::Value = parse(body)?;
    Ok(value.to_string().into_bytes())
}

fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
