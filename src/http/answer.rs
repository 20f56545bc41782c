//! Answers that succeed: receipts with the headers that tell where the log and the account are now, and views with
//! the position that they have read to.

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::headers::etag;
use passbook_bank::{Answer, Receipt};
use passbook_event_store::Position;
use passbook_read_model::Seen;

/// How far the log, or a view of it, has come.
pub const PASSBOOK_POSITION: HeaderName = HeaderName::from_static("passbook-position");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The answer to a command that changes what is there: 200.
pub fn changed(answer: &Answer) -> Response {
    receipt(StatusCode::OK, answer)
}

/// The answer to a command that makes something: 201, or 200 if it was a dry run.
pub fn created(answer: &Answer, dry_run: bool) -> Response {
    receipt(if dry_run { StatusCode::OK } else { StatusCode::CREATED }, answer)
}

/// Says where that which was made can be read.
pub fn located(mut response: Response, location: &str) -> Response {
    if response.status() == StatusCode::CREATED {
        insert(response.headers_mut(), header::LOCATION, location);
    }
    response
}

fn receipt(status: StatusCode, answer: &Answer) -> Response {
    let mut headers = HeaderMap::new();
    insert(&mut headers, PASSBOOK_POSITION, &answer.receipt.position().to_string());
    if let Receipt::Account(account) = &answer.receipt {
        insert(&mut headers, header::ETAG, &etag(account.version, 1));
    }
    if answer.replayed {
        insert(&mut headers, IDEMPOTENCY_REPLAYED, "true");
    }
    (status, headers, Json(&answer.receipt)).into_response()
}

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Pass it as `after` for the next page; `null` on the last one.
    pub next: Option<String>,
}

/// The answer to a query, with how far the view behind it has read.
pub fn view<T: Serialize>(seen: Seen<T>) -> Response {
    (position(&seen.position), Json(seen.value)).into_response()
}

/// The header that says how far a view has read.
pub fn position(position: &Position) -> [(HeaderName, String); 1] {
    [(PASSBOOK_POSITION, position.to_string())]
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
