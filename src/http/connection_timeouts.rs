//! How long a connection waits for bytes of its client: between two requests, within the headers of one, and while the client
//! does not read its response.
//!
//! hyper has one timer for the first two. They differ by an order of magnitude: an idle connection must outlive the keep-alive
//! time of a proxy, and slow headers must not occupy a connection for that long.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_io_timeout::TimeoutStream;

use super::middleware::response_budget::ConnectionBudget;

/// How long a client may read nothing of its response, in milliseconds.
const WRITE_MS_MAX: u64 = 30_000;

/// How long a connection waits for a request.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Until the first byte of the next request.
    pub idle: Duration,
    /// From the first byte of a request to the end of its headers.
    pub headers: Duration,
}

/// Whether a connection serves a request. The service writes it, and [`TimedStream`] reads it.
#[derive(Clone, Debug, Default)]
pub struct RequestPhase(Arc<Phase>);

#[derive(Debug, Default)]
struct Phase {
    /// The number of requests so far.
    begun: AtomicU64,
    serving: AtomicBool,
}

/// Exists while a request is served. The connection is idle when it is dropped.
#[derive(Debug)]
pub struct ServingGuard(RequestPhase);

impl RequestPhase {
    /// Marks the connection as busy until the guard is dropped.
    pub fn begin_request(&self) -> ServingGuard {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.serving.store(true, Ordering::Relaxed);
        ServingGuard(self.clone())
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        self.0.0.serving.store(false, Ordering::Relaxed);
    }
}

/// A connection whose reads and writes end with [`io::ErrorKind::TimedOut`] when their time is over.
pub struct TimedStream {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    phase: RequestPhase,
    budget: ConnectionBudget,
    limits: ReadLimits,
    /// What the connection waits for; `None` before the timer is set.
    waits_for: Option<Awaited>,
    /// The request that was current at the last read.
    request: u64,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Awaited {
    FirstByte,
    EndOfHeaders,
}

impl TimedStream {
    /// Applies `limits` and the write timeout to `stream`. The service of the connection reports its requests through `phase`,
    /// and reserves the memory of their responses in `budget`.
    pub fn new(stream: TcpStream, phase: RequestPhase, budget: ConnectionBudget, limits: ReadLimits) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(Duration::from_millis(WRITE_MS_MAX)));
        let timer = Box::pin(sleep(limits.idle));
        Self { stream: Box::pin(stream), phase, budget, limits, waits_for: None, request: 0, timer }
    }

    fn set_timer(&mut self, awaited: Awaited) {
        let limit = match awaited {
            Awaited::FirstByte => self.limits.idle,
            Awaited::EndOfHeaders => self.limits.headers,
        };
        self.timer.as_mut().reset(Instant::now() + limit);
        self.waits_for = Some(awaited);
    }

    /// Forgets the timer of the previous request, and returns whether a request is being served. Its body has a limit of its own.
    fn is_serving(&mut self) -> bool {
        let phase = &self.phase.0;
        let (begun, is_serving) = (phase.begun.load(Ordering::Relaxed), phase.serving.load(Ordering::Relaxed));
        if is_serving || begun != self.request {
            self.request = begun;
            self.waits_for = None;
        }
        is_serving
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled_before = buf.filled().len();
        let read = self.stream.as_mut().poll_read(cx, buf);
        if self.is_serving() {
            return read;
        }
        if read.is_ready() {
            if buf.filled().len() > filled_before && self.waits_for != Some(Awaited::EndOfHeaders) {
                self.set_timer(Awaited::EndOfHeaders);
            }
            return read;
        }
        if self.waits_for.is_none() {
            self.set_timer(Awaited::FirstByte);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.as_mut().poll_flush(cx);
        if flushed.is_ready() && !self.phase.0.serving.load(Ordering::Relaxed) {
            // The response has ended, and the kernel has all its bytes.
            self.budget.release();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
