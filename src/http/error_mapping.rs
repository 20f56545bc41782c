//! Maps the errors of the other crates to problems. Each error type has one exhaustive match.

use super::{
    error_code::ErrorCode,
    problem::{Facts, LimitFacts, OTHER_OWNER, Problem},
};
use passbook_audit as audit;
use passbook_bank::{self as bank, Refusal};
use passbook_checkpoint as checkpoint;
use passbook_domain::Rejection;
use passbook_event_store::{StorageFailure, log_query_if_unreachable, sqlstate};
use passbook_read_model as read_model;

impl From<bank::Error> for Problem {
    fn from(error: bank::Error) -> Self {
        use bank::Error;
        match error {
            Error::Refused(refused) => refusal(*refused),
            Error::Overloaded => Self::from_code(ErrorCode::Overloaded),
            Error::StorageUnavailable { reason } => storage_unavailable(reason),
            Error::ClockSkewed => Self::from_code(ErrorCode::ClockSkewed),
            Error::OutcomeUnknown => Self::from_code(ErrorCode::OutcomeUnknown),
            Error::Internal => Self::from_code(ErrorCode::InternalError),
        }
    }
}

/// The problem of a refusal by the state, with the account that it concerns and the position of that state.
fn refusal(bank::Refused { reason, account_id, position, replayed, index }: bank::Refused) -> Problem {
    let problem = match reason {
        Refusal::Rejected(rejection) => rejection.into(),
        // The same response as for a missing account, so that the caller cannot distinguish the two.
        Refusal::NotVisible => Problem::from(Rejection::AccountNotFound).with_audit_reason(OTHER_OWNER),
        Refusal::VersionMismatch { current } => version_mismatch(current),
        Refusal::KeyReused => Problem::from_code(ErrorCode::IdempotencyKeyReused),
    };
    problem.with_account(account_id).with_position(position).with_replayed(replayed).with_index(index)
}

fn version_mismatch(current: i64) -> Problem {
    let detail = format!(
        "The account is at version {current}, and If-Match does not name it with a strong entity tag such as \
         \"{current}\". Read the account again and decide anew."
    );
    Problem::new(ErrorCode::VersionMismatch, detail).with_current_version(current)
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let mut facts = Facts::default();
        let code = match rejection {
            Rejection::AccountExists => ErrorCode::AccountExists,
            Rejection::AccountNotFound => ErrorCode::AccountNotFound,
            Rejection::HoldNotFound => ErrorCode::HoldNotFound,
            Rejection::TransactionNotFound => ErrorCode::TransactionNotFound,
            Rejection::AccountClosed => ErrorCode::AccountClosed,
            Rejection::AccountFrozen => ErrorCode::AccountFrozen,
            Rejection::AccountNotFrozen => ErrorCode::AccountNotFrozen,
            Rejection::CurrencyMismatch => ErrorCode::CurrencyMismatch,
            Rejection::HoldNotActive => ErrorCode::HoldNotActive,
            Rejection::ExceedsHold { remaining, .. } => {
                facts.remaining = Some(remaining);
                ErrorCode::ExceedsHold
            }
            Rejection::TooManyHolds => ErrorCode::TooManyHolds,
            Rejection::HoldsActive => ErrorCode::HoldsActive,
            Rejection::NotReversible => ErrorCode::NotReversible,
            Rejection::AlreadyReversed => ErrorCode::AlreadyReversed,
            Rejection::ExceedsReversible { reversible, .. } => {
                facts.reversible = Some(reversible);
                ErrorCode::ExceedsReversible
            }
            Rejection::InsufficientFunds { balance, available, .. } => {
                (facts.balance, facts.available) = (Some(balance), available);
                ErrorCode::InsufficientFunds
            }
            Rejection::BalanceNotZero { balance, .. } => {
                facts.balance = Some(balance);
                ErrorCode::BalanceNotZero
            }
            Rejection::BalanceLimitExceeded => ErrorCode::BalanceLimitExceeded,
            Rejection::LimitExceeded { limit: name, maximum, used, resets_at, .. } => {
                facts.limit = Some(LimitFacts { name, maximum, used, resets_at });
                ErrorCode::LimitExceeded
            }
        };
        Self::new(code, rejection.to_string()).with_facts(facts)
    }
}

impl From<read_model::Error> for Problem {
    fn from(error: read_model::Error) -> Self {
        match error {
            read_model::Error::ForeignPosition(_) => Self::invalid_parameter("min_position", error.to_string()),
            read_model::Error::Lagging { reached } => Self::at_position(ErrorCode::ProjectionBehind, &reached),
            read_model::Error::Inconsistent(reason) => {
                tracing::error!(%reason, "view is inconsistent");
                Self::from_code(ErrorCode::InternalError)
            }
            read_model::Error::Storage(error) => {
                let is_logged = log_query_if_unreachable(&error);
                query_failed(StorageFailure::of(&error), &sqlstate(&error), &error, is_logged)
            }
        }
    }
}

impl From<audit::Error> for Problem {
    fn from(error: audit::Error) -> Self {
        match error {
            audit::Error::Busy => Self::from_code(ErrorCode::Overloaded),
            audit::Error::VerificationUnfinished { .. } => Self::new(ErrorCode::Overloaded, error.to_string()),
            audit::Error::InvalidCursorPosition(error) => Self::invalid_parameter("after", error.to_string()),
            audit::Error::Storage(error) => {
                let is_logged = log_query_if_unreachable(&error);
                query_failed(StorageFailure::of(&error), &sqlstate(&error), &error, is_logged)
            }
        }
    }
}

impl From<checkpoint::Error> for Problem {
    fn from(error: checkpoint::Error) -> Self {
        use checkpoint::Error;
        match error {
            Error::Storage(error) => {
                let is_logged = log_query_if_unreachable(&error);
                query_failed(StorageFailure::of(&error), &sqlstate(&error), &error, is_logged)
            }
            Error::NoWrappingKeys(_)
            | Error::Sealed(_)
            | Error::NoSigningKey
            | Error::Mismatch
            | Error::ReplacedMeanwhile => {
                tracing::error!(%error, "checkpoint cannot be signed");
                storage_unavailable("The service has no key to sign with, which an operator must restore.")
            }
        }
    }
}

fn query_failed(failure: StorageFailure, sqlstate: &str, error: &impl std::fmt::Display, is_logged: bool) -> Problem {
    if !is_logged {
        tracing::error!(failure = failure.as_str(), sqlstate, %error, "query failed");
    }
    storage_unavailable(failure.sentence())
}

/// `reason` is a sentence. Nothing was done for the request.
fn storage_unavailable(reason: &str) -> Problem {
    let detail = format!("{reason} Nothing was done. Retry after the seconds in the header Retry-After.");
    Problem::new(ErrorCode::StorageUnavailable, detail)
}
