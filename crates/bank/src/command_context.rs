//! The circumstances of a command: who asks, under which key and on which condition.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use passbook_domain::Account;
use passbook_event_store::log::KeyId;

/// Whose accounts a caller may command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountAccess {
    /// Their own.
    Own,
    /// Anybody's.
    Any,
}

/// What stands around a command.
#[derive(Clone, Debug)]
pub struct CommandContext {
    /// Who asks.
    pub caller: Arc<str>,
    /// Whose accounts they may command. Other accounts are for them as if they were not there.
    pub access: AccountAccess,
    /// Ties together everything that one interaction caused; the request id.
    pub correlation_id: Arc<str>,
    /// What caused the events: the caller's trace, or this command alone.
    pub causation_id: Uuid,
    /// Makes a retry safe.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The versions at which the command may be carried out.
    pub if_match: Option<IfMatch>,
    /// CommandOutcome what would happen, and record nothing.
    pub dry_run: bool,
}

impl CommandContext {
    /// Whether the caller may know of this account.
    pub fn can_see(&self, account: &Account) -> bool {
        match self.access {
            AccountAccess::Any => true,
            AccountAccess::Own => account.belongs_to(&self.caller),
        }
    }

    /// The key that it asks for; a dry run ignores it.
    pub(super) fn key(&self) -> Option<KeyId> {
        let key = self.idempotency_key.as_ref().filter(|_| !self.dry_run)?;
        Some(KeyId { caller: self.caller.clone(), key: key.key.clone() })
    }

    /// What each of its events says of it, as JSON.
    pub(super) fn metadata(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Metadata<'a> {
            user_id: &'a str,
            correlation_id: &'a str,
            causation_id: Uuid,
        }
        let CommandContext { caller, correlation_id, causation_id, .. } = self;
        serde_json::to_string(&Metadata { user_id: caller, correlation_id, causation_id: *causation_id })
    }
}

/// A key that makes retries of one request answer alike.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// As the caller chose it.
    pub key: String,
    /// SHA-256 of the request; another request under the same key is refused.
    pub fingerprint: [u8; 32],
}

/// The condition of an `If-Match` header (RFC 9110, section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any version, as long as the account exists.
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
