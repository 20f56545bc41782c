//! What every request gets: an id, one log line, and errors in one form, whoever made them.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::problem::{Code, PROBLEM_JSON, Problem};

const REQUEST_ID: &str = "x-request-id";
/// How long a read may take.
const READ_S_MAX: u64 = 30;
/// A longer id is not taken over.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// The request's id: the caller's own, or one made here.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// Wraps every route and every fallback.
pub async fn wrap(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));

    let mut response = as_problem(bounded(&method, next.run(request)).await, &path, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    let status = response.status().as_u16();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let duration_ms = started.elapsed().as_micros() as f64 / 1_000.0;
    tracing::info!(request_id = &*id, %method, route, status, duration_ms, "request");
    response
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

fn request_id(request: &Request) -> Arc<str> {
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
    if let Some(allow) = response.headers().get(header::ALLOW) {
        rendered.headers_mut().insert(header::ALLOW, allow.clone());
    }
    rendered
}
