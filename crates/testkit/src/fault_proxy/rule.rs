//! Faults that affect one request, and the rules that choose the request.

use std::time::Duration;

use super::protocol::{Write, contains};

/// The treatment of messages in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Forward them.
    Pass,
    /// Keep them until the flow changes.
    Hold,
    /// Drop them. The client then does not learn either that the server has closed the connection.
    Discard,
}

/// A fault that begins with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The flows of the connection change from this request on, the request included.
    SetFlow {
        /// The flow of the requests.
        requests: Flow,
        /// The flow of the responses.
        responses: Flow,
    },
    /// Postgres executes the request, then the connection closes without a response.
    CloseBeforeResponse,
    /// Postgres executes the request, and the client receives nothing on this connection any more, not even its end.
    NeverRespond,
    /// The request reaches Postgres this long after its sender has closed the connection, even if the proxy is frozen.
    Delay(Duration),
    /// The request and its response pass, then the whole proxy freezes.
    FreezeAfterResponse,
}

/// The requests that a rule matches.
#[derive(Clone, Copy, Debug)]
pub enum RequestMatch {
    /// A request that contains this text.
    Text(&'static str),
    /// One of these kinds of write.
    Writes(&'static [Write]),
}

/// Applies a fault to the next matching request, once.
#[derive(Clone, Copy, Debug)]
pub struct FaultRule {
    /// Which requests match.
    pub request: RequestMatch,
    /// The fault that a matching request begins.
    pub fault: Fault,
}

impl FaultRule {
    /// Whether this request matches; `write` is its kind of write, if it is one.
    pub(super) fn matches(&self, request: &[u8], write: Option<Write>) -> bool {
        match self.request {
            RequestMatch::Text(text) => contains(request, text),
            RequestMatch::Writes(writes) => write.is_some_and(|write| writes.contains(&write)),
        }
    }
}
