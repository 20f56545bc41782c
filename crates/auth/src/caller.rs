//! The caller of a request and its permissions.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::scope::{Scope, Scopes};

/// The subject of every caller while access control is off.
pub const ANONYMOUS: &str = "anonymous";
/// The subject under which the service itself records the expiry of holds.
pub const EXPIRY: &str = "passbook:expiry";
/// The subject under which the service records that an endpoint of a webhook ended its deliveries.
pub const WEBHOOKS: &str = "passbook:webhooks";
/// The subjects that no token may claim.
pub const RESERVED_SUBJECTS: [&str; 3] = [ANONYMOUS, EXPIRY, WEBHOOKS];

/// The subject of a request, with its scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    subject: Arc<str>,
    scopes: Scopes,
    /// When the token expires, in seconds since 1970; `None` without a token.
    until_s: Option<u64>,
}

impl Caller {
    /// The caller of every request while access control is off; it has every scope.
    pub fn anonymous() -> Self {
        Self { subject: Arc::from(ANONYMOUS), scopes: Scopes::all(), until_s: None }
    }

    /// The subject of a token that expires at `until_s` (seconds since 1970).
    pub fn new(subject: impl Into<Arc<str>>, scopes: Scopes, until_s: u64) -> Self {
        Self { subject: subject.into(), scopes, until_s: Some(until_s) }
    }

    /// The subject.
    pub fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// Whether the caller has this scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Refuses a caller whose token lacks `scope`.
    ///
    /// # Errors
    /// The scope that is missing.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.may(scope) { Ok(()) } else { Err(MissingScope(scope)) }
    }

    /// Whether the caller may read an account of this owner.
    pub fn sees(&self, owner: &str) -> bool {
        self.may(Scope::AccountsReadAny) || *self.subject == *owner
    }

    /// How long the token is still valid; `None` without a token.
    pub fn expires_in(&self) -> Option<Duration> {
        self.until_s.map(|until| Duration::from_secs(until.saturating_sub(now_s())))
    }
}

/// A scope that a request needs and the caller's token lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingScope(pub Scope);

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
