//! Verifies bearer tokens: signature, times, issuer and audience. A valid token becomes a [`Caller`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use tokio::{sync::watch, time::timeout};

use crate::{
    caller::{Caller, RESERVED_SUBJECTS, now_s},
    claims::Claims,
    jwks_cache::JwksCache,
    jwks_source::{Error, HttpClient, JwksSource, secure_url},
    ring_provider,
    token_cache::{TokenCache, fingerprint},
};

/// How far the issuer's clock may differ from this machine's, in seconds.
const CLOCK_SKEW_S_MAX: u64 = 60;
/// How often the token of an open event stream is verified again, in seconds.
const REVERIFY_S: u64 = 60;
/// A longer token is refused before it is parsed.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// A subject becomes the owner of accounts, and an owner has at most this many characters.
const SUBJECT_CHARS_MAX: usize = 255;

/// Which tokens are accepted. With `jwks_file` the keys are read from it, otherwise from the issuer.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The claim `iss` that a token must have.
    pub issuer: Option<String>,
    /// The claim `aud` that a token must have.
    pub audience: Option<String>,
    /// A file with the keys, as a JWKS document.
    pub jwks_file: Option<PathBuf>,
}

impl Settings {
    /// Checks the settings without reading a file or reaching a provider.
    ///
    /// # Errors
    /// They are unsafe or incomplete.
    pub fn check(&self) -> Result<(), Error> {
        match (&self.jwks_file, &self.issuer) {
            (_, Some(_)) if self.audience.is_none() => Err(Error::NoAudience),
            (None, Some(issuer)) if secure_url(issuer).is_none() => Err(Error::InsecureUrl(issuer.clone())),
            (None, None) => Err(Error::NoSource),
            (Some(_), _) | (None, Some(_)) => Ok(()),
        }
    }
}

/// Verifies tokens with the keys of one source. Share it: it caches keys and verified tokens.
pub struct TokenVerifier {
    keys: Arc<JwksCache>,
    /// The number of changes of the keys.
    key_changes: watch::Receiver<u64>,
    validation: Validation,
    verified: TokenCache,
}

/// Why a token is refused. No message quotes the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum TokenError {
    #[error("the token is not a signed JWT with a subject, or its algorithm is not supported")]
    Malformed,
    #[error("the token names no known key for its algorithm")]
    UnknownKey,
    #[error("the token's signature does not match its key")]
    Signature,
    #[error("the token's claim `{0}` is missing or has the wrong type")]
    Claim(String),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token's subject cannot own an account")]
    Subject,
}

impl TokenVerifier {
    /// Loads the keys. An unreachable provider is not an error: its keys are loaded later, and no token is valid until then.
    ///
    /// # Errors
    /// Unsafe or incomplete settings, or a file that holds no keys.
    pub async fn new(settings: Settings) -> Result<Self, Error> {
        ring_provider::install();
        settings.check()?;
        let Settings { issuer, audience, jwks_file } = settings;
        let source = match (jwks_file, &issuer) {
            (Some(path), _) => JwksSource::File(path),
            (None, Some(issuer)) => JwksSource::Provider(HttpClient::new()?, issuer.clone()),
            (None, None) => return Err(Error::NoSource),
        };
        if audience.is_none() {
            tracing::warn!("no audience is set; tokens that these keys signed for other services are accepted");
        }
        let validation = validation(issuer.as_deref(), audience.as_deref());
        let keys = JwksCache::load(source).await?;
        Ok(Self { key_changes: keys.changes(), keys, validation, verified: TokenCache::new() })
    }

    /// Whether there is any key. Without one every token is refused.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The caller of a token that was verified within the last minute, with the current keys; `None` if it has to be verified.
    pub fn cached(&self, token: &str) -> Option<Caller> {
        self.verified.get(&fingerprint(token), *self.key_changes.borrow(), now_s())
    }

    /// Verifies a token and caches its caller.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let (fingerprint, now_s) = (fingerprint(token), now_s());
        // Read before the key is: if the keys change in the meantime, the token is verified again.
        let key_changes = *self.key_changes.borrow();
        let claims = self.decode(token).await?;
        let subject = claims.sub.as_str();
        if !can_own_accounts(subject) {
            return Err(TokenError::Subject);
        }
        // The cast saturates: a float above the largest integer becomes that integer.
        let exp_s = claims.exp as u64;
        let caller = Caller::new(subject, claims.scopes(), exp_s.saturating_add(CLOCK_SKEW_S_MAX));
        self.verified.insert(fingerprint, &caller, key_changes, now_s..exp_s);
        Ok(caller)
    }

    /// Completes when the token is no longer accepted, for example because its key was withdrawn. It is verified once a minute, and
    /// whenever the keys change.
    pub async fn until_refused(&self, token: &str) -> TokenError {
        let mut key_changes = self.key_changes.clone();
        // The keys may have changed after the caller has verified the token.
        key_changes.mark_changed();
        loop {
            // Both outcomes, a change and the end of the minute, have the same consequence.
            let _ = timeout(Duration::from_secs(REVERIFY_S), key_changes.changed()).await;
            if let Err(error) = self.verify(token).await {
                return error;
            }
        }
    }

    async fn decode(&self, token: &str) -> Result<Claims, TokenError> {
        let header =
            Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX).and_then(|token| decode_header(token).ok());
        // A header that is marked critical must be understood (RFC 7515, section 4.1.11). None is supported here.
        let Some(Header { alg, kid, crit: None, .. }) = header else { return Err(TokenError::Malformed) };
        let key = self.keys.find(kid.as_deref(), alg).await.ok_or(TokenError::UnknownKey)?;
        let validation = Validation { algorithms: vec![alg], ..self.validation.clone() };
        decode(token, &key.decoding, &validation).map(|decoded| decoded.claims).map_err(|error| {
            match error.into_kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYetValid,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidAudience => TokenError::Audience,
                ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                    TokenError::Claim(claim)
                }
                _ => TokenError::Malformed,
            }
        })
    }
}

fn validation(issuer: Option<&str>, audience: Option<&str>) -> Validation {
    // The algorithm is a placeholder: each token is validated with that of the key it names.
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = CLOCK_SKEW_S_MAX;
    validation.validate_nbf = true;
    validation.validate_aud = audience.is_some();
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Whether a subject can own accounts. Accounts that were opened without access control belong to
/// [`ANONYMOUS`](crate::ANONYMOUS), and the service records the expiry of holds as [`EXPIRY`](crate::EXPIRY), so no token may
/// claim these names.
fn can_own_accounts(subject: &str) -> bool {
    let is_short = (1..=SUBJECT_CHARS_MAX).contains(&subject.chars().count());
    is_short && !subject.contains(char::is_control) && !RESERVED_SUBJECTS.contains(&subject)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::Instant;

    use super::*;
    use crate::development;

    /// How long a withdrawn key may be accepted, in seconds, as docs/security.md promises.
    const WITHDRAWAL_S_MAX: u64 = 61;

    fn development_token(folder: &std::path::Path) -> (String, PathBuf) {
        let claims = development::TokenClaims {
            subject: "auditor",
            scope: "audit:read",
            valid_s: 3_600,
            issuer: None,
            audience: None,
        };
        let made = development::token(&folder.join(development::KEY_FILE), &claims);
        made.map_err(|error| error.to_string()).expect("a token")
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_token_is_refused_a_minute_after_its_key_is_withdrawn() {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let (token, jwks) = development_token(first.path());
        let settings = Settings { issuer: None, audience: None, jwks_file: Some(jwks.clone()) };
        let verifier = TokenVerifier::new(settings).await.map_err(|error| error.to_string()).expect("a verifier");
        assert!(verifier.verify(&token).await.is_ok());
        assert!(verifier.cached(&token).is_some());
        let (_, others) = development_token(second.path());
        fs::copy(others, jwks).expect("the key is replaced");
        let start = Instant::now();
        assert_eq!(verifier.until_refused(&token).await, TokenError::UnknownKey);
        assert!(start.elapsed() <= Duration::from_secs(WITHDRAWAL_S_MAX), "{:?}", start.elapsed());
        assert_eq!(verifier.cached(&token), None, "an earlier verification does not count");
    }
}
