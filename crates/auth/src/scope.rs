//! The scopes of a token, each a permission.

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read the caller's own accounts.
    AccountsRead,
    /// Read any account.
    AccountsReadAny,
    /// Send commands to the caller's own accounts.
    AccountsWrite,
    /// Send commands to any account.
    AccountsWriteAny,
    /// Freeze and unfreeze any account. A permission of the bank's staff, never of a customer.
    AccountsFreeze,
    /// Place, capture and void holds on any account. A permission of merchants and the bank's services.
    AccountsHolds,
    /// Reverse transactions of any account. A permission of the bank's staff.
    AccountsReverse,
    /// Set the overdraft and the limits of any account. A permission of the bank's staff.
    AccountsLimits,
    /// Read and verify the log, which holds every event of every account.
    AuditRead,
    /// Register webhooks and read their deliveries. As powerful as [`Scope::AuditRead`]: a webhook receives every event.
    Webhooks,
    /// Operate the service: projections, rebuilds, metrics.
    Operations,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 11] = [
        Scope::AccountsRead,
        Scope::AccountsReadAny,
        Scope::AccountsWrite,
        Scope::AccountsWriteAny,
        Scope::AccountsFreeze,
        Scope::AccountsHolds,
        Scope::AccountsReverse,
        Scope::AccountsLimits,
        Scope::AuditRead,
        Scope::Webhooks,
        Scope::Operations,
    ];

    /// Its name in a token.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::AccountsRead => "accounts:read",
            Scope::AccountsReadAny => "accounts:read:any",
            Scope::AccountsWrite => "accounts:write",
            Scope::AccountsWriteAny => "accounts:write:any",
            Scope::AccountsFreeze => "accounts:freeze",
            Scope::AccountsHolds => "accounts:holds",
            Scope::AccountsReverse => "accounts:reverse",
            Scope::AccountsLimits => "accounts:limits",
            Scope::AuditRead => "audit:read",
            Scope::Webhooks => "webhooks",
            Scope::Operations => "operations",
        }
    }

    /// The scope of this name; `None` for the scopes of other services.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// The scope that gives the same permission on every account.
    pub const fn on_any_account(self) -> Option<Self> {
        match self {
            Scope::AccountsRead => Some(Scope::AccountsReadAny),
            Scope::AccountsWrite => Some(Scope::AccountsWriteAny),
            Scope::AccountsReadAny
            | Scope::AccountsWriteAny
            | Scope::AccountsFreeze
            | Scope::AccountsHolds
            | Scope::AccountsReverse
            | Scope::AccountsLimits
            | Scope::AuditRead
            | Scope::Webhooks
            | Scope::Operations => None,
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Self::from_iter(Scope::ALL)
    }

    /// The known scopes among `names`; names of other services are ignored.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Scope::from_name).collect()
    }

    /// Whether the set contains `scope`, or the same permission on every account.
    pub fn contains(self, scope: Scope) -> bool {
        let wider = scope.on_any_account().map_or(0, Scope::bit);
        self.0 & (scope.bit() | wider) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_on_any_account_contains_only_the_one_on_own_accounts() {
        for scope in Scope::ALL {
            for held in Scope::ALL {
                let expected = held == scope || scope.on_any_account() == Some(held);
                assert_eq!(Scopes::from_iter([held]).contains(scope), expected, "{held:?} for {scope:?}");
            }
        }
    }

    #[test]
    fn unknown_scope_names_are_ignored() {
        let names = ["openid", "accounts", "accounts:read:", "ACCOUNTS:READ", "", "*", "accounts:*"];
        assert_eq!(Scopes::from_names(names), Scopes::default());
        assert_eq!(Scopes::from_names(Scope::ALL.map(Scope::name)), Scopes::all());
    }
}
