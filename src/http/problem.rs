//! Errors as clients see them: RFC 9457 problems, each with a code of the contract.
//!
//! A handler returns a [`Problem`]. The request-context middleware renders it, because the body also names the request's path
//! and id.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    error_code::{ErrorCode, ErrorSpec},
    extract::parameters::PathText,
    header_names::{IDEMPOTENCY_REPLAYED, PASSBOOK_POSITION},
    static_content::{StaticContent, content_type},
};
use passbook_domain::LimitName;
use passbook_event_store::{Position, timestamp};

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The audit reason for an account that the caller may not see. The caller gets the same response as for a missing account.
pub const OTHER_OWNER: &str = "the account belongs to another owner";
/// `Retry-After` of every 503, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// The most bytes of a detail, which may repeat a part of the request. Hundreds of problems of one batch can wait in memory.
const DETAIL_BYTES_MAX: usize = 400;
/// The most bytes of the name of a field, which may be a part of the request.
const FIELD_BYTES_MAX: usize = 100;

/// An error that a handler returns.
#[derive(Clone, Debug)]
pub struct Problem {
    code: ErrorCode,
    detail: Option<String>,
    account_id: Option<Uuid>,
    current_version: Option<i64>,
    facts: Box<Facts>,
    field: Option<Cow<'static, str>>,
    index: Option<u16>,
    position: Option<Box<Position>>,
    replayed: bool,
    denial: Option<Box<Denial>>,
}

/// Facts about the state that refuses a command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The balance of the account, in minor units.
    pub balance: Option<i64>,
    /// The balance less active holds plus the overdraft, in minor units.
    pub available: Option<i64>,
    /// What the hold has left, in minor units.
    pub remaining: Option<i64>,
    /// What can still be reversed of the transaction, in minor units.
    pub reversible: Option<i64>,
    /// The limit that the amount would exceed.
    pub limit: Option<LimitFacts>,
}

/// A limit that a command would exceed.
#[derive(Clone, Copy, Debug)]
pub struct LimitFacts {
    /// The limit.
    pub name: LimitName,
    /// Its value, in minor units.
    pub maximum: i64,
    /// What counts against it, in minor units.
    pub used: i64,
    /// When it counts from 0 again; `None` for a limit on single movements.
    pub resets_at: Option<DateTime<Utc>>,
}

/// Why a caller was denied, for the log, and the headers of the response.
#[derive(Clone, Debug)]
struct Denial {
    /// The reason for the log. The response may say less.
    audit_reason: String,
    /// The value of `WWW-Authenticate` (RFC 6750, section 3).
    challenge: Option<String>,
    /// The value of `Retry-After`, in seconds.
    retry_after_s: Option<u64>,
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// The path of a page that explains this kind of error.
    #[serde(rename = "type")]
    #[schema(example = "/problems/insufficient_funds")]
    pub kind: String,
    /// The kind of error, for people.
    #[schema(example = "Insufficient funds")]
    pub title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What happened in this request, and what to do about it.
    #[schema(example = "The available balance of 150.00 EUR does not cover 200.00 EUR.")]
    pub detail: &'a str,
    /// The path of the request.
    #[schema(example = "/v1/accounts/01900000-0000-7000-8000-000000000001/withdrawals")]
    pub instance: &'a str,
    /// The kind of error, as a name that programs compare.
    pub code: ErrorCode,
    /// The id of the request, also in the service's log and in the header `x-request-id`.
    pub request_id: &'a str,
    /// The account that refuses the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub account_id: Option<Uuid>,
    /// The current version of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub current_version: Option<i64>,
    /// The current balance of the account, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub balance: Option<i64>,
    /// The balance less active holds plus the overdraft, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub available: Option<i64>,
    /// What the hold has left, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub remaining: Option<i64>,
    /// What can still be reversed of the transaction, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reversible: Option<i64>,
    /// The limit that the amount would exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limit: Option<LimitName>,
    /// The value of the limit, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub maximum: Option<i64>,
    /// What counts against the limit already, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub used: Option<i64>,
    /// When the limit counts from 0 again; absent for a limit on single movements.
    #[serde(skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    #[schema(nullable = false)]
    pub resets_at: Option<DateTime<Utc>>,
    /// The index of the command that caused the problem, if a whole batch was refused. The first command has index 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub index: Option<usize>,
    /// The invalid parts of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError<'a>>,
}

/// An invalid part of a request.
#[derive(Serialize, ToSchema)]
pub struct FieldError<'a> {
    /// The name of the field, parameter or header.
    #[schema(example = "amount")]
    pub field: &'a str,
    /// Why it is invalid.
    pub detail: &'a str,
}

impl Problem {
    /// A problem whose detail is the help text of its code.
    pub fn from_code(code: ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            account_id: None,
            current_version: None,
            facts: Box::default(),
            field: None,
            index: None,
            position: None,
            replayed: false,
            denial: None,
        }
    }

    /// A problem with a detail of its own.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { detail: Some(shortened(detail.into(), DETAIL_BYTES_MAX)), ..Self::from_code(code) }
    }

    /// An invalid field, parameter or header of the request.
    pub fn field(code: ErrorCode, field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { field: Some(shortened(field.into(), FIELD_BYTES_MAX)), ..Self::new(code, detail) }
    }

    /// An [`ErrorCode::InvalidParameter`] with the name of the parameter.
    pub fn invalid_parameter(field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::field(ErrorCode::InvalidParameter, field, detail)
    }

    /// An `If-Match` on an operation that does not address a single existing account.
    pub fn condition_unsupported() -> Self {
        Self::invalid_parameter("If-Match", "This operation does not support If-Match.")
    }

    /// A problem of a query, with the position up to which its view had read.
    pub fn at_position(code: ErrorCode, position: &Position) -> Self {
        Self::from_code(code).with_position(position.clone())
    }

    /// 401: the request has no valid token. `challenge` is the value of `WWW-Authenticate`.
    pub fn unauthenticated(detail: impl Into<String>, challenge: impl Into<String>) -> Self {
        Self::denied(ErrorCode::Unauthenticated, detail.into(), Some(challenge.into()), None)
    }

    /// 403: the caller may not do this. `challenge` is the value of `WWW-Authenticate`.
    pub fn forbidden(detail: impl Into<String>, challenge: Option<String>) -> Self {
        Self::denied(ErrorCode::Forbidden, detail.into(), challenge, None)
    }

    /// 429: the caller may retry after `retry_after_s` seconds.
    pub fn rate_limited(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self::denied(ErrorCode::RateLimited, detail.into(), None, Some(retry_after_s))
    }

    fn denied(code: ErrorCode, detail: String, challenge: Option<String>, retry_after_s: Option<u64>) -> Self {
        let denial = Denial { audit_reason: detail.clone(), challenge, retry_after_s };
        Self { denial: Some(Box::new(denial)), ..Self::new(code, detail) }
    }

    /// The same response, with a reason that only the log gets.
    #[must_use]
    pub fn with_audit_reason(self, reason: impl Into<String>) -> Self {
        let denial = Denial { audit_reason: reason.into(), challenge: None, retry_after_s: None };
        Self { denial: Some(Box::new(denial)), ..self }
    }

    /// The same problem with the position of the log or view that it was judged on.
    #[must_use]
    pub fn with_position(self, position: Position) -> Self {
        Self { position: Some(Box::new(position)), ..self }
    }

    /// The same problem, as a replay of the outcome that is recorded under the idempotency key if `replayed`.
    #[must_use]
    pub fn with_replayed(self, replayed: bool) -> Self {
        Self { replayed, ..self }
    }

    /// The same problem with the account that refuses the command.
    #[must_use]
    pub fn with_account(self, account_id: Option<Uuid>) -> Self {
        Self { account_id, ..self }
    }

    /// The same problem with the current version of the account.
    #[must_use]
    pub fn with_current_version(self, version: i64) -> Self {
        Self { current_version: Some(version), ..self }
    }

    /// The same problem with facts about the state that refuses the command.
    #[must_use]
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts: Box::new(facts), ..self }
    }

    /// The same problem with the index of the command of a batch that caused it.
    #[must_use]
    pub fn with_index(self, index: Option<usize>) -> Self {
        Self { index: index.and_then(|index| u16::try_from(index).ok()), ..self }
    }

    /// The same problem with another detail.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(shortened(detail.into(), DETAIL_BYTES_MAX)), ..self }
    }

    /// The current version of the account, if the problem names it.
    pub fn current_version(&self) -> Option<i64> {
        self.current_version
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The position of the state that the problem was judged on; `None` if it was judged from the request alone.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_deref()
    }

    /// Whether this is the outcome that is recorded under the idempotency key.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// Why the caller was denied; `None` if the problem has another cause.
    pub fn denial_reason(&self) -> Option<&str> {
        self.denial.as_ref().map(|denial| denial.audit_reason.as_str())
    }

    /// The response to the request with this path and id.
    pub fn render(&self, instance: &str, request_id: &str) -> Response {
        let mut response = (self.code.status(), Json(self.body(instance, request_id))).into_response();
        self.add_headers(&mut response);
        response
    }

    /// The body of the response to the request with this path and id.
    pub fn body<'a>(&'a self, instance: &'a str, request_id: &'a str) -> ProblemBody<'a> {
        let ErrorSpec { code, status, title, help } = self.code.spec();
        let detail = self.detail.as_deref().unwrap_or(help);
        let facts = &self.facts;
        ProblemBody {
            kind: format!("/problems/{code}"),
            title,
            status: status.as_u16(),
            detail,
            instance,
            code: self.code,
            request_id,
            account_id: self.account_id,
            current_version: self.current_version,
            balance: facts.balance,
            available: facts.available,
            remaining: facts.remaining,
            reversible: facts.reversible,
            limit: facts.limit.map(|limit| limit.name),
            maximum: facts.limit.map(|limit| limit.maximum),
            used: facts.limit.map(|limit| limit.used),
            resets_at: facts.limit.and_then(|limit| limit.resets_at),
            index: self.index.map(usize::from),
            errors: self.field.iter().map(|field| FieldError { field, detail }).collect(),
        }
    }

    fn add_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(position) = self.position.as_ref().and_then(|position| position.to_string().parse().ok()) {
            headers.insert(PASSBOOK_POSITION, position);
        }
        if self.replayed {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        let challenge = self.denial.as_ref().and_then(|denial| denial.challenge.as_deref());
        if let Some(challenge) = challenge.and_then(|challenge| challenge.parse().ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        let is_outage = self.code.status() == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after_s = self.denial.as_ref().and_then(|denial| denial.retry_after_s);
        if let Some(seconds) = retry_after_s.or(is_outage.then_some(RETRY_AFTER_S)) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
    }
}

/// The text, or its beginning with an ellipsis, in an allocation of that size.
fn shortened<T: AsRef<str> + From<String>>(text: T, bytes_max: usize) -> T {
    let full = text.as_ref();
    if full.len() <= bytes_max {
        return text;
    }
    let end = full.floor_char_boundary(bytes_max);
    [&full[..end], "..."].concat().into()
}

impl IntoResponse for Problem {
    /// A response that carries the problem as an extension until the middleware renders it.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The pages of all codes.
static PAGES: LazyLock<HashMap<&str, StaticContent>> = LazyLock::new(|| {
    let content_type = content_type(".html").unwrap_or_default();
    ErrorCode::ALL.iter().map(|code| (code.as_str(), StaticContent::new(content_type, page(*code)))).collect()
});

/// The page at the path in a problem's `type`.
pub async fn problem_page(PathText(name): PathText, headers: HeaderMap) -> Result<Response, Problem> {
    PAGES.get(&*name).ok_or(Problem::from_code(ErrorCode::NotFound))?.response(&headers)
}

fn page(code: ErrorCode) -> String {
    let ErrorSpec { code, status, title, help } = code.spec();
    let status = status.as_u16();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <h1>{title}</h1><p><code>{code}</code>, status {status}</p><p>{help}</p></html>"
    )
}
