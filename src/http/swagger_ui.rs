//! Swagger UI, a page to read and try the API. Its files are embedded in the binary.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    http::HeaderMap,
    response::{Redirect, Response},
    routing::get,
};
use utoipa_swagger_ui::{Config, Url, serve};

use super::{
    error_code::ErrorCode,
    extract::parameters::PathText,
    problem::Problem,
    state::AppState,
    static_content::{StaticContent, content_type},
};

/// The files that the page loads.
const FILES: [&str; 10] = [
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "index.html",
    "oauth2-redirect.html",
    "oauth2-redirect.js",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// The files by name, compressed once.
static CONTENT: LazyLock<HashMap<&str, StaticContent>> = LazyLock::new(|| {
    let config = Arc::new(Config::new([Url::from("/openapi.json")]));
    let read = |name| {
        let file = serve(name, Arc::clone(&config)).ok().flatten()?;
        Some((name, StaticContent::new(content_type(name)?, file.bytes.into_owned())))
    };
    FILES.into_iter().filter_map(read).collect()
});

/// The routes of the page.
pub fn routes() -> Router<AppState> {
    // Compressing takes a tenth of a second, which no request should wait for.
    LazyLock::force(&CONTENT);
    Router::new()
        .route("/swagger-ui", get(async || Redirect::to("/swagger-ui/")))
        .route("/swagger-ui/", get(async |headers: HeaderMap| content("index.html", &headers)))
        .route(
            "/swagger-ui/{*file}",
            get(async |PathText(name): PathText, headers: HeaderMap| content(&name, &headers)),
        )
}

fn content(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    CONTENT.get(name).ok_or(Problem::from_code(ErrorCode::NotFound))?.response(headers)
}
