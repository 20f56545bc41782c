//! The error codes of the contract.
//!
//! One exhaustive match gives each code its name, status, title and help text, so that no code can lack one of them.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// The kind of error, as a name that programs compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`spec` describes each code")]
pub enum ErrorCode {
    MalformedRequest,
    InvalidAmount,
    InvalidCurrency,
    InvalidParameter,
    InvalidIdempotencyKey,
    SameAccount,
    Unauthenticated,
    Forbidden,
    AccountNotFound,
    HoldNotFound,
    TransactionNotFound,
    VersionNotFound,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    PayloadTooLarge,
    UnsupportedMediaType,
    AccountExists,
    RebuildRunning,
    WebhookExists,
    VersionMismatch,
    AccountClosed,
    AccountFrozen,
    AccountNotFrozen,
    InsufficientFunds,
    BalanceNotZero,
    CurrencyMismatch,
    BalanceLimitExceeded,
    LimitExceeded,
    HoldsActive,
    HoldNotActive,
    ExceedsHold,
    TooManyHolds,
    NotReversible,
    AlreadyReversed,
    ExceedsReversible,
    IdempotencyKeyReused,
    RateLimited,
    InternalError,
    Overloaded,
    StorageUnavailable,
    ClockSkewed,
    OutcomeUnknown,
    ProjectionBehind,
}

/// The name, status and texts of an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSpec {
    /// The name of the code in problems and in the path of its page.
    pub code: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// The kind of error, as a noun phrase.
    pub title: &'static str,
    /// What happened and what a client can do. It is the detail of a problem that has none of its own.
    pub help: &'static str,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: &[ErrorCode] = &[
        ErrorCode::MalformedRequest,
        ErrorCode::InvalidAmount,
        ErrorCode::InvalidCurrency,
        ErrorCode::InvalidParameter,
        ErrorCode::InvalidIdempotencyKey,
        ErrorCode::SameAccount,
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
        ErrorCode::AccountNotFound,
        ErrorCode::HoldNotFound,
        ErrorCode::TransactionNotFound,
        ErrorCode::VersionNotFound,
        ErrorCode::NotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::NotAcceptable,
        ErrorCode::RequestTimeout,
        ErrorCode::PayloadTooLarge,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::AccountExists,
        ErrorCode::RebuildRunning,
        ErrorCode::WebhookExists,
        ErrorCode::VersionMismatch,
        ErrorCode::AccountClosed,
        ErrorCode::AccountFrozen,
        ErrorCode::AccountNotFrozen,
        ErrorCode::InsufficientFunds,
        ErrorCode::BalanceNotZero,
        ErrorCode::CurrencyMismatch,
        ErrorCode::BalanceLimitExceeded,
        ErrorCode::LimitExceeded,
        ErrorCode::HoldsActive,
        ErrorCode::HoldNotActive,
        ErrorCode::ExceedsHold,
        ErrorCode::TooManyHolds,
        ErrorCode::NotReversible,
        ErrorCode::AlreadyReversed,
        ErrorCode::ExceedsReversible,
        ErrorCode::IdempotencyKeyReused,
        ErrorCode::RateLimited,
        ErrorCode::InternalError,
        ErrorCode::Overloaded,
        ErrorCode::StorageUnavailable,
        ErrorCode::ClockSkewed,
        ErrorCode::OutcomeUnknown,
        ErrorCode::ProjectionBehind,
    ];

    /// The name, status, title and help text of this code.
    pub const fn spec(self) -> ErrorSpec {
        let (code, status, title, help) = match self {
            ErrorCode::MalformedRequest => (
                "malformed_request",
                StatusCode::BAD_REQUEST,
                "Malformed request",
                "The request could not be parsed. A body must be the JSON object that the operation describes, without unknown, missing or repeated fields.",
            ),
            ErrorCode::InvalidAmount => (
                "invalid_amount",
                StatusCode::BAD_REQUEST,
                "Invalid amount",
                "An amount must be a plain JSON integer in the currency's minor unit (12550 is 125.50 EUR), from 1 to 9007199254740991.",
            ),
            ErrorCode::InvalidCurrency => (
                "invalid_currency",
                StatusCode::BAD_REQUEST,
                "Invalid currency",
                "A currency must be an ISO 4217 code such as EUR.",
            ),
            ErrorCode::InvalidParameter => (
                "invalid_parameter",
                StatusCode::BAD_REQUEST,
                "Invalid parameter",
                "A path segment, query parameter, header or body field has an invalid value. The member `errors` names it.",
            ),
            ErrorCode::InvalidIdempotencyKey => (
                "invalid_idempotency_key",
                StatusCode::BAD_REQUEST,
                "Invalid idempotency key",
                "An Idempotency-Key must have 1 to 255 visible ASCII characters, bare or as a quoted string.",
            ),
            ErrorCode::SameAccount => (
                "same_account",
                StatusCode::BAD_REQUEST,
                "Same account on both sides",
                "The payer and the payee must be different accounts.",
            ),
            ErrorCode::Unauthenticated => (
                "unauthenticated",
                StatusCode::UNAUTHORIZED,
                "Authentication required",
                "Send the header `Authorization: Bearer <token>` with a token of the provider that this service trusts. The header WWW-Authenticate says why a token was rejected.",
            ),
            ErrorCode::Forbidden => (
                "forbidden",
                StatusCode::FORBIDDEN,
                "Permission denied",
                "The token lacks a scope, which the header WWW-Authenticate names; or a browser sent the request for a page of another site.",
            ),
            ErrorCode::AccountNotFound => (
                "account_not_found",
                StatusCode::NOT_FOUND,
                "Account not found",
                "No account has this id, or the caller may not see it. A view can be behind the log: pass `min_position` to read your own write.",
            ),
            ErrorCode::HoldNotFound => (
                "hold_not_found",
                StatusCode::NOT_FOUND,
                "Hold not found",
                "The account never had a hold with this id, or the caller may not see the account.",
            ),
            ErrorCode::TransactionNotFound => (
                "transaction_not_found",
                StatusCode::NOT_FOUND,
                "Transaction not found",
                "The account has no transaction with this version. An event that moves no money is no transaction.",
            ),
            ErrorCode::VersionNotFound => (
                "version_not_found",
                StatusCode::NOT_FOUND,
                "Version not found",
                "The account has fewer events than `as_of_version` says.",
            ),
            ErrorCode::NotFound => (
                "not_found",
                StatusCode::NOT_FOUND,
                "Resource not found",
                "No resource has this path, or the caller may not see it.",
            ),
            ErrorCode::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "The path does not support this method. The header Allow names the methods that it supports.",
            ),
            ErrorCode::NotAcceptable => (
                "not_acceptable",
                StatusCode::NOT_ACCEPTABLE,
                "No acceptable media type",
                "The header Accept names no media type that this operation can produce.",
            ),
            ErrorCode::RequestTimeout => (
                "request_timeout",
                StatusCode::REQUEST_TIMEOUT,
                "Request too slow",
                "The request body did not arrive in time, and nothing was done. Send the request again.",
            ),
            ErrorCode::PayloadTooLarge => (
                "payload_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "Request body too large",
                "A request body must not exceed 65536 bytes, or 1048576 bytes for a batch.",
            ),
            ErrorCode::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                "The body must be JSON. Send the header `Content-Type: application/json`.",
            ),
            ErrorCode::AccountExists => (
                "account_exists",
                StatusCode::CONFLICT,
                "Account already exists",
                "An account with this id was opened before. Choose another id, or leave it out.",
            ),
            ErrorCode::RebuildRunning => (
                "rebuild_running",
                StatusCode::CONFLICT,
                "Rebuild already running",
                "A projection has at most one rebuild at a time. GET /v1/projections shows its progress.",
            ),
            ErrorCode::WebhookExists => (
                "webhook_exists",
                StatusCode::CONFLICT,
                "Webhook already exists",
                "A webhook has the same URL and the same filters. Use that one, or delete it first.",
            ),
            ErrorCode::VersionMismatch => (
                "version_mismatch",
                StatusCode::PRECONDITION_FAILED,
                "Account version mismatch",
                "The account does not have a version that If-Match names. Read the account again and decide anew.",
            ),
            ErrorCode::AccountClosed => (
                "account_closed",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Account closed",
                "The account is closed. A closed account cannot be reopened.",
            ),
            ErrorCode::AccountFrozen => (
                "account_frozen",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Account frozen",
                "The account is frozen. Unfreeze it before you move money or close it.",
            ),
            ErrorCode::AccountNotFrozen => (
                "account_not_frozen",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Account not frozen",
                "Only a frozen account can be unfrozen.",
            ),
            ErrorCode::InsufficientFunds => (
                "insufficient_funds",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Insufficient funds",
                "The available balance does not cover the amount. The member `available` is the balance less active holds plus the overdraft, in minor units.",
            ),
            ErrorCode::BalanceNotZero => (
                "balance_not_zero",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Balance not zero",
                "Only an account with a zero balance can be closed. The member `balance` is the balance in minor units.",
            ),
            ErrorCode::CurrencyMismatch => (
                "currency_mismatch",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Currency mismatch",
                "An account has one currency for life, and both accounts of a transfer must have the same.",
            ),
            ErrorCode::BalanceLimitExceeded => (
                "balance_limit_exceeded",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Balance limit exceeded",
                "A balance together with the overdraft must not exceed 9007199254740991 minor units.",
            ),
            ErrorCode::LimitExceeded => (
                "limit_exceeded",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Limit exceeded",
                "The amount would exceed a limit of the account. The member `limit` names it, `maximum` is its value and `used` what counts against it, in minor units; `resets_at` is the time from which it counts from 0 again.",
            ),
            ErrorCode::HoldsActive => (
                "holds_active",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Holds active",
                "An account with active holds cannot be closed. Capture or void them first.",
            ),
            ErrorCode::HoldNotActive => (
                "hold_not_active",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Hold not active",
                "The hold was captured, voided or has expired. Only an active hold can be captured or voided.",
            ),
            ErrorCode::ExceedsHold => (
                "exceeds_hold",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Amount exceeds the hold",
                "A capture takes at most what the hold has left. The member `remaining` is this amount in minor units.",
            ),
            ErrorCode::TooManyHolds => (
                "too_many_holds",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Too many holds",
                "An account has at most 200 active holds. Capture or void one before you place another.",
            ),
            ErrorCode::NotReversible => {
                ("not_reversible", StatusCode::UNPROCESSABLE_ENTITY, "Not reversible", "A reversal cannot be reversed.")
            }
            ErrorCode::AlreadyReversed => (
                "already_reversed",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Already reversed",
                "The transaction is already fully reversed.",
            ),
            ErrorCode::ExceedsReversible => (
                "exceeds_reversible",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Amount exceeds what can be reversed",
                "The reversals of a transaction are never more than its amount in sum. The member `reversible` is what is left, in minor units.",
            ),
            ErrorCode::IdempotencyKeyReused => (
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Idempotency key reused",
                "The idempotency key was used for another request. A key identifies one method, path, body and If-Match; use a new key for a new request.",
            ),
            ErrorCode::RateLimited => (
                "rate_limited",
                StatusCode::TOO_MANY_REQUESTS,
                "Rate limit exceeded",
                "Nothing was done. Retry after the seconds in the header Retry-After; the header RateLimit-Policy describes the limit.",
            ),
            ErrorCode::InternalError => (
                "internal_error",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error",
                "The service failed to process the request because of a fault of its own. Report the request id: the service's log has the cause.",
            ),
            ErrorCode::Overloaded => (
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "Service overloaded",
                "Too many requests are waiting, and nothing was done. Retry after the seconds in the header Retry-After.",
            ),
            ErrorCode::StorageUnavailable => (
                "storage_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Database unavailable",
                "The database cannot be reached, refuses a statement or does not answer in time, and nothing was done. Retry after the seconds in the header Retry-After.",
            ),
            ErrorCode::ClockSkewed => (
                "clock_skewed",
                StatusCode::SERVICE_UNAVAILABLE,
                "Clock skewed",
                "The clock of this instance differs too much from the database's, and nothing was done. Retry after the seconds in the header Retry-After; another instance may be able to answer.",
            ),
            ErrorCode::OutcomeUnknown => (
                "outcome_unknown",
                StatusCode::SERVICE_UNAVAILABLE,
                "Unknown outcome",
                "The command may or may not have been recorded. Send the same request with the same Idempotency-Key again until it succeeds or is rejected.",
            ),
            ErrorCode::ProjectionBehind => (
                "projection_behind",
                StatusCode::SERVICE_UNAVAILABLE,
                "View behind the log",
                "The view has not yet read up to the requested position. Retry after the seconds in the header Retry-After.",
            ),
        };
        ErrorSpec { code, status, title, help }
    }

    /// The name of the code.
    pub const fn as_str(self) -> &'static str {
        self.spec().code
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.spec().status
    }

    /// The code of a response that a library made and that has only a status.
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorCode::Forbidden,
            StatusCode::NOT_FOUND => ErrorCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => ErrorCode::NotAcceptable,
            StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
            status if status.is_client_error() => ErrorCode::MalformedRequest,
            _ => ErrorCode::InternalError,
        }
    }
}
