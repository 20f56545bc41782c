//! The console: a page over the public API, whose files are part of the binary.
//!
//! It is given nothing that a client could not have. What it must not guess, how many digits each currency has, is told
//! from the list that the service itself keeps to.

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

use super::{
    headers::none_match,
    problem::{Code, Problem},
};
use passbook_domain::money::{Currency, currencies as every_currency, digits};

#[derive(RustEmbed)]
#[folder = "console/"]
struct Files;

/// How amounts of a currency are written.
#[derive(Serialize)]
struct CurrencyDigits {
    code: &'static str,
    name: String,
    /// Digits behind the point.
    digits: u16,
}

/// The file that lists all currencies.
static CURRENCIES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let told = |currency: Currency| CurrencyDigits {
        code: currency.code(),
        name: currency.name().to_owned(),
        digits: digits(currency),
    };
    let mut all: Vec<_> = every_currency().map(told).collect();
    all.sort_by_key(|currency| currency.code);
    serde_json::to_vec(&all).unwrap_or_default()
});

/// The page itself. What it shows hangs behind the `#`, which no server sees.
pub async fn page(headers: HeaderMap) -> Result<Response, Problem> {
    embedded("index.html", &headers)
}

/// What the page is made of.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    embedded(&name, &headers)
}

/// The currencies there are, and how many digits each has.
pub async fn currencies(headers: HeaderMap) -> Result<Response, Problem> {
    let hash: [u8; 32] = Sha256::digest(&*CURRENCIES).into();
    answer("application/json", &hash, Bytes::from_static(&CURRENCIES), &headers)
}

fn embedded(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let file = Files::get(name).ok_or(Problem::of(Code::NotFound))?;
    let content_type = content_type(name).ok_or(Problem::of(Code::NotFound))?;
    let content = match file.data {
        Cow::Borrowed(embedded) => Bytes::from_static(embedded),
        // In a debug build files are read as they are.
        Cow::Owned(read) => read.into(),
    };
    answer(content_type, &file.metadata.sha256_hash(), content, headers)
}

/// A browser keeps the file and asks each time whether it is still the one: a new release is seen at once. The tag is a weak
/// one, for on its way the file may be compressed.
fn answer(content_type: &'static str, hash: &[u8], content: Bytes, headers: &HeaderMap) -> Result<Response, Problem> {
    let opaque = format!("\"{}\"", hex::encode(&hash[..16]));
    let kept = [(header::ETAG, format!("W/{opaque}")), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if none_match(headers, &opaque)? {
        return Ok((StatusCode::NOT_MODIFIED, kept).into_response());
    }
    Ok((kept, [(header::CONTENT_TYPE, content_type)], content).into_response())
}

/// What a browser takes the file for; `None` for what is not meant for it.
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
