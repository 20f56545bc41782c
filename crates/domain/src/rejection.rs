//! The refusals of the domain, in the order of their rank.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    holds::ACTIVE_HOLDS_MAX,
    limits::LimitName,
    money::{Amount, Currency, MINOR_UNITS_MAX, in_major_units},
};

/// Why the state refuses a command. The variants are in order of rank: if several apply, the first one is returned.
///
/// A refusal is stored with its idempotency key, so the JSON must stay readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    /// An account is opened only once.
    #[error("An account with this id already exists.")]
    AccountExists,
    /// No account was opened with this id.
    #[error("No account has this id.")]
    AccountNotFound,
    /// The account never placed a hold with this id.
    #[error("The account has no hold with this id.")]
    HoldNotFound,
    /// The account has no movement at this version.
    #[error("The account has no transaction with this version.")]
    TransactionNotFound,
    /// A closed account stays closed.
    #[error("The account is closed. A closed account cannot be reopened.")]
    AccountClosed,
    /// Money cannot move, and the account cannot be closed or frozen again.
    #[error("The account is frozen. Unfreeze it before you move money or close it.")]
    AccountFrozen,
    /// Only a frozen account can be unfrozen.
    #[error("The account is not frozen, so it cannot be unfrozen.")]
    AccountNotFrozen,
    /// The currency of an account never changes.
    #[error("The account has another currency than the request or the other account.")]
    CurrencyMismatch,
    /// The hold was captured, voided or has expired.
    #[error("The hold is over. Only an active hold can be captured or voided.")]
    HoldNotActive,
    /// A capture takes more than the hold has left.
    #[error(
        "The hold has {} left, which does not cover {}.",
        in_major_units(*remaining, *currency),
        in_major_units(amount.minor_units(), *currency)
    )]
    ExceedsHold {
        /// What can still be captured, in minor units.
        remaining: i64,
        /// The amount to be captured.
        amount: Amount,
        /// The account's currency.
        currency: Currency,
    },
    /// The account has as many active holds as it can have.
    #[error("The account has {ACTIVE_HOLDS_MAX} active holds. Capture or void one before you place another.")]
    TooManyHolds,
    /// Only an account without active holds can be closed.
    #[error("The account has active holds. Capture or void them before you close it.")]
    HoldsActive,
    /// A reversal is final.
    #[error("A reversal cannot be reversed.")]
    NotReversible,
    /// Nothing is left to reverse.
    #[error("The transaction is already fully reversed.")]
    AlreadyReversed,
    /// The reversals of a movement are never more than its amount.
    #[error(
        "{} of the transaction can still be reversed, which does not cover {}.",
        in_major_units(*reversible, *currency),
        in_major_units(amount.minor_units(), *currency)
    )]
    ExceedsReversible {
        /// What can still be reversed, in minor units.
        reversible: i64,
        /// The amount to be reversed.
        amount: Amount,
        /// The account's currency.
        currency: Currency,
    },
    /// Less than the amount is available.
    #[error(
        "The {} of {} does not cover {}.",
        if available.is_none_or(|available| available == *balance) { "balance" } else { "available balance" },
        in_major_units(available.unwrap_or(*balance), *currency),
        in_major_units(amount.minor_units(), *currency)
    )]
    InsufficientFunds {
        /// The balance, in minor units.
        balance: i64,
        /// The balance less active holds plus the overdraft, in minor units. A refusal that was recorded before accounts had holds
        /// has no value; it is the balance then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        available: Option<i64>,
        /// The amount to be debited.
        amount: Amount,
        /// The account's currency.
        currency: Currency,
    },
    /// Only an empty account can be closed.
    #[error(
        "The account has a balance of {}. Only an account with a zero balance can be closed.",
        in_major_units(*balance, *currency)
    )]
    BalanceNotZero {
        /// The balance, in minor units.
        balance: i64,
        /// The account's currency.
        currency: Currency,
    },
    /// The balance and the overdraft together would pass [`MINOR_UNITS_MAX`].
    #[error("The balance and the overdraft together would exceed {MINOR_UNITS_MAX} minor units.")]
    BalanceLimitExceeded,
    /// The amount would exceed a limit of the account.
    #[error(
        "{} would exceed the limit {} of {}, of which {} is used.",
        in_major_units(amount.minor_units(), *currency),
        limit.as_str(),
        in_major_units(*maximum, *currency),
        in_major_units(*used, *currency)
    )]
    LimitExceeded {
        /// The limit.
        limit: LimitName,
        /// Its value, in minor units.
        maximum: i64,
        /// What counts against it already, in minor units.
        used: i64,
        /// When it counts from 0 again; `None` for a limit on single movements.
        resets_at: Option<DateTime<Utc>>,
        /// The amount of the refused command.
        amount: Amount,
        /// The account's currency.
        currency: Currency,
    },
}

impl Rejection {
    /// Whether the account, the hold or the movement does not exist. Such a refusal ranks before that of `If-Match`.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::AccountNotFound | Self::HoldNotFound | Self::TransactionNotFound => true,
            Self::AccountExists
            | Self::AccountClosed
            | Self::AccountFrozen
            | Self::AccountNotFrozen
            | Self::CurrencyMismatch
            | Self::HoldNotActive
            | Self::ExceedsHold { .. }
            | Self::TooManyHolds
            | Self::HoldsActive
            | Self::NotReversible
            | Self::AlreadyReversed
            | Self::ExceedsReversible { .. }
            | Self::InsufficientFunds { .. }
            | Self::BalanceNotZero { .. }
            | Self::BalanceLimitExceeded
            | Self::LimitExceeded { .. } => false,
        }
    }
}
