//! The files of the console, a web page that uses the public API. They are embedded in the binary.
//!
//! The console also needs the digits of each currency. They come from the list that the service itself uses, because a browser's
//! own list can differ.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde::Serialize;

use super::{
    currencies::{CurrencyInfo, all_currencies},
    error_code::ErrorCode,
    extract::parameters::PathText,
    problem::Problem,
    state::AppState,
    static_content::{StaticContent, content_type},
};

#[derive(RustEmbed)]
#[folder = "console/"]
struct Files;

/// The content of the files by their SHA-256. In a debug build, which reads the files from the source tree, a file that was
/// edited gets new content.
static CONTENT: LazyLock<Mutex<HashMap<[u8; 32], StaticContent>>> = LazyLock::new(Mutex::default);

/// A currency of the log. One that is withdrawn can have accounts, but cannot be chosen for a new one.
#[derive(Serialize)]
struct ConsoleCurrency {
    #[serde(flatten)]
    currency: CurrencyInfo,
    withdrawn: bool,
}

/// All currencies, as JSON.
static CURRENCIES: LazyLock<StaticContent> = LazyLock::new(|| {
    let listed = all_currencies().into_iter();
    let listed = listed.map(|(currency, is_withdrawn)| ConsoleCurrency { currency, withdrawn: is_withdrawn });
    StaticContent::json(&listed.collect::<Vec<_>>())
});

/// The document of a service without a sign-in.
static NO_SIGN_IN: LazyLock<StaticContent> = LazyLock::new(|| StaticContent::json(&()));

/// The page. The part of its URL after `#` selects the view, and browsers do not send it.
pub async fn index(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, Problem> {
    let mut response = embedded("index.html", &headers)?;
    if let Some(sign_in) = &app.sign_in {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, sign_in.policy.clone());
    }
    Ok(response)
}

/// Where and as which client users sign in; `null` if they paste a token.
pub async fn sign_in(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, Problem> {
    let document = app.sign_in.as_ref().map_or(&*NO_SIGN_IN, |sign_in| &sign_in.document);
    document.response(&headers)
}

/// A script, style or image of the page.
pub async fn file(PathText(name): PathText, headers: HeaderMap) -> Result<Response, Problem> {
    embedded(&name, &headers)
}

/// All currencies with their digits.
pub async fn currencies(headers: HeaderMap) -> Result<Response, Problem> {
    CURRENCIES.response(&headers)
}

/// Compresses the files.
pub fn prepare() {
    for name in Files::iter() {
        if let Some(file) = Files::get(&name) {
            content(&name, file);
        }
    }
}

fn embedded(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let content = Files::get(name).and_then(|file| content(name, file));
    content.ok_or(Problem::from_code(ErrorCode::NotFound))?.response(headers)
}

fn content(name: &str, file: EmbeddedFile) -> Option<StaticContent> {
    let content_type = content_type(name)?;
    let mut contents = CONTENT.lock().unwrap_or_else(PoisonError::into_inner);
    let content = contents.entry(file.metadata.sha256_hash()).or_insert_with(|| {
        let plain = match file.data {
            Cow::Borrowed(embedded) => Bytes::from_static(embedded),
            Cow::Owned(read) => read.into(),
        };
        StaticContent::new(content_type, plain)
    });
    Some(content.clone())
}
