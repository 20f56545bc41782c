//! The claims of a token that access control reads and writes.

use serde::{Deserialize, Deserializer, Serialize};

use super::scope::Scopes;

/// The claims of a token (RFC 7519, section 4.1; scopes of RFC 8693, section 4.2, or `scp` at some providers).
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// The subject.
    pub sub: String,
    /// The expiry in seconds since 1970, possibly with a fraction. Its presence is checked together with the signature.
    #[serde(default)]
    pub exp: f64,
    /// A string. A token with a list of issuers is refused, even if one of them matches.
    #[serde(default, rename = "iss")]
    _single_issuer: Option<String>,
    #[serde(default)]
    scope: ScopeClaim,
    #[serde(default)]
    scp: ScopeClaim,
}

/// The claims of a development token.
#[derive(Debug, Serialize)]
pub struct NewClaims<'a> {
    /// The subject.
    pub sub: &'a str,
    /// The scopes, separated by spaces.
    pub scope: &'a str,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// The audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
}

/// Scopes as one string, separated by spaces, or as a list.
#[derive(Debug, Default)]
struct ScopeClaim(Vec<String>);

impl Claims {
    /// All scopes of the token that this service knows.
    pub fn scopes(&self) -> Scopes {
        Scopes::from_names(self.scope.0.iter().chain(&self.scp.0).flat_map(|text| text.split(' ')))
    }
}

impl<'de> Deserialize<'de> for ScopeClaim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Texts(Vec<String>),
            Null(()),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => vec![text],
            Form::Texts(texts) => texts,
            Form::Null(()) => vec![],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    fn scopes(claims: &str) -> Option<Scopes> {
        let text = format!(r#"{{"sub": "ada", "exp": 1{claims}}}"#);
        serde_json::from_str::<Claims>(&text).ok().map(|claims| claims.scopes())
    }

    #[test]
    fn scopes_are_read_from_scope_and_scp_as_text_or_list() {
        let both = Some(Scopes::from_iter([Scope::AccountsRead, Scope::AuditRead]));
        assert_eq!(scopes(r#", "scope": "openid accounts:read  audit:read""#), both);
        assert_eq!(scopes(r#", "scp": ["accounts:read", "audit:read"]"#), both);
        assert_eq!(scopes(r#", "scp": "accounts:read audit:read""#), both);
        assert_eq!(scopes(r#", "scope": "accounts:read", "scp": ["audit:read"]"#), both);
        assert_eq!(scopes(r#", "scope": null"#), Some(Scopes::default()));
        assert_eq!(scopes(""), Some(Scopes::default()));
        for invalid in [r#", "scope": 7"#, r#", "scp": [7]"#, r#", "scp": {"a": 1}"#, r#", "iss": ["a", "b"]"#] {
            assert_eq!(scopes(invalid), None, "{invalid}");
        }
    }
}
