//! A service that executes the commands of NDJSON requests in memory, each key once, and interrupts requests as a test asks.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// How the service answers one request. Without one it executes every line.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// After this number of results the connection is reset; further lines are executed.
    ResetAfter(usize),
    /// After this number of results the answer ends; further lines are executed.
    EndAfter(usize),
    /// After this number of results a line with 503 ends the answer.
    ErrorLineAfter(usize),
    /// After this number of results every result is 401.
    UnauthenticatedAfter(usize),
    /// The whole request gets this status, with `Retry-After`.
    Status(u16, Option<u64>),
    /// Lines are read and executed, and no result is sent.
    Never,
    /// Results are sent for this number of lines at once, or when no line arrives for a while.
    Batches(usize),
    /// The answer begins when no line arrives for a while.
    LateBeginning,
    /// When no line arrives for a while, a result with 408 ends the answer.
    TimeoutLine,
    /// A page in place of an answer.
    Page,
    /// The second result has the index of the first.
    WrongIndex,
    /// One result more than lines, before the request ends.
    TooMany,
}

pub struct FakeService {
    url: String,
    state: Arc<State>,
    accepting: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Default)]
struct State {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<BTreeMap<String, String>>>,
    bank: Mutex<Bank>,
    /// The lines that arrived before a late answer began.
    early_lines: Mutex<Vec<usize>>,
}

#[derive(Default)]
struct Bank {
    /// How often each key arrived.
    keys: HashMap<String, u32>,
    /// The executed commands in order.
    executed: Vec<Value>,
}

/// How long a service that waits for lines waits for another one.
const QUIET: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, io::Error>;
type Pieces = mpsc::Sender<io::Result<Frame<Bytes>>>;

impl FakeService {
    pub async fn start(answers: &[Answer]) -> Self {
        let state = Arc::new(State { answers: Mutex::new(answers.iter().copied().collect()), ..State::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::clone(&state))));
        Self { url, state, accepting: Mutex::new(Some(accepting)) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Closes the socket.
    pub async fn stop(&self) {
        let accepting = self.accepting.lock().expect("no panic").take();
        if let Some(accepting) = accepting {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// The headers of the requests.
    pub fn requests(&self) -> Vec<BTreeMap<String, String>> {
        self.state.requests.lock().expect("no panic").clone()
    }

    /// The numbers of lines that arrived before late answers began.
    pub fn early_lines(&self) -> Vec<usize> {
        self.state.early_lines.lock().expect("no panic").clone()
    }

    pub fn executed(&self) -> usize {
        self.state.bank.lock().expect("no panic").executed.len()
    }

    /// Asserts that the deposits 1 to `count` were executed once each, in order.
    #[track_caller]
    pub fn assert_executed_in_order(&self, count: u64) {
        let bank = self.state.bank.lock().expect("no panic");
        let amounts = bank.executed.iter().map(|command| command["amount"].as_u64().expect("a deposit"));
        assert!(amounts.eq(1..=count), "{} commands were executed", bank.executed.len());
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let state = Arc::clone(&state);
        let service = service_fn(move |request| respond(Arc::clone(&state), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    assert_eq!(request.uri().path(), "/v1/batches");
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()));
    state.requests.lock().expect("no panic").push(headers.collect());
    let answer = state.answers.lock().expect("no panic").pop_front();
    let response = Response::builder();
    let response = match answer {
        Some(Answer::Status(status, retry_after)) => {
            let problem = "{\"code\":\"storage_unavailable\",\"detail\":\"Try again.\"}";
            let response = response.status(status).header("location", "/elsewhere");
            let response = match retry_after {
                Some(seconds) => response.header("retry-after", seconds),
                None => response,
            };
            response.body(whole(problem))
        }
        Some(Answer::Page) => response.header("content-type", "text/html").body(whole("<html></html>")),
        answer => {
            let (pieces, mut waiting) = mpsc::channel(1);
            let (mut body, mut early) = (request.into_body(), Vec::new());
            if matches!(answer, Some(Answer::LateBeginning)) {
                while let Ok(Some(Ok(frame))) = timeout(QUIET, body.frame()).await {
                    early.extend_from_slice(&frame.into_data().expect("data"));
                }
                let lines = early.iter().filter(|byte| **byte == b'\n').count();
                state.early_lines.lock().expect("no panic").push(lines);
            }
            let body = stream::once(async { Ok(Bytes::from(early)) }).chain(BodyStream::new(body).map(data));
            tokio::spawn(execute(state, Box::pin(body), answer, pieces));
            let body = stream::poll_fn(move |context| waiting.poll_recv(context));
            response.header("content-type", "application/x-ndjson").body(BodyExt::boxed(StreamBody::new(body)))
        }
    };
    Ok(response.expect("a response"))
}

fn data(frame: hyper::Result<Frame<Bytes>>) -> hyper::Result<Bytes> {
    frame.map(|frame| frame.into_data().expect("data"))
}

fn whole(text: &'static str) -> Body {
    let piece = stream::once(async move { Ok(Frame::data(Bytes::from(text))) });
    BodyExt::boxed(StreamBody::new(Box::pin(piece)))
}

/// Executes the lines of a request as they arrive.
async fn execute(
    state: Arc<State>,
    mut body: impl Stream<Item = hyper::Result<Bytes>> + Unpin,
    answer: Option<Answer>,
    pieces: Pieces,
) {
    let mut pieces = Some(pieces);
    let (mut unfinished, mut index, mut results) = (Vec::new(), 0, String::new());
    loop {
        let chunk = match timeout(QUIET, body.next()).await {
            Ok(chunk) => chunk,
            Err(_) => {
                let is_over = matches!(answer, Some(Answer::TimeoutLine));
                if is_over {
                    results += &format!("{{\"index\":{index},\"status\":408,\"code\":\"request_timeout\"}}\n");
                }
                send(&mut pieces, &mut results).await;
                if is_over {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(chunk)) = chunk else { break };
        unfinished.extend_from_slice(&chunk);
        while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unfinished.drain(..=end).collect();
            if let Some(Answer::ErrorLineAfter(limit)) = answer
                && index >= limit
            {
                // The later lines are not executed, as if the database were away.
                results += &format!("{{\"index\":{index},\"status\":503,\"code\":\"storage_unavailable\"}}\n");
                send(&mut pieces, &mut results).await;
                return;
            }
            let result = match answer {
                Some(Answer::UnauthenticatedAfter(limit)) if index >= limit => {
                    r#""status":401,"code":"unauthenticated""#.into()
                }
                _ => state.bank.lock().expect("no panic").execute(&line),
            };
            let shown = if matches!(answer, Some(Answer::WrongIndex)) { 0 } else { index };
            results += &format!("{{\"index\":{shown},{result}}}\n");
            index += 1;
            match answer {
                Some(Answer::ResetAfter(limit)) if index == limit.max(1) => {
                    if limit > 0 {
                        send(&mut pieces, &mut results).await;
                        // Lets the results leave before the reset.
                        sleep(Duration::from_millis(20)).await;
                    }
                    if let Some(pieces) = pieces.take() {
                        let _ = pieces.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                    }
                }
                Some(Answer::EndAfter(limit)) if index == limit => {
                    send(&mut pieces, &mut results).await;
                    pieces = None;
                }
                _ => {}
            }
        }
        match answer {
            Some(Answer::Never) => results.clear(),
            Some(Answer::Batches(limit)) if results.lines().count() < limit => {}
            Some(Answer::TooMany) => {
                results += &format!("{{\"index\":{index},\"status\":201}}\n");
                send(&mut pieces, &mut results).await;
            }
            _ => send(&mut pieces, &mut results).await,
        }
    }
    if !matches!(answer, Some(Answer::Never)) {
        send(&mut pieces, &mut results).await;
    } else {
        std::future::pending::<()>().await;
    }
}

async fn send(pieces: &mut Option<Pieces>, results: &mut String) {
    let results = std::mem::take(results);
    if let Some(pieces) = pieces
        && !results.is_empty()
    {
        let _ = pieces.send(Ok(Frame::data(results.into()))).await;
    }
}

impl Bank {
    /// The members of the command's result.
    fn execute(&mut self, line: &[u8]) -> String {
        let Ok(command) = serde_json::from_slice::<Value>(line) else {
            return r#""status":400,"code":"malformed_request""#.to_owned();
        };
        if let Some(code) = command["refuse"].as_str() {
            return format!(r#""status":422,"code":"{code}""#);
        }
        let key = command["idempotency_key"].as_str().expect("a key").to_owned();
        let seen = self.keys.entry(key).or_default();
        *seen += 1;
        if *seen > 1 {
            return r#""status":201,"version":2,"replayed":true"#.to_owned();
        }
        self.executed.push(command);
        r#""status":201,"version":2"#.to_owned()
    }
}
