//! Large answers that their clients have not read yet lie in memory: so much of them all together, and no more.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Extension,
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::Request,
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};

/// How much all large answers may come to.
const UNREAD_KIB_MAX: usize = 256 * 1024;
/// Answers up to here are small, and do not count: a connection has one at a time.
const SMALL_KIB_MAX: u64 = 64;
/// What an answer counts for that comes page by page: the largest page.
const PAGE_KIB_MAX: u64 = 512;
const KIB: u64 = 1_024;

/// What all connections may keep unread.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// What one connection keeps of it, for its last answer.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    budget: Budget,
    kept: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(UNREAD_KIB_MAX)))
    }

    /// For a new connection; it gives back what it keeps when it ends.
    pub(super) fn connection(&self) -> Unread {
        Unread { budget: self.clone(), kept: Arc::default() }
    }
}

impl Unread {
    /// The last answer was read: another question has come.
    pub(super) fn was_read(&self) {
        self.keep(None);
    }

    /// Whether an answer of this size may wait to be read.
    fn may_wait(&self, kib: u64) -> bool {
        if kib <= SMALL_KIB_MAX {
            return true;
        }
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.budget.0).try_acquire_many_owned(kib).ok();
        let may = permit.is_some();
        self.keep(permit);
        may
    }

    fn keep(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// Turns away who asks for much while too much is unread. A command's answer is small, and pages that are the same for
/// everybody take no memory of their own.
pub(super) async fn bound(Extension(unread): Extension<Unread>, request: Request, next: Next) -> Response {
    let is_data = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    // Who follows the log has a bound of their own.
    let follows = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    if follows || !is_data {
        return response;
    }
    let size_kib = response.body().size_hint().exact().map(|bytes| bytes.div_ceil(KIB));
    match unread.may_wait(size_kib.unwrap_or(PAGE_KIB_MAX)) {
        false => Problem::new(Code::Overloaded, "too many large answers wait to be read").into_response(),
        true if size_kib.is_some_and(|kib| kib > SMALL_KIB_MAX) => fitted(response).await,
        true => response,
    }
}

/// A body that grew while it was written may have taken twice its size.
async fn fitted(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(parts, Body::from(Bytes::copy_from_slice(&bytes))),
        Err(_) => Problem::of(Code::InternalError).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::get};
    use futures_util::stream;
    use tower::ServiceExt;

    use super::*;

    const PAGES: usize = UNREAD_KIB_MAX / PAGE_KIB_MAX as usize;

    #[test]
    fn large_answers_wait_as_long_as_there_is_room_and_small_ones_always() {
        let budget = Budget::new();
        let [first, second, third] = [(); 3].map(|()| budget.connection());
        let half = UNREAD_KIB_MAX as u64 / 2;
        assert!(first.may_wait(half) && second.may_wait(half));
        assert!(!third.may_wait(SMALL_KIB_MAX + 1));
        assert!(third.may_wait(SMALL_KIB_MAX), "a small one");
        first.was_read();
        assert!(third.may_wait(half));
        drop(second);
        assert!(first.may_wait(half), "the connection has ended");
        assert!(!budget.connection().may_wait(half));
    }

    #[tokio::test]
    async fn whoever_asks_for_one_page_too_many_is_told_that_there_is_no_room() {
        let endless = || async { Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>()) };
        let small = || async { "{}" };
        let routes = Router::new().route("/v1/pages", get(endless)).route("/v1/small", get(small));
        let bank = routes.layer(middleware::from_fn(bound));
        let budget = Budget::new();
        let connections: Vec<Unread> = (0..=PAGES).map(|_| budget.connection()).collect();
        let ask = async |unread: &Unread, path: &str| {
            let request =
                Request::builder().uri(path).extension(unread.clone()).body(Body::empty()).expect("a request");
            bank.clone().oneshot(request).await.expect("an answer").status().as_u16()
        };
        for connection in &connections[..PAGES] {
            assert_eq!(ask(connection, "/v1/pages").await, 200);
        }
        let late = &connections[PAGES];
        assert_eq!(ask(late, "/v1/pages").await, 503);
        assert_eq!(ask(late, "/v1/small").await, 200);
        connections[0].was_read();
        assert_eq!(ask(late, "/v1/pages").await, 200);
    }
}
