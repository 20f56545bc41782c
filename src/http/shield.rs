//! What every answer tells a browser: not to guess, not to tell where it came from, not to keep, not to load from elsewhere.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// For answers that are data: nothing is loaded, and nobody frames them.
const POLICY_OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For Swagger UI, which sets styles of elements and draws with images of its own. Scripts come from here alone.
const POLICY_OF_PAGES: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// For the console, whose styles and scripts are files of ours, all of them.
const POLICY_OF_CONSOLE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds what the answer does not say itself.
pub async fn headers(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_data = path.starts_with("/v1/");
    let policy = match path {
        "/" => POLICY_OF_CONSOLE,
        path if path.starts_with("/console/") => POLICY_OF_CONSOLE,
        path if path.starts_with("/swagger-ui") => POLICY_OF_PAGES,
        _ => POLICY_OF_DATA,
    };
    let mut response = next.run(request).await;
    let mut tell = |name: HeaderName, value: &'static str| {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    tell(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    tell(header::REFERRER_POLICY, "no-referrer");
    tell(header::CONTENT_SECURITY_POLICY, policy);
    if is_data {
        tell(header::CACHE_CONTROL, "no-store");
    }
    response
}
