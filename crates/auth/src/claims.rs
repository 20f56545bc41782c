//! What a token says, as far as it matters here.

use serde::{Deserialize, Deserializer, Serialize};

use super::scope::Scopes;

/// The claims of a token (RFC 7519, section 4.1; scopes of RFC 8693, section 4.2, or `scp` as some providers have it).
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Who.
    pub sub: String,
    /// Until when, in seconds since 1970, possibly with a fraction. That it is there is checked with the signature.
    #[serde(default)]
    pub exp: f64,
    /// One issuer, and not several of which one is right.
    #[serde(default, rename = "iss")]
    _one_issuer: Option<String>,
    #[serde(default)]
    scope: Words,
    #[serde(default)]
    scp: Words,
}

/// The claims of a token that is made here.
#[derive(Debug, Serialize)]
pub struct NewClaims<'a> {
    /// Who.
    pub sub: &'a str,
    /// For what, words with spaces between.
    pub scope: &'a str,
    /// From when.
    pub iat: u64,
    /// Until when.
    pub exp: u64,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
}

/// Words in one text, or each in its own.
#[derive(Debug, Default)]
struct Words(Vec<String>);

impl Claims {
    /// Everything that the token is good for.
    pub fn scopes(&self) -> Scopes {
        Scopes::of_words(self.scope.0.iter().chain(&self.scp.0).flat_map(|text| text.split(' ')))
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Texts(Vec<String>),
            Nothing(()),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => vec![text],
            Form::Texts(texts) => texts,
            Form::Nothing(()) => vec![],
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
    fn scopes_are_read_from_scope_and_scp_as_a_text_or_a_list() {
        let both = Some(Scopes::from_iter([Scope::AccountsRead, Scope::AuditRead]));
        assert_eq!(scopes(r#", "scope": "openid accounts:read  audit:read""#), both);
        assert_eq!(scopes(r#", "scp": ["accounts:read", "audit:read"]"#), both);
        assert_eq!(scopes(r#", "scp": "accounts:read audit:read""#), both);
        assert_eq!(scopes(r#", "scope": "accounts:read", "scp": ["audit:read"]"#), both);
        assert_eq!(scopes(r#", "scope": null"#), Some(Scopes::default()));
        assert_eq!(scopes(""), Some(Scopes::default()));
        for broken in [r#", "scope": 7"#, r#", "scp": [7]"#, r#", "scp": {"a": 1}"#, r#", "iss": ["a", "b"]"#] {
            assert_eq!(scopes(broken), None, "{broken}");
        }
    }
}
