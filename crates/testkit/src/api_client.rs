//! An HTTP client of the API with a method for each command. `with_key`, `if_match` and `dry_run` return a client whose
//! requests carry that option.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    FeedSubscriber, Response, contract::check_response, partition_view::PartitionView,
    position_tracker::PositionTracker,
};

/// A client with the headers that it sends.
#[derive(Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    url: String,
    headers: Vec<(String, String)>,
    dry_run: bool,
    tracker: Option<PositionTracker>,
    view: Option<PartitionView>,
}

impl ApiClient {
    /// A client that sends no headers of its own, for the service at this base URL.
    pub fn new(http: reqwest::Client, url: String) -> Self {
        Self { http, url, headers: vec![], dry_run: false, tracker: None, view: None }
    }

    /// Records the positions of this client's commands in a tracker that clients share.
    pub fn tracking(self, tracker: PositionTracker) -> Self {
        Self { tracker: Some(tracker), ..self }
    }

    /// Shows this client one partition as if the log had no other.
    pub fn viewing(self, view: PartitionView) -> Self {
        Self { view: Some(view), ..self }
    }

    /// Adds a header to every request.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// Sends this `Idempotency-Key`.
    pub fn with_key(&self, key: &str) -> Self {
        self.with_header("idempotency-key", key)
    }

    /// Sends this `If-Match`.
    pub fn if_match(&self, etag: &str) -> Self {
        self.with_header("if-match", etag)
    }

    /// Sends commands with `?dry_run=true`.
    pub fn dry_run(&self) -> Self {
        Self { dry_run: true, ..self.clone() }
    }

    /// Opens an account; `body` is the request.
    pub async fn open(&self, mut body: Value) -> Response {
        if let Some(view) = self.view {
            view.assign_account_id(&mut body, self.headers.iter().any(|(name, _)| name == "idempotency-key"));
        }
        self.command("/v1/accounts", body).await
    }

    /// Opens an account in EUR with this balance.
    pub async fn open_with_balance(&self, balance: i64) -> Uuid {
        self.open(json!({"currency": "EUR", "initial_deposit": balance})).await.expect(201).account_id()
    }

    /// Deposits this many minor units.
    pub async fn deposit(&self, account: Uuid, amount: i64) -> Response {
        self.command(&format!("/v1/accounts/{account}/deposits"), json!({"amount": amount})).await
    }

    /// Withdraws this many minor units.
    pub async fn withdraw(&self, account: Uuid, amount: i64) -> Response {
        self.command(&format!("/v1/accounts/{account}/withdrawals"), json!({"amount": amount})).await
    }

    /// Transfers this many minor units.
    pub async fn transfer(&self, from: Uuid, to: Uuid, amount: i64) -> Response {
        self.command("/v1/transfers", json!({"from": from, "to": to, "amount": amount})).await
    }

    /// Places a hold; `body` is the request.
    pub async fn place_hold(&self, account: Uuid, body: Value) -> Response {
        self.command(&format!("/v1/accounts/{account}/holds"), body).await
    }

    /// Captures a hold; `body` is the request.
    pub async fn capture_hold(&self, account: Uuid, hold: Uuid, body: Value) -> Response {
        self.command(&format!("/v1/accounts/{account}/holds/{hold}/capture"), body).await
    }

    /// Voids a hold.
    pub async fn void_hold(&self, account: Uuid, hold: Uuid) -> Response {
        self.command(&format!("/v1/accounts/{account}/holds/{hold}/void"), json!({})).await
    }

    /// Reverses the transaction of this version; `body` is the request.
    pub async fn reverse(&self, account: Uuid, version: i64, body: Value) -> Response {
        self.command(&format!("/v1/accounts/{account}/transactions/{version}/reversal"), body).await
    }

    /// Sets the limits of an account; `body` is the request.
    pub async fn set_limits(&self, account: Uuid, body: Value) -> Response {
        self.send_command(Method::PUT, &format!("/v1/accounts/{account}/limits"), body).await
    }

    /// Freezes an account.
    pub async fn freeze(&self, account: Uuid) -> Response {
        self.command(&format!("/v1/accounts/{account}/freeze"), json!({})).await
    }

    /// Unfreezes an account.
    pub async fn unfreeze(&self, account: Uuid) -> Response {
        self.command(&format!("/v1/accounts/{account}/unfreeze"), json!({})).await
    }

    /// Closes an account.
    pub async fn close(&self, account: Uuid) -> Response {
        self.command(&format!("/v1/accounts/{account}/close"), json!({})).await
    }

    /// Sends a batch in JSON.
    pub async fn batch(&self, mode: &str, commands: &[Value]) -> Response {
        self.command("/v1/batches", json!({"mode": mode, "commands": commands})).await
    }

    /// Sends a batch as lines of JSON.
    pub async fn batch_lines(&self, lines: impl Into<reqwest::Body>) -> Response {
        let client = self.with_header("content-type", "application/x-ndjson");
        client.send(Method::POST, "/v1/batches", lines).await
    }

    /// Sends a command with a JSON body.
    pub async fn command(&self, path: &str, body: Value) -> Response {
        self.send_command(Method::POST, path, body).await
    }

    async fn send_command(&self, method: Method, path: &str, body: Value) -> Response {
        let query = if self.dry_run { "?dry_run=true" } else { "" };
        let client = self.with_header("content-type", "application/json");
        client.send(method, &format!("{path}{query}"), body.to_string()).await
    }

    /// Sends a body unchanged, with `Content-Type: application/json`.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.with_header("content-type", "application/json").send(Method::POST, path, body).await
    }

    /// Reads the account's view at `position` or later.
    pub async fn get_account(&self, account: Uuid, position: &str) -> Response {
        self.get(&format!("/v1/accounts/{account}?min_position={position}")).await
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, "").await
    }

    /// Like [`get`](Self::get), but does not read the body of an event stream, which has no end.
    pub async fn get_without_stream_body(&self, path: &str) -> Response {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let is_stream = response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let path = response.url().path().to_owned();
        let response = match is_stream {
            true => Response::without_body(&response),
            false => Response::read(response).await,
        };
        check_response(&Method::GET, &path, &response);
        response
    }

    /// Subscribes to the event feed; `query` is appended to the path.
    pub async fn subscribe(&self, query: &str) -> FeedSubscriber {
        let response = self.request(Method::GET, &format!("/v1/events/stream{query}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{query}: {}", response.text().await.unwrap());
        FeedSubscriber::new(response, self.view)
    }

    /// Subscribes to the event feed after the event with this id.
    pub async fn resume_after(&self, last_id: &str) -> FeedSubscriber {
        let last_id = &self.view.map_or_else(|| last_id.to_owned(), |view| view.qualify(last_id));
        self.with_header("last-event-id", last_id).subscribe("").await
    }

    /// Sends any request.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let mut request = self.request(method.clone(), path);
        let is_command = method != Method::GET;
        if is_command {
            request = request.body(body);
        }
        let response = request.send().await.unwrap();
        let path = response.url().path().to_owned();
        let mut response = Response::read(response).await;
        check_response(&method, &path, &response);
        if let Some(view) = self.view {
            response.strip_partition(view);
        }
        if let (Some(tracker), Some(position)) =
            (&self.tracker, response.header("passbook-position").filter(|_| is_command))
        {
            tracker.record(position);
        }
        response
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = match (self.view, &self.tracker) {
            (Some(view), _) => view.qualify_path(path),
            (None, Some(tracker)) => tracker.rewrite_min_position(path),
            (None, None) => path.to_owned(),
        };
        let request = self.http.request(method, format!("{}{path}", self.url));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}
