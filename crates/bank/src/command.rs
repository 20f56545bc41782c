//! The context of a command, and its result.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::receipt::Receipt;
use passbook_domain::{Account, Rejection};
use passbook_event_store::Position;

/// The accounts that a caller may send commands to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountAccess {
    /// The caller's own accounts.
    Own,
    /// All accounts.
    Any,
}

/// Everything about a command except what it does.
#[derive(Clone, Debug)]
pub struct CommandContext {
    /// The authenticated subject that sent the command.
    pub caller: Arc<str>,
    /// The accounts that the caller may send commands to. All other accounts look to the caller as if they did not exist.
    pub access: AccountAccess,
    /// The accounts that the caller may read. A receipt contains of the other account of a command only the id if it is none of
    /// them.
    pub visibility: AccountAccess,
    /// The request id; it connects all events and log lines of one request.
    pub correlation_id: Arc<str>,
    /// The cause of the events: the caller's trace id, or a new id for this command.
    pub causation_id: Uuid,
    /// Makes a retry safe: the command has one outcome under this key.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The account versions at which the command may be executed.
    pub if_match: Option<IfMatch>,
    /// Decide and answer, but write nothing.
    pub dry_run: bool,
    /// The batch that the command is part of, stored with its events.
    pub batch_id: Option<Uuid>,
}

impl CommandContext {
    /// Whether the caller may see this account.
    pub fn can_see(&self, account: &Account) -> bool {
        match self.access {
            AccountAccess::Any => true,
            AccountAccess::Own => account.belongs_to(&self.caller),
        }
    }

    /// Whether a receipt may show this account to the caller.
    pub(super) fn shows(&self, account: &Account) -> bool {
        match self.visibility {
            AccountAccess::Any => true,
            AccountAccess::Own => account.belongs_to(&self.caller),
        }
    }

    /// The metadata that is stored with each event, as JSON.
    pub(super) fn metadata(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Metadata<'a> {
            user_id: &'a str,
            correlation_id: &'a str,
            causation_id: Uuid,
            #[serde(skip_serializing_if = "Option::is_none")]
            batch_id: Option<Uuid>,
        }
        let CommandContext { caller, correlation_id, causation_id, batch_id, .. } = self;
        let (causation_id, batch_id) = (*causation_id, *batch_id);
        serde_json::to_string(&Metadata { user_id: caller, correlation_id, causation_id, batch_id })
    }
}

/// A key under which a request is executed once. Each retry gets the first response.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The key as the caller chose it.
    pub key: String,
    /// SHA-256 of the request. A different request under the same key is refused.
    pub fingerprint: [u8; 32],
}

/// The condition of an `If-Match` header (RFC 9110, section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any version of an existing account.
    Any,
    /// One of these versions.
    Versions(Vec<i64>),
}

impl IfMatch {
    /// Whether `version` satisfies the condition.
    pub fn holds(&self, version: i64) -> bool {
        match self {
            IfMatch::Any => true,
            IfMatch::Versions(versions) => versions.contains(&version),
        }
    }
}

/// The outcome of a command that succeeded.
#[derive(Clone, Debug)]
pub struct CommandOutcome {
    /// The state after the command and the recorded events.
    pub receipt: Receipt,
    /// `true` if the command was recorded earlier under the same idempotency key; the receipt is then the recorded one.
    pub replayed: bool,
}

/// Why the state of the accounts refuses a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The state of an account does not allow the command.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The account belongs to another owner. The caller gets the same response as for an account that does not exist.
    #[error("there is no account with this id")]
    NotVisible,
    /// `If-Match` names another version than the account has.
    #[error("the account is at version {current}")]
    VersionMismatch {
        /// The account's version.
        current: i64,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
}

/// A refusal with the state of the log that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why the command was refused.
    pub reason: Refusal,
    /// The account that the reason is about; `None` for a reused key.
    pub account_id: Option<Uuid>,
    /// The head of the log that the command was judged on, in the partitions of its accounts. A view that has read that far
    /// shows the state that refuses the command.
    pub position: Position,
    /// `true` if the refusal was recorded earlier under the same idempotency key.
    pub replayed: bool,
    /// The index of the refused command in a batch of which all or none is executed; `None` outside of such batches, and for a
    /// reused key.
    pub index: Option<usize>,
}

/// Why a command has no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The state refuses the command. With an idempotency key this outcome is recorded, and every retry gets it again.
    #[error("{}", .0.reason)]
    Refused(Box<Refused>),
    /// The queue is full or closed. Nothing was written.
    #[error("too many commands are waiting; retry later")]
    Overloaded,
    /// The database is unavailable. Nothing was written.
    #[error("{reason} Retry later.")]
    StorageUnavailable {
        /// How the database failed: a sentence for clients and operators.
        reason: &'static str,
    },
    /// The clock of this instance differs too much from the database's. Nothing was written.
    #[error("{}", super::storage_error::CLOCK_SKEWED)]
    ClockSkewed,
    /// The command may or may not have been recorded.
    #[error("the outcome of the command is unknown; retry it with the same idempotency key")]
    OutcomeUnknown,
    /// An internal error. Nothing was written.
    #[error("the command failed with an internal error")]
    Internal,
}
