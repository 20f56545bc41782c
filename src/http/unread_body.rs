//! Request bodies that their handler does not read to the end, as when a request is rejected by its headers.
//!
//! The next request on the connection begins after the body. A small body is therefore read and discarded before the response;
//! after a larger one the response says that the connection ends.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// The most bytes of an unread body that are read and discarded.
const DISCARD_BYTES_MAX: u64 = 1_024 * 1_024;
/// How long the rest of an unread body may take to arrive, in milliseconds.
const DISCARD_MS_MAX: u64 = 1_000;

/// What a handler left of a request's body.
#[derive(Debug)]
pub struct Unread {
    /// Filled when the handler drops the body before its end.
    rest: Arc<Mutex<Option<Rest>>>,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
}

#[derive(Debug)]
struct Rest {
    body: Incoming,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Progress {
    /// Nothing was read.
    Unstarted,
    Started,
    Ended,
    /// The body is malformed or incomplete, so that its end is unknown.
    Failed,
}

/// A body that is returned to [`Unread`] when it is dropped before its end.
struct Tracked {
    body: Option<Incoming>,
    progress: Progress,
    rest: Arc<Mutex<Option<Rest>>>,
}

impl Unread {
    /// The body for the handler, and what the handler will leave of it.
    pub fn track(body: Incoming, expects_continue: bool) -> (Body, Self) {
        let rest = Arc::default();
        let unread = Self { rest: Arc::clone(&rest), expects_continue };
        if body.is_end_stream() {
            return (Body::new(body), unread);
        }
        (Body::new(Tracked { body: Some(body), progress: Progress::Unstarted, rest }), unread)
    }

    /// Reads and discards the rest of a small body. Returns whether the connection can serve another request.
    pub async fn discard(self) -> bool {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        match rest {
            None => true,
            Some(Rest { progress: Progress::Failed, .. }) => false,
            // Reading would ask the client for a body that has no use.
            Some(Rest { progress: Progress::Unstarted, .. }) if self.expects_continue => false,
            Some(Rest { body, .. }) => {
                timeout(Duration::from_millis(DISCARD_MS_MAX), discard(body)).await.unwrap_or(false)
            }
        }
    }
}

async fn discard(mut body: Incoming) -> bool {
    let mut remaining = DISCARD_BYTES_MAX;
    if body.size_hint().lower() > remaining {
        return false;
    }
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match remaining.checked_sub(bytes) {
            Some(rest) => remaining = rest,
            None => return false,
        }
    }
    true
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        self.progress = match &frame {
            Some(Ok(_)) => Progress::Started,
            Some(Err(_)) => Progress::Failed,
            None if self.progress == Progress::Failed => Progress::Failed,
            None => Progress::Ended,
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let is_read = self.progress == Progress::Ended || self.progress == Progress::Started && body.is_end_stream();
        if !is_read {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { body, progress: self.progress });
        }
    }
}
