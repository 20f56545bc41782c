//! The documentation at `/docs/`. A page is rendered and compressed at its first request, and shared by all later ones.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    http::HeaderMap,
    response::{Redirect, Response},
    routing::get,
};

use super::{
    error_code::ErrorCode,
    extract::parameters::PathText,
    problem::Problem,
    state::AppState,
    static_content::{StaticContent, content_type},
};
use crate::documents;

/// The content by name. Only names of existing pages and files are added, so that its size is limited by that of `docs/`.
static CONTENT: LazyLock<Mutex<HashMap<String, StaticContent>>> = LazyLock::new(Mutex::default);

/// The routes of the documentation.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(async |headers: HeaderMap| content("index.html", &headers)))
        .route("/docs/{*file}", get(async |PathText(name): PathText, headers: HeaderMap| content(&name, &headers)))
}

fn content(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let mut contents = CONTENT.lock().unwrap_or_else(PoisonError::into_inner);
    // A debug build reads the files from the source tree, where they change.
    if cfg!(debug_assertions) {
        contents.remove(name);
    }
    let content = match contents.get(name) {
        Some(content) => content.clone(),
        None => {
            let content = create(name).ok_or(Problem::from_code(ErrorCode::NotFound))?;
            contents.insert(name.to_owned(), content.clone());
            content
        }
    };
    drop(contents);
    content.response(headers)
}

fn create(name: &str) -> Option<StaticContent> {
    let content_type = if name.ends_with(".json") { "application/json" } else { content_type(name)? };
    if name == documents::STYLE_NAME {
        return Some(StaticContent::new(content_type, documents::STYLE));
    }
    if let Some(source) = documents::source_path(name) {
        return Some(StaticContent::new(content_type, documents::page(&source)?));
    }
    let file = match documents::file(name)? {
        Cow::Borrowed(embedded) => Bytes::from_static(embedded),
        Cow::Owned(read) => read.into(),
    };
    Some(StaticContent::new(content_type, file))
}
