//! Where keys come from: a provider, found by its discovery document (OpenID Connect Discovery 1.0, section 4), or a file.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use super::{fetch::Fetch, keys::Keys};

/// Where keys come from.
pub enum Source {
    /// A JWKS document on this machine.
    File(PathBuf),
    /// A provider, by its name, which is also where it is.
    Provider(Fetch, String),
}

/// Why there are no keys. Each is a sentence for whoever runs the service.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error("the keys of PASSBOOK_AUTH_JWKS_FILE cannot be read from {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} holds no public key (RSA, P-256, P-384 or Ed25519) to verify signatures with")]
    NoKeys(String),
    #[error("{0} is not a JWKS document")]
    NoDocument(String),
    #[error("{url} cannot be read: {reason}")]
    Fetch { url: String, reason: String },
    #[error("the provider calls itself {found:?}: PASSBOOK_AUTH_ISSUER must be exactly that, and is {expected:?}")]
    OtherIssuer { expected: String, found: String },
    #[error("PASSBOOK_AUTH_ISSUER is not an https:// URL (http:// is taken on a loopback address): {0:?}")]
    Insecure(String),
    #[error(
        "PASSBOOK_AUTH_AUDIENCE needs PASSBOOK_AUTH_ISSUER or PASSBOOK_AUTH_JWKS_FILE, which say whose tokens are taken"
    )]
    NoSource,
    #[error("PASSBOOK_AUTH_ISSUER needs PASSBOOK_AUTH_AUDIENCE: without it every service's token would be taken")]
    NoAudience,
}

impl Source {
    /// Whether it makes sense to wait for it.
    pub fn may_come_back(&self) -> bool {
        matches!(self, Source::Provider(..))
    }

    /// The keys as they are now; never none.
    pub async fn read(&self) -> Result<Keys, Error> {
        let (place, document) = match self {
            Source::File(path) => {
                let read = fs::read(path).map_err(|source| Error::File { path: path.clone(), source })?;
                (path.display().to_string(), Bytes::from(read))
            }
            Source::Provider(fetch, issuer) => {
                let place = discover(fetch, issuer).await?;
                let read = fetch.get(&place).await?;
                (place, read)
            }
        };
        match Keys::parse(&document) {
            None => Err(Error::NoDocument(place)),
            Some(keys) if keys.is_empty() => Err(Error::NoKeys(place)),
            Some(keys) => Ok(keys),
        }
    }
}

/// Where the provider's keys are.
async fn discover(fetch: &Fetch, issuer: &str) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = fetch.get(&url).await?;
    let found: Discovery = serde_json::from_slice(&document)
        .map_err(|error| Error::Fetch { url, reason: format!("it is not a discovery document: {error}") })?;
    match found.issuer == issuer {
        true => Ok(found.jwks_uri),
        false => Err(Error::OtherIssuer { expected: issuer.to_owned(), found: found.issuer }),
    }
}
