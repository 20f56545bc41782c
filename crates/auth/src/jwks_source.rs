//! Reads public keys: from a JWKS file, or from a provider that is found by its discovery document (OpenID Connect Discovery
//! 1.0, section 4).
//!
//! A provider is read over TLS, within a time limit and a size limit, and redirects are not followed.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use reqwest::{Client, StatusCode, Url, redirect::Policy};
use serde::Deserialize;

use crate::{jwks::Jwks, ring_provider};

/// The largest document that is read.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// How long a document may take to arrive.
const DOCUMENT_MS_MAX: u64 = 5_000;

/// The source of the keys.
pub enum JwksSource {
    /// A JWKS document on this machine.
    File(PathBuf),
    /// A provider; its issuer name is also its URL.
    Provider(HttpClient, String),
}

/// Why there are no keys. Each message is written for the operator of the service.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Error {
    #[error("the keys of PASSBOOK_AUTH_JWKS_FILE cannot be read from {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} holds no public key (RSA, P-256, P-384 or Ed25519) that verifies signatures")]
    NoKeys(String),
    #[error("{0} is not a JWKS document")]
    NotJwks(String),
    #[error("{url} cannot be read: {reason}")]
    Fetch { url: String, reason: String },
    #[error(
        "the provider's issuer is {found:?} and PASSBOOK_AUTH_ISSUER is {expected:?}: set PASSBOOK_AUTH_ISSUER to exactly \
         the provider's issuer"
    )]
    OtherIssuer { expected: String, found: String },
    #[error("PASSBOOK_AUTH_ISSUER must be an https:// URL (http:// is allowed on a loopback address), and is {0:?}")]
    InsecureUrl(String),
    #[error(
        "PASSBOOK_AUTH_AUDIENCE needs PASSBOOK_AUTH_ISSUER or PASSBOOK_AUTH_JWKS_FILE, which say whose tokens are accepted"
    )]
    NoSource,
    #[error(
        "PASSBOOK_AUTH_ISSUER needs PASSBOOK_AUTH_AUDIENCE: without it, tokens for other services would be accepted"
    )]
    NoAudience,
}

impl JwksSource {
    /// Whether a failed read may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, JwksSource::Provider(..))
    }

    /// The current keys, at least one.
    ///
    /// # Errors
    /// The document cannot be read, or holds no key that is supported.
    pub async fn read(&self) -> Result<Jwks, Error> {
        let (location, document) = match self {
            JwksSource::File(path) => {
                let read = fs::read(path).map_err(|source| Error::File { path: path.clone(), source })?;
                (path.display().to_string(), read)
            }
            JwksSource::Provider(client, issuer) => {
                let url = discover(client, issuer).await?;
                let read = client.get(&url).await?;
                (url, read)
            }
        };
        match Jwks::parse(&document) {
            None => Err(Error::NotJwks(location)),
            Some(keys) if keys.is_empty() => Err(Error::NoKeys(location)),
            Some(keys) => Ok(keys),
        }
    }
}

/// The URL of the provider's keys.
async fn discover(client: &HttpClient, issuer: &str) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = client.get(&url).await?;
    let found: Discovery = serde_json::from_slice(&document)
        .map_err(|error| Error::Fetch { url, reason: format!("it is not a discovery document: {error}") })?;
    match found.issuer == issuer {
        true => Ok(found.jwks_uri),
        false => Err(Error::OtherIssuer { expected: issuer.to_owned(), found: found.issuer }),
    }
}

/// Reads documents over HTTP, trusting the certificate authorities of this machine.
pub struct HttpClient(Client);

impl HttpClient {
    /// A client without cookies, proxies and redirects.
    ///
    /// # Errors
    /// The certificates of this machine cannot be loaded.
    pub fn new() -> Result<Self, Error> {
        ring_provider::install();
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_millis(DOCUMENT_MS_MAX))
            .build();
        Ok(Self(client.map_err(|error| fetch_error("the certificates of this machine", with_causes(&error)))?))
    }

    /// The document at `url`.
    ///
    /// # Errors
    /// The URL is not secure, or the document cannot be read within its limits.
    pub async fn get(&self, url: &str) -> Result<Vec<u8>, Error> {
        let secure = secure_url(url).ok_or_else(|| Error::InsecureUrl(url.to_owned()))?;
        self.read(secure).await.map_err(|reason| fetch_error(url, reason))
    }

    async fn read(&self, url: Url) -> Result<Vec<u8>, String> {
        let mut response = self.0.get(url).send().await.map_err(|error| with_causes(&error.without_url()))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| with_causes(&error.without_url()))? {
            document.extend_from_slice(&chunk);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(format!("it is larger than {DOCUMENT_BYTES_MAX} bytes"));
            }
        }
        Ok(document)
    }
}

/// The URL, if its content cannot be changed on the way: `https`, or `http` on a loopback address.
pub fn secure_url(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Some(url),
        "http" if is_loopback => Some(url),
        _ => None,
    }
}

fn fetch_error(url: &str, reason: String) -> Error {
    Error::Fetch { url: url.to_owned(), reason }
}

/// The message of an error with those of its causes: the client's own message only says that the request failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::secure_url;

    #[test]
    fn a_document_is_read_over_tls_or_from_a_loopback_address() {
        for url in ["https://id.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x"] {
            assert!(secure_url(url).is_some(), "{url}");
        }
        for url in
            ["http://id.example/x", "ftp://localhost/x", "id.example", "/x", "", "http://localhost.evil/x", "file:///x"]
        {
            assert!(secure_url(url).is_none(), "{url}");
        }
    }
}
