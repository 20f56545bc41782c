//! Reads a small document from a provider: over TLS, within a time, up to a size, and without following anybody elsewhere.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::source::Error;

/// How large a document may be.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// How long it may take to arrive.
const DOCUMENT_MS_MAX: u64 = 5_000;

/// A client for documents.
pub struct Fetch(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Fetch {
    /// Trusts whom this machine trusts.
    pub fn new() -> Result<Self, Error> {
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| failed("the certificates of this machine", &error))?;
        let connector = tls.https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)))
    }

    /// The document at `url`.
    pub async fn get(&self, url: &str) -> Result<Bytes, Error> {
        let uri = secure(url).ok_or_else(|| Error::Insecure(url.to_owned()))?;
        let document = timeout(Duration::from_millis(DOCUMENT_MS_MAX), self.read(uri)).await;
        document
            .map_err(|_| failed(url, &format!("no answer within {DOCUMENT_MS_MAX} ms")))?
            .map_err(|reason| failed(url, &reason))
    }

    async fn read(&self, uri: Uri) -> Result<Bytes, String> {
        let response = self.0.get(uri).await.map_err(|error| told(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }
}

/// The URL, if nobody on the way can change what is read there.
pub fn secure(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Some(uri),
        Some("http") if is_here => Some(uri),
        _ => None,
    }
}

fn failed(url: &str, reason: &impl ToString) -> Error {
    Error::Fetch { url: url.to_owned(), reason: reason.to_string() }
}

/// An error with what is behind it: by itself it only says that the client failed.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::secure;

    #[test]
    fn a_document_is_read_over_tls_or_from_this_machine() {
        for url in ["https://id.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x"] {
            assert!(secure(url).is_some(), "{url}");
        }
        for url in
            ["http://id.example/x", "ftp://localhost/x", "id.example", "/x", "", "http://localhost.evil/x", "file:///x"]
        {
            assert!(secure(url).is_none(), "{url}");
        }
    }
}
