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
    INITIALIZER,
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// The script that starts the page.
const INITIALIZER: &str = "swagger-initializer.js";
/// A plugin of Passbook, and the one after which the initializer lists it.
const ASSIGNED_IDS: &str = include_str!("swagger_assigned_ids.js");
const LAST_PLUGIN: &str = "SwaggerUIBundle.plugins.DownloadUrl";

/// The files by name, compressed once.
static CONTENT: LazyLock<HashMap<&str, StaticContent>> = LazyLock::new(|| {
    let config = Arc::new(Config::new([Url::from("/openapi.json")]));
    let read = |name| Some((name, StaticContent::new(content_type(name)?, read_file(name, &config)?)));
    FILES.into_iter().filter_map(read).collect()
});

fn read_file(name: &str, config: &Arc<Config<'static>>) -> Option<Vec<u8>> {
    let bytes = serve(name, Arc::clone(config)).ok().flatten()?.bytes.into_owned();
    if name != INITIALIZER {
        return Some(bytes);
    }
    let script = String::from_utf8(bytes).ok()?;
    let script = script.replace(LAST_PLUGIN, &format!("{LAST_PLUGIN}, AssignedIds"));
    Some(format!("{ASSIGNED_IDS}{script}").into_bytes())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initializer_loads_the_plugin() {
        let config = Arc::new(Config::new([Url::from("/openapi.json")]));
        let script = String::from_utf8(read_file(INITIALIZER, &config).expect("a file")).expect("a script");
        assert!(script.contains("plugins.DownloadUrl, AssignedIds") && script.contains("/openapi.json"), "{script}");
    }
}
