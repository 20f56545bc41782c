//! What every request gets: an id, one log line, and errors in one form, whoever made them.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use super::{
    address::{Client, Proxies},
    caller::Who,
    headers::traceparent,
    limit::{RATELIMIT, RATELIMIT_POLICY},
    problem::{Code, PROBLEM_JSON, Problem},
};
use passbook_telemetry::metrics::METRICS;
use passbook_telemetry::trace::{self, TARGET};

const REQUEST_ID: &str = "x-request-id";
/// How long a read may take.
const READ_S_MAX: u64 = 30;
/// A longer id is not taken over.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// The request's id: the caller's own, or one made here.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// Wraps every route and every fallback.
pub async fn wrap(State(proxies): State<Proxies>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let who = Who::default();
    let client = proxies.client(&request);
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    request.extensions_mut().insert(who.clone());

    let span = span(&request, route.as_ref(), &id);
    let unsound = unsound(&request);
    let response = match unsound {
        None => bounded(&method, next.run(request)).instrument(span.clone()).await,
        Some(reason) => Problem::new(Code::MalformedRequest, reason).into_response(),
    };
    if let Some(problem) = response.extensions().get::<Arc<Problem>>() {
        count(problem);
        if let Some(reason) = problem.refusal() {
            let caller = who.name().unwrap_or("nobody");
            let address = client.map(|Client(address)| tracing::field::display(address));
            tracing::warn!(request_id = &*id, caller, address, %method, path, reason, "authority was refused");
        }
    }
    let mut response = as_problem(response, &path, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if unsound.is_some() {
        // Where it ends, and another one begins, is anybody's guess.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }

    let status = response.status();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let duration = started.elapsed();
    METRICS.requests.with_label_values(&[word(&method), route, status.as_str()]).observe(duration.as_secs_f64());
    span.record("http.response.status_code", status.as_u16());
    let (status, duration_ms) = (status.as_u16(), duration.as_micros() as f64 / 1_000.0);
    tracing::info!(request_id = &*id, %method, route, status, duration_ms, "request");
    response
}

fn count(problem: &Problem) {
    let code = &[problem.code().as_str()];
    METRICS.refusals.with_label_values(code).inc();
    if problem.refusal().is_some() {
        METRICS.authority_refusals.with_label_values(code).inc();
    }
}

/// The request's own, if it is traced: named and told as <https://opentelemetry.io/docs/specs/semconv/http/http-spans/> says.
fn span(request: &Request, route: Option<&MatchedPath>, id: &str) -> Span {
    let parent = traceparent(request.headers());
    if !trace::is_chosen(parent.as_ref()) {
        return Span::none();
    }
    let (method, route) = (word(request.method()), route.map_or("none", MatchedPath::as_str));
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

/// A method that is counted by its name. A client may send any word for one.
fn word(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::PATCH => {
            method.as_str()
        }
        _ => "other",
    }
}

/// What somebody between could read in another way than we do (RFC 9112, sections 3.2 and 6.1): a request of HTTP/1.1
/// names its host once, and its body is in no coding but in chunks.
fn unsound(request: &Request) -> Option<&'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match codings.next().is_none_or(is_chunked) && codings.next().is_none() {
        _ if hosts != 1 && request.version() >= Version::HTTP_11 => Some("the request has no Host, or several"),
        true => None,
        false => Some("of transfer codings only chunked is taken, once"),
    }
}

/// Bounds a read in time. A command bounds itself, and is not cut off in the middle.
async fn bounded(method: &Method, answer: impl Future<Output = Response>) -> Response {
    if !method.is_safe() {
        return answer.await;
    }
    match timeout(Duration::from_secs(READ_S_MAX), answer).await {
        Ok(response) => response,
        Err(_) => Problem::new(Code::Overloaded, format!("no answer within {READ_S_MAX} s")).into_response(),
    }
}

/// Leaves of `Accept-Encoding` whether gzip is taken: the compression would turn an answer that it cannot encode into a
/// 406, after the command has been carried out. What is not taken in gzip is sent as it is (RFC 9110, section 12.5.3).
pub fn gzip_or_identity(mut request: Request) -> Request {
    let headers = request.headers_mut();
    let wanted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weights: Vec<(&str, f32)> = wanted.flat_map(|value| value.split(',')).map(weight).collect();
    let of =
        |name: &str| weights.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name)).map(|(_, weight)| *weight);
    let takes_gzip = of("gzip").or(of("*")).is_some_and(|weight| weight > 0.0);
    match takes_gzip {
        true => drop(headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))),
        false => drop(headers.remove(header::ACCEPT_ENCODING)),
    }
    request
}

/// A coding and its weight: `gzip;q=0.5`.
fn weight(coding: &str) -> (&str, f32) {
    let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
    let weight = parameters.trim().strip_prefix("q=").map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
    (name.trim(), weight)
}

pub(super) fn request_id(request: &Request) -> Arc<str> {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable =
        |id: &&str| (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    given.filter(usable).map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from)
}

/// Renders a problem that a handler left, and turns what the libraries answer by themselves into one.
fn as_problem(response: Response, path: &str, id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = match response.extensions().get::<Arc<Problem>>() {
        Some(problem) => Arc::clone(problem),
        None if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON) => {
            return response;
        }
        None => Arc::new(Problem::of(Code::of_status(status))),
    };
    let mut rendered = problem.render(path, id);
    for name in [header::ALLOW, RATELIMIT_POLICY, RATELIMIT] {
        if let Some(value) = response.headers().get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    rendered
}
