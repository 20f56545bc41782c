//! Errors as clients see them: RFC 9457 problems, each with a code of the contract. One match for each layer's errors.

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::PASSBOOK_POSITION;
pub use super::code::Code;
use passbook_audit as audit;
use passbook_bank as application;
use passbook_domain::Rejection;
use passbook_event_store::Position;
use passbook_read_model as read_model;

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// What the log says of an account that the caller may not see. The caller learns nothing of it.
pub const ANOTHERS_ACCOUNT: &str = "the account is another's";
/// When a client may try again, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// An error on its way out. The request's own parts are filled in by [`super::envelope`].
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: Option<String>,
    current_version: Option<i64>,
    balance: Option<i64>,
    field: Option<&'static str>,
    position: Option<Position>,
    refusal: Option<Box<Refusal>>,
}

/// What a refusal of authority leaves behind.
#[derive(Clone, Debug)]
struct Refusal {
    /// Why, for the log; the answer may say less.
    reason: String,
    /// What the caller could do about it, as `WWW-Authenticate` tells it (RFC 6750, section 3).
    challenge: Option<String>,
    /// When the caller may ask again, in seconds.
    retry_after_s: Option<u64>,
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A page about this kind of error.
    #[serde(rename = "type")]
    #[schema(example = "/problems/insufficient_funds")]
    pub kind: String,
    /// The kind of error in a few words.
    #[schema(example = "The balance does not cover the amount")]
    pub title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What went wrong this time.
    #[schema(example = "the balance of 15000 does not cover the amount")]
    pub detail: &'a str,
    /// The path that was asked.
    #[schema(example = "/v1/accounts/01900000-0000-7000-8000-000000000001/withdrawals")]
    pub instance: &'a str,
    /// The kind of error in a word that programs compare.
    pub code: Code,
    /// Leads to the request in the service's log; also in the header `x-request-id`.
    pub request_id: &'a str,
    /// The version that the account has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub current_version: Option<i64>,
    /// The balance that the account has, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub balance: Option<i64>,
    /// Which parts of the request are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError<'a>>,
}

/// What is wrong with one part of a request.
#[derive(Serialize, ToSchema)]
pub struct FieldError<'a> {
    /// The field, parameter or header.
    #[schema(example = "amount")]
    pub field: &'a str,
    /// What is wrong with it.
    pub detail: &'a str,
}

impl Problem {
    /// A problem whose kind says it all.
    pub fn of(code: Code) -> Self {
        Self { code, detail: None, current_version: None, balance: None, field: None, position: None, refusal: None }
    }

    /// A problem with what went wrong this time.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::of(code) }
    }

    /// A problem with one part of the request.
    pub fn field(code: Code, field: &'static str, detail: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(code, detail) }
    }

    /// A problem that a view has, which has read so far.
    pub fn seen_at(code: Code, position: &Position) -> Self {
        Self { position: Some(position.clone()), ..Self::of(code) }
    }

    /// Nobody is named who asks, or not so that it can be believed.
    pub fn unauthenticated(reason: impl Into<String>, challenge: impl Into<String>) -> Self {
        let (reason, challenge) = (reason.into(), Some(challenge.into()));
        Self {
            refusal: Some(Box::new(Refusal { reason: reason.clone(), challenge, retry_after_s: None })),
            ..Self::new(Code::Unauthenticated, reason)
        }
    }

    /// The caller is known, or could be anybody, and may not do this.
    pub fn forbidden(reason: impl Into<String>, challenge: Option<String>) -> Self {
        let reason = reason.into();
        Self {
            refusal: Some(Box::new(Refusal { reason: reason.clone(), challenge, retry_after_s: None })),
            ..Self::new(Code::Forbidden, reason)
        }
    }

    /// The caller asks too often, and may again after so many seconds.
    pub fn rate_limited(reason: impl Into<String>, retry_after_s: u64) -> Self {
        let reason = reason.into();
        let refusal = Refusal { reason: reason.clone(), challenge: None, retry_after_s: Some(retry_after_s) };
        Self { refusal: Some(Box::new(refusal)), ..Self::new(Code::RateLimited, reason) }
    }

    /// The same problem, of which the log knows that there is more behind it.
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self {
            refusal: Some(Box::new(Refusal { reason: reason.into(), challenge: None, retry_after_s: None })),
            ..self
        }
    }

    /// The kind of error.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Why authority was refused, if it was.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refusal| refusal.reason.as_str())
    }

    /// The whole answer, once the request's path and id are known.
    pub fn render(&self, instance: &str, request_id: &str) -> Response {
        let (word, status, title, explanation) = self.code.about();
        let detail = self.detail.as_deref().unwrap_or(explanation);
        let body = ProblemBody {
            kind: format!("/problems/{word}"),
            title,
            status,
            detail,
            instance,
            code: self.code,
            request_id,
            current_version: self.current_version,
            balance: self.balance,
            errors: self.field.iter().map(|field| FieldError { field, detail }).collect(),
        };
        let mut response = (self.code.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(position) = self.position.as_ref().and_then(|position| position.to_string().parse().ok()) {
            headers.insert(PASSBOOK_POSITION, position);
        }
        let challenge = self.refusal.as_ref().and_then(|refusal| refusal.challenge.as_deref());
        if let Some(challenge) = challenge.and_then(|challenge| challenge.parse().ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        let is_outage = self.code.status() == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after_s = self.refusal.as_ref().and_then(|refusal| refusal.retry_after_s);
        if let Some(seconds) = retry_after_s.or(is_outage.then_some(RETRY_AFTER_S)) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl From<application::Error> for Problem {
    fn from(error: application::Error) -> Self {
        use application::Error;
        let detail = error.to_string();
        match error {
            Error::Rejected(rejection) => rejection.into(),
            // Word for word what an account that is not there is answered.
            Error::Unseen => Self::from(Rejection::AccountNotFound).because(ANOTHERS_ACCOUNT),
            Error::VersionMismatch { current } => {
                Self { current_version: Some(current), ..Self::new(Code::VersionMismatch, detail) }
            }
            Error::KeyReused => Self::of(Code::IdempotencyKeyReused),
            Error::Overloaded => Self::of(Code::Overloaded),
            Error::StorageUnavailable => Self::of(Code::StorageUnavailable),
            Error::OutcomeUnknown => Self::of(Code::OutcomeUnknown),
            Error::Internal => Self::of(Code::InternalError),
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let (code, balance) = match rejection {
            Rejection::AccountExists => (Code::AccountExists, None),
            Rejection::AccountNotFound => (Code::AccountNotFound, None),
            Rejection::AccountClosed => (Code::AccountClosed, None),
            Rejection::AccountFrozen => (Code::AccountFrozen, None),
            Rejection::AccountNotFrozen => (Code::AccountNotFrozen, None),
            Rejection::CurrencyMismatch => (Code::CurrencyMismatch, None),
            Rejection::InsufficientFunds { balance, .. } => (Code::InsufficientFunds, Some(balance)),
            Rejection::BalanceNotZero { balance, .. } => (Code::BalanceNotZero, Some(balance)),
            Rejection::BalanceLimitExceeded => (Code::BalanceLimitExceeded, None),
        };
        Self { balance, ..Self::new(code, rejection.to_string()) }
    }
}

impl From<read_model::Error> for Problem {
    fn from(error: read_model::Error) -> Self {
        match error {
            read_model::Error::Elsewhere(_) => Self::field(Code::InvalidParameter, "min_position", error.to_string()),
            read_model::Error::Behind => Self::of(Code::ProjectionBehind),
            read_model::Error::Broken(reason) => {
                tracing::error!(%reason, "a view does not add up");
                Self::of(Code::InternalError)
            }
            read_model::Error::Storage(error) => storage_failed(&error),
        }
    }
}

impl From<audit::Error> for Problem {
    fn from(error: audit::Error) -> Self {
        match error {
            audit::Error::Busy => Self::of(Code::Overloaded),
            audit::Error::Misplaced(misplaced) => Self::field(Code::InvalidParameter, "after", misplaced.to_string()),
            audit::Error::Storage(error) => storage_failed(&error),
        }
    }
}

fn storage_failed(error: &impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "a query failed");
    Problem::of(Code::StorageUnavailable)
}
