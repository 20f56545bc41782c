//! Somebody who asks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::scope::{Scope, Scopes};

/// Who asks while access control is off.
pub const ANONYMOUS: &str = "anonymous";

/// Who asks, and what they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    subject: Arc<str>,
    scopes: Scopes,
    /// Until when, in seconds since 1970; nothing for somebody without a token.
    until_s: Option<u64>,
}

impl Caller {
    /// Anybody, where everybody may do everything.
    pub fn anonymous() -> Self {
        Self { subject: Arc::from(ANONYMOUS), scopes: Scopes::all(), until_s: None }
    }

    /// Who a token names, until it ends.
    pub fn new(subject: impl Into<Arc<str>>, scopes: Scopes, until_s: u64) -> Self {
        Self { subject: subject.into(), scopes, until_s: Some(until_s) }
    }

    /// Who it is.
    pub fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// Whether they hold this power.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.hold(scope)
    }

    /// Refuses a caller whose token lacks `scope`.
    ///
    /// # Errors
    /// The scope that is missing.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.may(scope) { Ok(()) } else { Err(MissingScope(scope)) }
    }

    /// Whether they may read an account of this owner.
    pub fn sees(&self, owner: &str) -> bool {
        self.may(Scope::AccountsReadAny) || *self.subject == *owner
    }

    /// How long their token lasts; nothing for somebody without one.
    pub fn lasts(&self) -> Option<Duration> {
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
