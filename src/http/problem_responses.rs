//! The errors and request headers in the OpenAPI document: one group of problems per kind of operation.

use utoipa::{IntoParams, IntoResponses};

use super::problem::ProblemBody;

/// The header of every command.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the derive reads it")]
pub struct RetryHeader {
    /// Makes retries safe: 1 to 255 visible ASCII characters. Use a new key for each new request.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        nullable = false,
        pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#
    )]
    idempotency_key: Option<String>,
}

/// The header of a command on one account.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the derive reads it")]
pub struct ConditionHeader {
    /// Execute the command only if the account has this ETag, such as `"7"`; `*` matches any.
    #[param(
        rename = "If-Match",
        required = false,
        nullable = false,
        example = "*",
        pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#
    )]
    if_match: Option<String>,
}

/// Declares the problems that an operation may respond with.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $status:literal: $description:literal,)+ }) => {
        $(#[$doc])*
        #[derive(IntoResponses)]
        #[expect(dead_code, reason = "only the derive reads it")]
        pub enum $name {
            $(
                #[doc = $description]
                #[response(status = $status, content_type = "application/problem+json")]
                $variant(ProblemBody<'static>),
            )+
        }
    };
}

problems! {
    /// The problems of opening an account.
    OpenProblems {
        BadRequest = 400: "The request is invalid: `malformed_request`, `invalid_amount`, `invalid_currency`, `invalid_parameter`, `invalid_idempotency_key`.",
        Conflict = 409: "An account with this id already exists: `account_exists`.",
        RequestTimeout = 408: "The request body did not arrive in time: `request_timeout`.",
        PayloadTooLarge = 413: "The request body is too large: `payload_too_large`.",
        UnsupportedMediaType = 415: "The request body is not JSON: `unsupported_media_type`.",
        UnprocessableContent = 422: "The idempotency key was used for another request: `idempotency_key_reused`.",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `overloaded`, `storage_unavailable`, `clock_skewed`, `outcome_unknown`.",
    }
}

problems! {
    /// The problems of a command on one account.
    CommandProblems {
        BadRequest = 400: "The request is invalid: `malformed_request`, `invalid_amount`, `invalid_currency`, `invalid_parameter`, `invalid_idempotency_key`.",
        NotFound = 404: "The account does not exist, or the caller may not see it: `account_not_found`.",
        PreconditionFailed = 412: "`If-Match` does not name the current version of the account: `version_mismatch`.",
        RequestTimeout = 408: "The request body did not arrive in time: `request_timeout`.",
        PayloadTooLarge = 413: "The request body is too large: `payload_too_large`.",
        UnsupportedMediaType = 415: "The request body is not JSON: `unsupported_media_type`.",
        UnprocessableContent = 422: "The account's state rejects the command (`account_closed`, `account_frozen`, `account_not_frozen`, `insufficient_funds`, `balance_not_zero`, `currency_mismatch`, `balance_limit_exceeded`), or the idempotency key was used for another request (`idempotency_key_reused`).",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `overloaded`, `storage_unavailable`, `clock_skewed`, `outcome_unknown`.",
    }
}

problems! {
    /// The problems of a transfer.
    TransferProblems {
        BadRequest = 400: "The request is invalid: `malformed_request`, `invalid_amount`, `invalid_currency`, `invalid_parameter`, `invalid_idempotency_key`, `same_account`.",
        NotFound = 404: "The account does not exist, or the caller may not see it: `account_not_found`.",
        RequestTimeout = 408: "The request body did not arrive in time: `request_timeout`.",
        PayloadTooLarge = 413: "The request body is too large: `payload_too_large`.",
        UnsupportedMediaType = 415: "The request body is not JSON: `unsupported_media_type`.",
        UnprocessableContent = 422: "The account's state rejects the command (`account_closed`, `account_frozen`, `insufficient_funds`, `currency_mismatch`, `balance_limit_exceeded`), or the idempotency key was used for another request (`idempotency_key_reused`).",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `overloaded`, `storage_unavailable`, `clock_skewed`, `outcome_unknown`.",
    }
}

problems! {
    /// The problems of a query for one resource.
    QueryProblems {
        BadRequest = 400: "The request is invalid: `invalid_parameter`, `invalid_currency`.",
        NotFound = 404: "The account (`account_not_found`), its version (`version_not_found`) or the transfer (`not_found`) does not exist, or the caller may not see it.",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// The problems of a statement.
    StatementProblems {
        BadRequest = 400: "A parameter is missing or invalid: `invalid_parameter`.",
        NotFound = 404: "The account does not exist, or the caller may not see it: `account_not_found`.",
        NotAcceptable = 406: "`Accept` names neither JSON nor CSV: `not_acceptable`.",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// The problems of a list.
    ListProblems {
        BadRequest = 400: "The request is invalid: `invalid_parameter`, `invalid_currency`.",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// The problems of an operation without parameters.
    StatusProblems {
        BadRequest = 400: "The operation has no parameters, and the request has one: `invalid_parameter`.",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `storage_unavailable`, `projection_behind`, `overloaded`.",
    }
}

problems! {
    /// The problems of a rebuild.
    RebuildProblems {
        BadRequest = 400: "A parameter is invalid: `invalid_parameter`.",
        NotFound = 404: "No projection has this name: `not_found`.",
        Conflict = 409: "The projection is already being rebuilt: `rebuild_running`.",
        InternalServerError = 500: "The service failed because of a fault of its own: `internal_error`.",
        ServiceUnavailable = 503: "Retry later: `storage_unavailable`, `overloaded`.",
    }
}
