//! Limits the size of request bodies. A larger body is rejected by its `Content-Length` before it arrives, or where it passes the limit.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::Request,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::future::Either;
use http_body_util::Limited;
use tower::{Layer, Service};

use crate::http::{error_code::ErrorCode, problem::Problem};

/// Applies the limit that `bytes_max` gives a request; `None`: no limit.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimitLayer {
    bytes_max: fn(&Request) -> Option<usize>,
}

impl BodyLimitLayer {
    /// A layer with this limit.
    pub fn new(bytes_max: fn(&Request) -> Option<usize>) -> Self {
        Self { bytes_max }
    }
}

impl<S> Layer<S> for BodyLimitLayer {
    type Service = BodyLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BodyLimit { inner, bytes_max: self.bytes_max }
    }
}

/// The service that [`BodyLimitLayer`] makes.
#[derive(Clone, Debug)]
pub struct BodyLimit<S> {
    inner: S,
    bytes_max: fn(&Request) -> Option<usize>,
}

impl<S: Service<Request, Response = Response>> Service<Request> for BodyLimit<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match (self.bytes_max)(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(max) if content_length(&request).is_some_and(|length| length > max as u64) => {
                Either::Right(ready(Ok(Problem::from_code(ErrorCode::PayloadTooLarge).into_response())))
            }
            Some(max) => Either::Left(self.inner.call(request.map(|body| Body::new(Limited::new(body, max))))),
        }
    }
}

fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
