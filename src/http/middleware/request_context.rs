//! Gives every request an id, a trace span, metrics and one log line, and renders every error as a problem.
//!
//! It wraps all other layers but the security headers and compression, so that errors of the libraries get the same form.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use super::{problem_log::ProblemLog, rate_limit::is_probe};
use crate::http::{
    error_code::ErrorCode,
    extract::{
        caller::CallerSlot,
        client_ip::TrustedProxies,
        headers::{RequestId, traceparent},
    },
    header_names::{RATELIMIT, RATELIMIT_POLICY, X_REQUEST_ID},
    problem::Problem,
};
use passbook_auth::ANONYMOUS;
use passbook_telemetry::metrics::METRICS;
use passbook_telemetry::trace::{self, TARGET};

/// How long a read may take, in seconds.
const READ_S_MAX: u64 = 30;

/// The data that the middleware records about a request.
struct RequestContext {
    started: Instant,
    request: ProblemLog,
    route: Option<MatchedPath>,
    span: Span,
}

/// Wraps every route and every fallback.
pub async fn request_context<F: Future<Output = Response>>(
    proxies: &TrustedProxies,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let context = RequestContext::begin(proxies, &mut request);
    let ambiguity = ambiguous_framing(&request);
    let response = match ambiguity {
        None => within_read_timeout(&context.request.method, next(request)).instrument(context.span.clone()).await,
        Some(detail) => Problem::new(ErrorCode::MalformedRequest, detail).into_response(),
    };
    let problem = problem_of(&response);
    if let Some(problem) = &problem {
        context.request.record(problem);
    }
    let code = problem.as_ref().map(|problem| problem.code().as_str());
    let mut response = match problem {
        Some(problem) => context.render(&problem, &response),
        None => response,
    };
    if let Ok(id) = HeaderValue::from_str(&context.request.id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    if ambiguity.is_some() {
        // The next request on the connection could begin at another place than the client meant.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    context.record_response(&response, code);
    response
}

impl RequestContext {
    /// Starts the timer and the span, and adds the request id, the client address and the caller slot to the extensions.
    fn begin(proxies: &TrustedProxies, request: &mut Request) -> Self {
        let started = Instant::now();
        let id = RequestId::from_headers(request.headers());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let span = request_span(request, route.as_ref(), &id.0);
        let caller = CallerSlot::default();
        let client = proxies.client_ip(request);
        if let Some(client) = client {
            request.extensions_mut().insert(client);
        }
        request.extensions_mut().insert(id.clone());
        request.extensions_mut().insert(caller.clone());
        let (method, path) = (request.method().clone(), Arc::from(request.uri().path()));
        Self { started, request: ProblemLog { id: id.0, method, path, caller, client }, route, span }
    }

    /// The problem as the response, with the headers of the response that it replaces.
    fn render(&self, problem: &Problem, replaced: &Response) -> Response {
        let mut rendered = problem.render(&self.request.path, &self.request.id);
        for name in [header::ALLOW, RATELIMIT_POLICY, RATELIMIT] {
            if let Some(value) = replaced.headers().get(&name) {
                rendered.headers_mut().insert(name, value.clone());
            }
        }
        rendered
    }

    /// Measures the response and writes its log line, with the `code` of a refusal.
    fn record_response(&self, response: &Response, code: Option<&str>) {
        let status = response.status();
        let route = self.route.as_ref().map_or("none", MatchedPath::as_str);
        let duration = self.started.elapsed();
        let ProblemLog { id, method, path, caller, .. } = &self.request;
        let labels = &[method_label(method), route, status.as_str()];
        METRICS.requests.with_label_values(labels).observe(duration.as_secs_f64());
        self.span.record("http.response.status_code", status.as_u16());
        let (status, duration_ms) = (status.as_u16(), duration.as_micros() as f64 / 1_000.0);
        let caller = caller.subject().filter(|subject| *subject != ANONYMOUS);
        let (request_id, account_id) = (&**id, account_of(path));
        // Probes, files and rejected floods would hide everything else.
        if is_probe(path) || is_file(path) || response.status() == StatusCode::TOO_MANY_REQUESTS {
            tracing::debug!(request_id, %method, route, status, code, caller, account_id, duration_ms, "request");
        } else {
            tracing::info!(request_id, %method, route, status, code, caller, account_id, duration_ms, "request");
        }
    }
}

/// The account of a path such as `/v1/accounts/{account_id}/deposits`; `None` if it has none.
fn account_of(path: &str) -> Option<&str> {
    let account_id = path.strip_prefix("/v1/accounts/")?.split('/').next()?;
    Uuid::parse_str(account_id).is_ok().then_some(account_id)
}

/// Whether the path is that of a file: of the console, of Swagger UI, of the documentation, or the OpenAPI document.
fn is_file(path: &str) -> bool {
    matches!(path, "/" | "/openapi.json" | "/docs")
        || ["/console/", "/docs/", "/swagger-ui"].iter().any(|start| path.starts_with(start))
}

/// The span of a sampled request, with the attributes of <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>.
fn request_span(request: &Request, route: Option<&MatchedPath>, id: &str) -> Span {
    let parent = traceparent(request.headers());
    if !trace::is_sampled(parent.as_ref()) {
        return Span::none();
    }
    let (method, route) = (method_label(request.method()), route.map_or("none", MatchedPath::as_str));
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = Empty,
        passbook.request_id = id,
    );
    if let Some(parent) = parent {
        parent.adopt(&span);
    }
    span
}

/// The method as a label of bounded cardinality, because a client may send any name.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::PATCH => {
            method.as_str()
        }
        _ => "other",
    }
}

/// The reason if an intermediary could interpret the request differently (RFC 9112, sections 3.2 and 6.1), else `None`. An
/// HTTP/1.1 request must have one `Host`, and `Transfer-Encoding` must be `chunked`.
fn ambiguous_framing(request: &Request) -> Option<&'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts != 1 && request.version() >= Version::HTTP_11 {
        return Some("The request must have exactly one Host header.");
    }
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let is_unambiguous = codings.next().is_none_or(is_chunked) && codings.next().is_none();
    (!is_unambiguous).then_some("Transfer-Encoding must be exactly `chunked`.")
}

/// Limits the time of a read. A command has its own timeout and is not cancelled.
async fn within_read_timeout(method: &Method, response: impl Future<Output = Response>) -> Response {
    if !method.is_safe() {
        return response.await;
    }
    match timeout(Duration::from_secs(READ_S_MAX), response).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("The service could not complete the read within {READ_S_MAX} s. Retry later.");
            Problem::new(ErrorCode::Overloaded, detail).into_response()
        }
    }
}

/// The problem that a handler returned, or that of an error response of a library; `None` if the response is not an error.
fn problem_of(response: &Response) -> Option<Arc<Problem>> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let problem = response.extensions().get::<Arc<Problem>>().cloned();
    Some(problem.unwrap_or_else(|| Arc::new(Problem::from_code(ErrorCode::from_status(status)))))
}
