//! Security headers for every response: nosniff, Referrer-Policy, Content-Security-Policy, Cache-Control.

use std::future::Future;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    response::Response,
};

/// For responses that are data: a browser loads nothing for them and shows them in no frame.
const CSP_DATA: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For Swagger UI, which sets inline styles and uses embedded images. Scripts come from this server only.
const CSP_SWAGGER_UI: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For the documentation: its style and its images. It has no script.
const CSP_DOCUMENTS: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For statements, which a browser can show: only the style of their web page.
const CSP_STATEMENT: &str = "default-src 'none'; style-src 'sha256-jD4Z05YhQfBMFoOUheyIV7okH1fw2NqLo3kx8vPGIDs='; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// For the console. All its styles and scripts are files of this server. A tab with a statement, which it opens, inherits this policy.
const CSP_CONSOLE: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-jD4Z05YhQfBMFoOUheyIV7okH1fw2NqLo3kx8vPGIDs='; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The policy of the console if it also sends requests to `origin`.
pub fn console_policy(origin: &str) -> String {
    CSP_CONSOLE.replace("connect-src 'self'", &format!("connect-src 'self' {origin}"))
}

/// Adds each header that the response does not have yet.
pub async fn security_headers<F: Future<Output = Response>>(
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let path = request.uri().path();
    let is_data = path.starts_with("/v1/");
    let policy = match path {
        "/" => CSP_CONSOLE,
        path if is_data && path.ends_with("/statement") => CSP_STATEMENT,
        path if path.starts_with("/console/") => CSP_CONSOLE,
        path if path.starts_with("/swagger-ui") => CSP_SWAGGER_UI,
        path if path.starts_with("/docs/") => CSP_DOCUMENTS,
        _ => CSP_DATA,
    };
    let mut response = next(request).await;
    let mut add = |name: HeaderName, value: &'static str| {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    add(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    add(header::REFERRER_POLICY, "no-referrer");
    add(header::CONTENT_SECURITY_POLICY, policy);
    if is_data {
        add(header::CACHE_CONTROL, "no-store");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_of_the_console_permits_the_origin_of_the_provider() {
        let policy = console_policy("https://id.example");
        assert!(policy.contains("; connect-src 'self' https://id.example; "), "{policy}");
    }
}
