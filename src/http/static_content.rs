//! Content that is the same for every client: files, the OpenAPI document and pages. It is serialized and compressed once, and all
//! responses share its bytes, so that a request costs neither work nor memory.

use std::io::Write;

use axum::{
    Extension,
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::{
    extract::{conditions::none_match, content_negotiation::accepts_gzip},
    problem::Problem,
};

/// Shorter content is not compressed: the headers of the response are longer.
const COMPRESSED_BYTES_MIN: usize = 512;

/// Marks a response whose body all connections share.
#[derive(Clone, Copy, Debug)]
pub struct SharedBody;

/// A body with its media type, and the same body compressed.
#[derive(Clone, Debug)]
pub struct StaticContent {
    content_type: &'static str,
    /// The opaque part of the entity tag, in quotes.
    opaque_tag: String,
    plain: Bytes,
    /// `None` if compression does not make the body smaller.
    gzip: Option<Bytes>,
}

impl StaticContent {
    /// Compresses `plain`.
    pub fn new(content_type: &'static str, plain: impl Into<Bytes>) -> Self {
        let plain = plain.into();
        let opaque_tag = format!("\"{}\"", hex::encode(&Sha256::digest(&plain)[..16]));
        let gzip = (plain.len() >= COMPRESSED_BYTES_MIN).then(|| compressed(&plain)).flatten();
        let gzip = gzip.filter(|gzip| gzip.len() < plain.len());
        Self { content_type, opaque_tag, plain, gzip }
    }

    /// A value as JSON.
    pub fn json(value: &impl serde::Serialize) -> Self {
        Self::new("application/json", serde_json::to_vec(value).unwrap_or_default())
    }

    /// The response to a request with these headers. A browser caches it and revalidates it at each use, so that a new release
    /// takes effect at once. The entity tag is weak, because the plain and the compressed body share it.
    ///
    /// # Errors
    /// `If-None-Match` is malformed.
    pub fn response(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        let caching = [
            (header::ETAG, format!("W/{}", self.opaque_tag)),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::VARY, "accept-encoding".to_owned()),
        ];
        if none_match(headers, &self.opaque_tag)? {
            return Ok((StatusCode::NOT_MODIFIED, Extension(SharedBody), caching).into_response());
        }
        let (body, coding) = match &self.gzip {
            Some(gzip) if accepts_gzip(headers) => (gzip, Some("gzip")),
            _ => (&self.plain, None),
        };
        let content_type = [(header::CONTENT_TYPE, self.content_type)];
        let mut response = (Extension(SharedBody), caching, content_type, body.clone()).into_response();
        if let Some(coding) = coding {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Ok(response)
    }
}

fn compressed(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// The media type by the file's extension; `None` for files that are not served.
pub fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "png" => Some("image/png"),
        "txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    }
}
