//! Judges tokens: signature, times, issuer and audience; then says who it is.

use std::{path::PathBuf, sync::Arc};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};

use super::{
    caller::{ANONYMOUS, Caller, now_s},
    claims::Claims,
    fetch::{Fetch, secure},
    keyring::Keyring,
    memory::{Memory, fingerprint},
    source::{Error, Source},
};

/// How far the issuer's clock and ours may be apart.
const CLOCK_SKEW_S_MAX: u64 = 60;
/// A longer token is none.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// A subject becomes the owner of accounts, and must be able to.
const SUBJECT_CHARS_MAX: usize = 255;

/// Whose tokens are taken. With a file the keys are read from it, otherwise from the issuer.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who must have issued a token.
    pub issuer: Option<String>,
    /// For whom it must have been issued.
    pub audience: Option<String>,
    /// The keys, as a JWKS document.
    pub jwks_file: Option<PathBuf>,
}

/// Whoever decides whose token is good.
pub struct Authority {
    keys: Arc<Keyring>,
    validation: Validation,
    memory: Memory,
}

/// Why a token is not taken. None of them quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Refused {
    #[error("the token is not a signed JWT with a subject, or is signed by an algorithm that is not taken")]
    Malformed,
    #[error("the token names no key that is known and good for its algorithm")]
    UnknownKey,
    #[error("the token's signature is not that of its key")]
    Signature,
    #[error("the token lacks the claim `{0}`, or has it in another form")]
    Claim(String),
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token's subject cannot be the name of a customer")]
    Subject,
}

impl Authority {
    /// Reads the keys.
    ///
    /// # Errors
    /// Settings that are not safe, or a file without keys. A provider that is away is waited for.
    pub async fn establish(settings: Settings) -> Result<Self, Error> {
        let Settings { issuer, audience, jwks_file } = settings;
        if issuer.is_some() && audience.is_none() {
            return Err(Error::NoAudience);
        }
        let source = match (jwks_file, &issuer) {
            (Some(path), _) => Source::File(path),
            (None, Some(issuer)) if secure(issuer).is_none() => return Err(Error::Insecure(issuer.clone())),
            (None, Some(issuer)) => Source::Provider(Fetch::new()?, issuer.clone()),
            (None, None) => return Err(Error::NoSource),
        };
        if audience.is_none() {
            tracing::warn!("no audience is set: what these keys signed for other services is taken here, too");
        }
        let validation = validation(issuer.as_deref(), audience.as_deref());
        Ok(Self { keys: Keyring::fill(source).await?, validation, memory: Memory::new() })
    }

    /// Whether it can judge anything yet.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whose token it is, if it was verified a moment ago.
    pub fn recall(&self, token: &str) -> Option<Caller> {
        self.memory.recall(&fingerprint(token), now_s())
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn verify(&self, token: &str) -> Result<Caller, Refused> {
        let (known_by, now_s) = (fingerprint(token), now_s());
        let claims = self.judge(token).await?;
        let subject = claims.sub.as_str();
        if !is_customer(subject) {
            return Err(Refused::Subject);
        }
        // A float is cut off at the largest integer.
        let exp_s = claims.exp as u64;
        let caller = Caller::new(subject, claims.scopes(), exp_s.saturating_add(CLOCK_SKEW_S_MAX));
        self.memory.keep(known_by, &caller, exp_s, now_s);
        Ok(caller)
    }

    async fn judge(&self, token: &str) -> Result<Claims, Refused> {
        let header =
            Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX).and_then(|token| decode_header(token).ok());
        // What a token calls critical has to be understood (RFC 7515, section 4.1.11), and nothing is.
        let Some(Header { alg, kid, crit: None, .. }) = header else { return Err(Refused::Malformed) };
        let key = self.keys.find(kid.as_deref(), alg).await.ok_or(Refused::UnknownKey)?;
        let validation = Validation { algorithms: vec![alg], ..self.validation.clone() };
        decode(token, &key.decoding, &validation).map(|decoded| decoded.claims).map_err(|error| {
            match error.into_kind() {
                ErrorKind::InvalidSignature => Refused::Signature,
                ErrorKind::ExpiredSignature => Refused::Expired,
                ErrorKind::ImmatureSignature => Refused::Early,
                ErrorKind::InvalidIssuer => Refused::Issuer,
                ErrorKind::InvalidAudience => Refused::Audience,
                ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => Refused::Claim(claim),
                _ => Refused::Malformed,
            }
        })
    }
}

fn validation(issuer: Option<&str>, audience: Option<&str>) -> Validation {
    // The algorithm is set to that of the key which a token names.
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

/// Whether accounts can be this subject's alone: those of a bank that was open before are nobody's.
fn is_customer(subject: &str) -> bool {
    let is_short = (1..=SUBJECT_CHARS_MAX).contains(&subject.chars().count());
    is_short && !subject.contains(char::is_control) && subject != ANONYMOUS
}
