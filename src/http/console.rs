//! The files of the console, a web page that uses the public API. They are embedded in the binary.
//!
//! The console also needs the digits of each currency. They come from the list that the service itself uses, because a browser's
//! own list can differ.

use std::{borrow::Cow, sync::LazyLock};

use axum::{
    body::Bytes,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{error_code::ErrorCode, extract::conditions::none_match, problem::Problem};
use passbook_domain::money::{Currency, currencies as all_currencies, digits};

#[derive(RustEmbed)]
#[folder = "console/"]
struct Files;

/// A currency and how its amounts are formatted.
#[derive(Serialize)]
struct CurrencyDigits {
    code: &'static str,
    name: String,
    /// The digits after the decimal point.
    digits: u16,
}

/// All currencies, as JSON.
static CURRENCIES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let entry = |currency: Currency| CurrencyDigits {
        code: currency.code(),
        name: currency.name().to_owned(),
        digits: digits(currency),
    };
    let mut all: Vec<_> = all_currencies().map(entry).collect();
    all.sort_by_key(|currency| currency.code);
    serde_json::to_vec(&all).unwrap_or_default()
});

/// The page. The part of its URL after `#` selects the view, and browsers do not send it.
pub async fn index(headers: HeaderMap) -> Result<Response, Problem> {
    embedded("index.html", &headers)
}

/// A script, style or image of the page.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    embedded(&name, &headers)
}

/// All currencies with their digits.
pub async fn currencies(headers: HeaderMap) -> Result<Response, Problem> {
    let hash: [u8; 32] = Sha256::digest(&*CURRENCIES).into();
    cached_response("application/json", &hash, Bytes::from_static(&CURRENCIES), &headers)
}

fn embedded(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let file = Files::get(name).ok_or(Problem::from_code(ErrorCode::NotFound))?;
    let content_type = content_type(name).ok_or(Problem::from_code(ErrorCode::NotFound))?;
    let content = match file.data {
        Cow::Borrowed(embedded) => Bytes::from_static(embedded),
        // A debug build reads the files from the source tree.
        Cow::Owned(read) => read.into(),
    };
    cached_response(content_type, &file.metadata.sha256_hash(), content, headers)
}

/// A file that a browser caches and revalidates at each use, so that a new release takes effect at once. The entity tag is weak,
/// because the response may be compressed.
fn cached_response(
    content_type: &'static str,
    hash: &[u8],
    content: Bytes,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let opaque = format!("\"{}\"", hex::encode(&hash[..16]));
    let caching = [(header::ETAG, format!("W/{opaque}")), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if none_match(headers, &opaque)? {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [(header::CONTENT_TYPE, content_type)], content).into_response())
}

/// The media type by the file's extension; `None` for files that are not served.
fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    }
}
