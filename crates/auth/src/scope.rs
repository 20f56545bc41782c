//! What a token may be good for.

/// One power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read one's own accounts.
    AccountsRead,
    /// Read any account.
    AccountsReadAny,
    /// Command one's own accounts.
    AccountsWrite,
    /// Command any account.
    AccountsWriteAny,
    /// Freeze and unfreeze any account: the bank's power over its customers, not theirs.
    AccountsFreeze,
    /// Read and verify the log, which tells everything of every account.
    AuditRead,
    /// Run the service.
    Operations,
}

/// A set of powers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scope {
    /// Every power.
    pub const ALL: [Scope; 7] = [
        Scope::AccountsRead,
        Scope::AccountsReadAny,
        Scope::AccountsWrite,
        Scope::AccountsWriteAny,
        Scope::AccountsFreeze,
        Scope::AuditRead,
        Scope::Operations,
    ];

    /// Its word in a token.
    pub const fn word(self) -> &'static str {
        match self {
            Scope::AccountsRead => "accounts:read",
            Scope::AccountsReadAny => "accounts:read:any",
            Scope::AccountsWrite => "accounts:write",
            Scope::AccountsWriteAny => "accounts:write:any",
            Scope::AccountsFreeze => "accounts:freeze",
            Scope::AuditRead => "audit:read",
            Scope::Operations => "operations",
        }
    }

    /// The power of that word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }

    /// The same on any account, which includes one's own.
    pub const fn any(self) -> Option<Self> {
        match self {
            Scope::AccountsRead => Some(Scope::AccountsReadAny),
            Scope::AccountsWrite => Some(Scope::AccountsWriteAny),
            Scope::AccountsReadAny
            | Scope::AccountsWriteAny
            | Scope::AccountsFreeze
            | Scope::AuditRead
            | Scope::Operations => None,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Scopes {
    /// All of them.
    pub fn all() -> Self {
        Self::from_iter(Scope::ALL)
    }

    /// Those among `words` that mean anything here. Others are another service's.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        words.into_iter().filter_map(Scope::of).collect()
    }

    /// Whether `scope` is among them, by itself or within a wider one.
    pub fn hold(self, scope: Scope) -> bool {
        let wider = scope.any().map_or(0, Scope::bit);
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
    fn a_scope_on_any_account_holds_the_one_on_ones_own_and_no_other() {
        for scope in Scope::ALL {
            for held in Scope::ALL {
                let expected = held == scope || scope.any() == Some(held);
                assert_eq!(Scopes::from_iter([held]).hold(scope), expected, "{held:?} for {scope:?}");
            }
        }
    }

    #[test]
    fn words_of_other_services_give_nothing() {
        let words = ["openid", "accounts", "accounts:read:", "ACCOUNTS:READ", "", "*", "accounts:*"];
        assert_eq!(Scopes::of_words(words), Scopes::default());
        assert_eq!(Scopes::of_words(Scope::ALL.map(Scope::word)), Scopes::all());
    }
}
