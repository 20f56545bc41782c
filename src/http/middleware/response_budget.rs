//! Bounds the memory of large responses that their clients have not read yet, over all connections. One client cannot use all of
//! it up.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::Request,
    http::header,
    response::{IntoResponse, Response},
};

use crate::http::{
    error_code::ErrorCode,
    extract::{
        caller::CallerSlot,
        client_ip::{ClientIp, ClientKey},
    },
    problem::Problem,
    shares::{Reservation, Shares},
    static_content::SharedBody,
};

/// The most memory of all large responses together.
const UNREAD_KIB_MAX: u64 = 256 * 1024;
/// Responses up to this size are not counted, because a connection has only one at a time.
const SMALL_KIB_MAX: u64 = 64;
/// The reservation of a response that is streamed page by page: the size of the largest page.
const PAGE_KIB_MAX: u64 = 512;
const KIB: u64 = 1_024;

/// The memory that all connections share for responses.
#[derive(Clone, Debug)]
pub struct ResponseBudget(Shares);

/// The memory that one connection has reserved for its latest response. The connection releases it when the response is written
/// or the connection ends.
#[derive(Clone, Debug)]
pub struct ConnectionBudget {
    kib: Shares,
    reserved: Arc<Mutex<Option<Reservation>>>,
}

impl ResponseBudget {
    /// A budget of which nothing is reserved.
    pub fn new() -> Self {
        Self(Shares::new(UNREAD_KIB_MAX))
    }

    /// The budget of a new connection.
    pub fn for_connection(&self) -> ConnectionBudget {
        ConnectionBudget { kib: self.0.clone(), reserved: Arc::default() }
    }
}

impl ConnectionBudget {
    /// Releases the reservation of the latest response, after the kernel has accepted its last byte.
    pub fn release(&self) {
        self.set_reserved(None);
    }

    /// Reserves memory for a response to `client` in place of the latest reservation, and returns whether it was available.
    pub fn try_reserve(&self, client: Option<ClientKey>, kib: u64) -> bool {
        if kib <= SMALL_KIB_MAX {
            return true;
        }
        let reservation = self.kib.try_reserve(client, kib);
        let is_reserved = reservation.is_some();
        self.set_reserved(reservation);
        is_reserved
    }

    /// Keeps at most this much of the reservation.
    fn shrink(&self, kib: u64) {
        if let Some(reservation) = &mut *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) {
            reservation.shrink(kib);
        }
    }

    fn set_reserved(&self, reservation: Option<Reservation>) {
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = reservation;
    }
}

/// Marks a response whose memory its handler reserved before it executed anything. It is never replaced.
#[derive(Clone, Copy, Debug)]
pub struct ReservedBody;

/// Answers 503 in place of a large response if the budget or the client's share of it is used up. Receipts of single commands are
/// small, those of a batch are reserved before it is executed, and all responses share the bytes of static content.
pub async fn enforce<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    let Some(budget) = request.extensions().get::<ConnectionBudget>().cloned() else {
        return Problem::from_code(ErrorCode::InternalError).into_response();
    };
    let address = request.extensions().get::<ClientIp>().copied();
    let caller = request.extensions().get::<CallerSlot>().cloned().unwrap_or_default();
    let response = next(request).await;
    // The event stream bounds its own memory.
    let is_stream = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    let is_shared = response.extensions().get::<SharedBody>().is_some();
    if is_stream || is_shared {
        return response;
    }
    let is_reserved = response.extensions().get::<ReservedBody>().is_some();
    let size_kib = response.body().size_hint().exact().map(|bytes| bytes.div_ceil(KIB));
    let needed_kib = size_kib.unwrap_or(PAGE_KIB_MAX);
    if is_reserved {
        budget.shrink(needed_kib);
    } else if !budget.try_reserve(caller.client_key(address), needed_kib) {
        return unread_responses().into_response();
    }
    match size_kib.is_some_and(|kib| kib > SMALL_KIB_MAX) {
        true => shrink_to_fit(response).await,
        false => response,
    }
}

/// 503: the memory for responses is used up.
pub fn unread_responses() -> Problem {
    let detail = "Too many large responses have not been read yet. Retry after the seconds in the header Retry-After.";
    Problem::new(ErrorCode::Overloaded, detail)
}

/// Copies the body into a buffer of its exact size. The buffer that it was written to may be twice as large.
async fn shrink_to_fit(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(parts, Body::from(Bytes::copy_from_slice(&bytes))),
        Err(_) => Problem::from_code(ErrorCode::InternalError).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Extension, Router,
        middleware::{Next, from_fn},
        routing::get,
    };
    use futures_util::stream;
    use tower::ServiceExt;

    use super::*;

    /// Streamed responses until one client holds its share, half of the budget.
    const PAGES: usize = (UNREAD_KIB_MAX / PAGE_KIB_MAX / 2) as usize;

    fn client(name: &str) -> Option<ClientKey> {
        Some(ClientKey::Caller(name.into()))
    }

    #[test]
    fn large_responses_need_free_budget_and_small_ones_do_not() {
        let budget = ResponseBudget::new();
        let [first, second, third] = [(); 3].map(|()| budget.for_connection());
        let half = UNREAD_KIB_MAX / 2;
        assert!(first.try_reserve(client("ada"), half) && second.try_reserve(client("ben"), half / 2));
        assert!(!third.try_reserve(client("ada"), SMALL_KIB_MAX + 1));
        assert!(third.try_reserve(client("ada"), SMALL_KIB_MAX), "a small response");
        assert!(third.try_reserve(client("cleo"), SMALL_KIB_MAX + 1), "another client");
        first.release();
        assert!(third.try_reserve(client("ada"), half / 2));
        drop((second, third));
        assert!(first.try_reserve(client("ada"), half), "the other connections have ended");
        assert!(!budget.for_connection().try_reserve(client("ada"), half));
    }

    #[tokio::test]
    async fn unread_responses_of_one_client_leave_room_for_others() {
        let pages = || async { Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>()) };
        let small = || async { "{}" };
        let shared = || async { (Extension(SharedBody), Bytes::from_static(&[0; 1_000_000])) };
        let routes = Router::new().route("/v1/pages", get(pages)).route("/pages", get(pages));
        let routes = routes.route("/v1/small", get(small)).route("/shared", get(shared));
        let layer = async |request: Request, next: Next| enforce(request, |request| next.run(request)).await;
        let service = routes.layer(from_fn(layer));
        let budget = ResponseBudget::new();
        let connections: Vec<ConnectionBudget> = (0..=PAGES).map(|_| budget.for_connection()).collect();
        let get_status = async |budget: &ConnectionBudget, address: [u8; 4], path: &str| {
            let request = Request::builder().uri(path).extension(budget.clone()).extension(ClientIp(address.into()));
            let request = request.body(Body::empty()).expect("a request");
            service.clone().oneshot(request).await.expect("a response").status().as_u16()
        };
        const ADA: [u8; 4] = [192, 0, 2, 1];
        const BEN: [u8; 4] = [192, 0, 2, 2];
        for connection in &connections[..PAGES] {
            assert_eq!(get_status(connection, ADA, "/v1/pages").await, 200);
        }
        let late = &connections[PAGES];
        assert_eq!(get_status(late, ADA, "/v1/pages").await, 503);
        assert_eq!(get_status(late, ADA, "/pages").await, 503, "a path outside of the API");
        assert_eq!(get_status(late, ADA, "/v1/small").await, 200);
        assert_eq!(get_status(late, ADA, "/shared").await, 200);
        assert_eq!(get_status(&budget.for_connection(), BEN, "/v1/pages").await, 200, "another client");
        connections[0].release();
        assert_eq!(get_status(late, ADA, "/v1/pages").await, 200);
    }
}
