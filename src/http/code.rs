//! The codes of the contract: for each one its word, its status, its title and what a client can do about it.

use axum::{extract::Path, http::StatusCode, response::Html};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;

/// What went wrong, in a word that programs compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    MalformedRequest,
    InvalidAmount,
    InvalidCurrency,
    InvalidParameter,
    InvalidIdempotencyKey,
    SameAccount,
    Unauthenticated,
    Forbidden,
    AccountNotFound,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    PayloadTooLarge,
    UnsupportedMediaType,
    AccountExists,
    RebuildRunning,
    VersionMismatch,
    AccountClosed,
    AccountFrozen,
    AccountNotFrozen,
    InsufficientFunds,
    BalanceNotZero,
    CurrencyMismatch,
    BalanceLimitExceeded,
    IdempotencyKeyReused,
    RateLimited,
    InternalError,
    Overloaded,
    StorageUnavailable,
    OutcomeUnknown,
    ProjectionBehind,
}

impl Code {
    /// Every code.
    pub const ALL: &[Code] = &[
        Code::MalformedRequest,
        Code::InvalidAmount,
        Code::InvalidCurrency,
        Code::InvalidParameter,
        Code::InvalidIdempotencyKey,
        Code::SameAccount,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::AccountNotFound,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::NotAcceptable,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
        Code::AccountExists,
        Code::RebuildRunning,
        Code::VersionMismatch,
        Code::AccountClosed,
        Code::AccountFrozen,
        Code::AccountNotFrozen,
        Code::InsufficientFunds,
        Code::BalanceNotZero,
        Code::CurrencyMismatch,
        Code::BalanceLimitExceeded,
        Code::IdempotencyKeyReused,
        Code::RateLimited,
        Code::InternalError,
        Code::Overloaded,
        Code::StorageUnavailable,
        Code::OutcomeUnknown,
        Code::ProjectionBehind,
    ];

    /// The word, the status, the title, and what a client can do about it.
    pub fn about(self) -> (&'static str, u16, &'static str, &'static str) {
        match self {
            Code::MalformedRequest => (
                "malformed_request",
                400,
                "The request cannot be read",
                "The body is not the JSON object that the operation takes: a field is unknown, missing, twice there or of another type.",
            ),
            Code::InvalidAmount => (
                "invalid_amount",
                400,
                "The amount is not valid",
                "An amount is a whole number of the currency's minor unit (12550 is 125.50 EUR) from 1 to 9007199254740991, written as a plain JSON integer.",
            ),
            Code::InvalidCurrency => {
                ("invalid_currency", 400, "The currency is not valid", "A currency is an ISO 4217 code such as EUR.")
            }
            Code::InvalidParameter => (
                "invalid_parameter",
                400,
                "A parameter is not valid",
                "A part of the path, the query, a header or a field has a value that it cannot have.",
            ),
            Code::InvalidIdempotencyKey => (
                "invalid_idempotency_key",
                400,
                "The idempotency key is not valid",
                "An Idempotency-Key has 1 to 255 visible ASCII characters, bare or as a quoted string.",
            ),
            Code::SameAccount => ("same_account", 400, "Both accounts are the same", "A transfer needs two accounts."),
            Code::Unauthenticated => (
                "unauthenticated",
                401,
                "Nobody is named who asks",
                "Send the header `Authorization: Bearer <token>` with a token of the provider that this service trusts; WWW-Authenticate tells what was wrong with yours.",
            ),
            Code::Forbidden => (
                "forbidden",
                403,
                "The caller may not do this",
                "The token lacks a scope, which WWW-Authenticate names; or a browser asks for a page of another site.",
            ),
            Code::AccountNotFound => (
                "account_not_found",
                404,
                "There is no such account",
                "No account was opened under this id, or the caller may not see it. A view may be behind: pass min_position to read your own write.",
            ),
            Code::NotFound => ("not_found", 404, "There is nothing here", "No resource stands under this path."),
            Code::MethodNotAllowed => (
                "method_not_allowed",
                405,
                "The method is not allowed here",
                "The Allow header names the methods of this path.",
            ),
            Code::NotAcceptable => {
                ("not_acceptable", 406, "No such representation", "The Accept header asks for a form that is not had.")
            }
            Code::PayloadTooLarge => {
                ("payload_too_large", 413, "The body is too large", "A request body has at most 65536 bytes.")
            }
            Code::UnsupportedMediaType => (
                "unsupported_media_type",
                415,
                "The body is not JSON",
                "Send the header `Content-Type: application/json`.",
            ),
            Code::AccountExists => {
                ("account_exists", 409, "The account exists", "An account with this id was opened before.")
            }
            Code::RebuildRunning => (
                "rebuild_running",
                409,
                "The projection is being rebuilt",
                "A projection is rebuilt once at a time. GET /v1/projections tells how far it is.",
            ),
            Code::VersionMismatch => (
                "version_mismatch",
                412,
                "The account has changed",
                "If-Match names another version than the account has. Read it again and decide anew.",
            ),
            Code::AccountClosed => ("account_closed", 422, "The account is closed", "A closed account stays closed."),
            Code::AccountFrozen => (
                "account_frozen",
                422,
                "The account is frozen",
                "No money moves and the account cannot be closed until it is unfrozen.",
            ),
            Code::AccountNotFrozen => {
                ("account_not_frozen", 422, "The account is not frozen", "Only a frozen account can be unfrozen.")
            }
            Code::InsufficientFunds => (
                "insufficient_funds",
                422,
                "The balance does not cover the amount",
                "The member `balance` says what is there, in minor units.",
            ),
            Code::BalanceNotZero => (
                "balance_not_zero",
                422,
                "The account is not empty",
                "Only an account with balance 0 can be closed. The member `balance` says what is there, in minor units.",
            ),
            Code::CurrencyMismatch => (
                "currency_mismatch",
                422,
                "The account has another currency",
                "An account has one currency for life, and both sides of a transfer the same.",
            ),
            Code::BalanceLimitExceeded => (
                "balance_limit_exceeded",
                422,
                "The balance would be too large",
                "No balance may pass 9007199254740991 minor units.",
            ),
            Code::IdempotencyKeyReused => (
                "idempotency_key_reused",
                422,
                "The idempotency key was used for another request",
                "A key stands for one request for ever: same method, path, body and If-Match. Use a new key for a new request.",
            ),
            Code::RateLimited => (
                "rate_limited",
                429,
                "The caller asks too often",
                "Nothing was done. Try again after the time that Retry-After says; RateLimit-Policy says how much may be asked.",
            ),
            Code::InternalError => (
                "internal_error",
                500,
                "Something is wrong on our side",
                "The request was not carried out. The request id leads to the reason in the service's log.",
            ),
            Code::Overloaded => (
                "overloaded",
                503,
                "Too many requests are waiting",
                "Nothing was done. Try again after the time that Retry-After says.",
            ),
            Code::StorageUnavailable => (
                "storage_unavailable",
                503,
                "The database cannot be reached",
                "Nothing was done. Try again after the time that Retry-After says.",
            ),
            Code::OutcomeUnknown => (
                "outcome_unknown",
                503,
                "Whether the command was carried out is not known",
                "Send the same request again with the same Idempotency-Key until it is answered.",
            ),
            Code::ProjectionBehind => (
                "projection_behind",
                503,
                "The view is behind the log",
                "The view has not read as far as asked. Try again after the time that Retry-After says.",
            ),
        }
    }

    /// The word itself.
    pub fn as_str(self) -> &'static str {
        self.about().0
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.about().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What an answer that carries only a status means.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::Forbidden,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => Code::NotAcceptable,
            StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
            status if status.is_client_error() => Code::MalformedRequest,
            _ => Code::InternalError,
        }
    }
}

/// The page that a problem's `type` leads to.
pub async fn page(Path(word): Path<String>) -> Result<Html<String>, Problem> {
    let code = Code::ALL.iter().find(|code| code.as_str() == word).ok_or(Problem::of(Code::NotFound))?;
    let (word, status, title, explanation) = code.about();
    Ok(Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <h1>{title}</h1><p><code>{word}</code>, status {status}</p><p>{explanation}</p></html>"
    )))
}
