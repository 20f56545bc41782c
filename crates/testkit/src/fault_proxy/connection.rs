//! One proxied connection: forwards requests and responses message by message, and applies its faults.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ProxyState,
    protocol::{WriteDetector, application_name, is_ready_for_query, next_message},
    rule::{Fault, FaultRule, Flow, RequestMatch},
};
use crate::endpoint::{FromServer, ToServer};

/// A delayed request is delivered after this time even if its sender has not closed the connection.
const DELAY_S_MAX: u64 = 20;

const REQUESTS: usize = 0;
const RESPONSES: usize = 1;

/// A handle to one proxied connection. It stays valid after the connection has closed.
#[derive(Clone)]
pub struct ProxyConnection(Arc<ConnectionState>);

struct ConnectionState {
    /// The client's `application_name`.
    application: String,
    /// The flows of requests and of responses.
    flows: watch::Sender<[Flow; 2]>,
    /// The rule for the requests of this connection only.
    rule: Mutex<Option<FaultRule>>,
    /// What happens at the end of the current response.
    at_response_end: Mutex<Option<ResponseEnd>>,
    /// Cancelled when the connection ends for the client.
    cut: CancellationToken,
    /// Cancelled when the client has closed the connection.
    client_closed: CancellationToken,
    is_holding: [AtomicBool; 2],
    is_closed: AtomicBool,
}

enum ResponseEnd {
    Cut,
    Freeze,
}

impl ProxyConnection {
    pub(super) fn new(startup: &[u8]) -> Self {
        Self(Arc::new(ConnectionState {
            application: application_name(startup),
            flows: watch::Sender::new([Flow::Pass; 2]),
            rule: Mutex::default(),
            at_response_end: Mutex::default(),
            cut: CancellationToken::new(),
            client_closed: CancellationToken::new(),
            is_holding: Default::default(),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// The client's `application_name`.
    pub fn application(&self) -> &str {
        &self.0.application
    }

    /// Sets the flows of requests and responses.
    pub fn set_flow(&self, requests: Flow, responses: Flow) {
        self.0.flows.send_replace([requests, responses]);
    }

    /// Sets the flows when a request contains `text`, that request included.
    pub fn set_flow_from(&self, text: &'static str, requests: Flow, responses: Flow) {
        let fault = Fault::SetFlow { requests, responses };
        *self.0.rule.lock().unwrap() = Some(FaultRule { request: RequestMatch::Text(text), fault });
    }

    /// Whether no request has matched the rule of [`set_flow_from`](Self::set_flow_from) yet.
    pub fn is_rule_pending(&self) -> bool {
        self.0.rule.lock().unwrap().is_some()
    }

    /// Ends the connection for the client. Requests that the client has sent already still reach Postgres.
    pub fn cut(&self) {
        self.0.cut.cancel();
    }

    /// Whether the proxy holds a request.
    pub fn is_holding_request(&self) -> bool {
        self.0.is_holding[REQUESTS].load(Ordering::Relaxed)
    }

    /// Whether both ends have closed. The server has then executed every request that it received.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Relaxed)
    }

    /// Cancels a freeze that a rule has planned for the end of the current response.
    pub(super) fn cancel_freeze(&self) {
        self.0.at_response_end.lock().unwrap().take_if(|end| matches!(end, ResponseEnd::Freeze));
    }

    pub(super) async fn serve(&self, proxy: &ProxyState, client: TcpStream, startup: Vec<u8>) {
        self.forward(proxy, client, startup).await;
        self.0.is_closed.store(true, Ordering::Relaxed);
    }

    async fn forward(&self, proxy: &ProxyState, client: TcpStream, startup: Vec<u8>) {
        tokio::select! {
            () = self.0.cut.cancelled() => return,
            // Connect only then: Postgres closes a connection on which no startup message arrives.
            _ = self.wait_while_held(proxy, REQUESTS) => {}
        }
        let Ok((mut from_server, mut to_server)) = proxy.server.connect().await else { return };
        // Forward small responses at once.
        let _ = client.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        if to_server.write_all(&startup).await.is_err() {
            return;
        }
        let responses = async {
            tokio::select! {
                () = self.forward_responses(proxy, &mut from_server, to_client) => {}
                () = self.0.cut.cancelled() => {
                    // Read and drop the responses, so that a full socket does not stop the server.
                    let _ = io::copy(&mut from_server, &mut io::sink()).await;
                }
            }
        };
        tokio::join!(self.forward_requests(proxy, from_client, to_server), responses);
    }

    /// Forwards requests until the client closes the connection. Then the server learns of it, too.
    async fn forward_requests(&self, proxy: &ProxyState, mut from: OwnedReadHalf, mut to: ToServer) {
        let mut unread = BytesMut::new();
        let mut detector = WriteDetector::default();
        while let Ok(1..) = from.read_buf(&mut unread).await {
            while let Some(request) = next_message(&mut unread) {
                if let Some(Fault::Delay(delay)) = self.match_rule(proxy, &mut detector, &request) {
                    // On a timeout, forward the bytes that were read until then.
                    let read_until_closed = async { while let Ok(1..) = from.read_buf(&mut unread).await {} };
                    let _ = timeout(Duration::from_secs(DELAY_S_MAX), read_until_closed).await;
                    sleep(delay).await;
                    let _ = to.write_all(&[request, unread].concat()).await;
                    self.0.client_closed.cancel();
                    return;
                }
                if self.wait_while_held(proxy, REQUESTS).await == Flow::Pass {
                    // Ignore errors: if Postgres has closed the connection, the responses end, too.
                    let _ = to.write_all(&request).await;
                }
            }
        }
        self.0.client_closed.cancel();
    }

    /// Forwards responses until the server closes the connection.
    async fn forward_responses(&self, proxy: &ProxyState, from: &mut FromServer, mut to: OwnedWriteHalf) {
        let mut unread = BytesMut::new();
        loop {
            let is_ended = !matches!(from.read_buf(&mut unread).await, Ok(1..));
            let responses: Vec<_> = std::iter::from_fn(|| next_message(&mut unread)).collect();
            let flow = self.wait_while_held(proxy, RESPONSES).await;
            if is_ended || responses.iter().any(|response| is_ready_for_query(response)) {
                // Before the response is forwarded: the client's next request already meets a frozen proxy.
                self.end_response(proxy);
            }
            if flow == Flow::Pass && to.write_all(&responses.concat()).await.is_err() {
                self.cut();
            }
            if is_ended {
                if flow == Flow::Discard {
                    self.0.client_closed.cancelled().await;
                }
                return;
            }
        }
    }

    /// Waits until messages of this direction may move. Returns whether to forward or to discard them.
    async fn wait_while_held(&self, proxy: &ProxyState, direction: usize) -> Flow {
        let (mut frozen, mut flows) = (proxy.frozen.subscribe(), self.0.flows.subscribe());
        loop {
            let flow = flows.borrow_and_update()[direction];
            let is_held = flow == Flow::Hold || *frozen.borrow_and_update();
            self.0.is_holding[direction].store(is_held, Ordering::Relaxed);
            if !is_held {
                return flow;
            }
            tokio::select! {
                _ = frozen.changed() => {}
                _ = flows.changed() => {}
            }
        }
    }

    /// Takes the rule that this request matches, and begins its fault. The rule of the connection is checked first.
    fn match_rule(&self, proxy: &ProxyState, detector: &mut WriteDetector, request: &[u8]) -> Option<Fault> {
        let write = detector.classify(request);
        let (mut own, mut shared) = (self.0.rule.lock().unwrap(), proxy.rule.lock().unwrap());
        let of_proxy = |(application, rule): &mut (&str, FaultRule)| {
            *application == self.0.application && rule.matches(request, write)
        };
        let rule = own
            .take_if(|rule| rule.matches(request, write))
            .or_else(|| shared.take_if(of_proxy).map(|(_, rule)| rule))?;
        // Under the lock of the rules, so that a rule that is not pending has taken effect.
        match rule.fault {
            Fault::SetFlow { requests, responses } => self.set_flow(requests, responses),
            Fault::CloseBeforeResponse => {
                *self.0.at_response_end.lock().unwrap() = Some(ResponseEnd::Cut);
                self.set_flow(Flow::Pass, Flow::Discard);
            }
            Fault::NeverRespond => self.set_flow(Flow::Pass, Flow::Discard),
            Fault::FreezeAfterResponse => *self.0.at_response_end.lock().unwrap() = Some(ResponseEnd::Freeze),
            Fault::Delay(_) => {}
        }
        Some(rule.fault)
    }

    fn end_response(&self, proxy: &ProxyState) {
        // The lock is held until the proxy is frozen, so that `thaw` either cancels the freeze or ends it.
        let mut end = self.0.at_response_end.lock().unwrap();
        match end.take() {
            Some(ResponseEnd::Cut) => self.cut(),
            Some(ResponseEnd::Freeze) => drop(proxy.frozen.send_replace(true)),
            None => {}
        }
    }
}
