//! A client by role. Its methods read as sentences; `keyed`, `if_match` and `dry` say how the next one is meant.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Follower, heard::Heard, home::Home};

/// Somebody at the counter who may do everything.
#[derive(Clone)]
pub struct Teller {
    client: Client,
    url: String,
    headers: Vec<(String, String)>,
    dry_run: bool,
    heard: Option<Heard>,
    home: Option<Home>,
}

impl Teller {
    pub fn new(client: Client, url: String) -> Self {
        Self { client, url, headers: vec![], dry_run: false, heard: None, home: None }
    }

    /// The same teller, who hears what others are told.
    pub fn hearing(self, heard: Heard) -> Self {
        Self { heard: Some(heard), ..self }
    }

    /// The same teller, for whom there is one partition.
    pub fn at_home(self, home: Home) -> Self {
        Self { home: Some(home), ..self }
    }

    /// The same teller, who sends this header too.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut teller = self.clone();
        teller.headers.push((name.to_owned(), value.to_owned()));
        teller
    }

    /// Under this idempotency key.
    pub fn keyed(&self, key: &str) -> Self {
        self.with("idempotency-key", key)
    }

    /// Only at this ETag.
    pub fn if_match(&self, etag: &str) -> Self {
        self.with("if-match", etag)
    }

    /// Without recording anything.
    pub fn dry(&self) -> Self {
        Self { dry_run: true, ..self.clone() }
    }

    pub async fn open(&self, mut body: Value) -> Answer {
        if let Some(home) = self.home {
            home.opening(&mut body, self.headers.iter().any(|(name, _)| name == "idempotency-key"));
        }
        self.command("/v1/accounts", body).await
    }

    /// A new account in EUR with this balance.
    pub async fn account_with(&self, balance: i64) -> Uuid {
        self.open(json!({"currency": "EUR", "initial_deposit": balance})).await.expect(201).account_id()
    }

    pub async fn deposit(&self, account: Uuid, amount: i64) -> Answer {
        self.command(&format!("/v1/accounts/{account}/deposits"), json!({"amount": amount})).await
    }

    pub async fn withdraw(&self, account: Uuid, amount: i64) -> Answer {
        self.command(&format!("/v1/accounts/{account}/withdrawals"), json!({"amount": amount})).await
    }

    pub async fn transfer(&self, from: Uuid, to: Uuid, amount: i64) -> Answer {
        self.command("/v1/transfers", json!({"from": from, "to": to, "amount": amount})).await
    }

    pub async fn freeze(&self, account: Uuid) -> Answer {
        self.command(&format!("/v1/accounts/{account}/freeze"), json!({})).await
    }

    pub async fn unfreeze(&self, account: Uuid) -> Answer {
        self.command(&format!("/v1/accounts/{account}/unfreeze"), json!({})).await
    }

    pub async fn close(&self, account: Uuid) -> Answer {
        self.command(&format!("/v1/accounts/{account}/close"), json!({})).await
    }

    /// Any command.
    pub async fn command(&self, path: &str, body: Value) -> Answer {
        let query = if self.dry_run { "?dry_run=true" } else { "" };
        self.post(&format!("{path}{query}"), body.to_string()).await
    }

    /// A body as it stands, said to be JSON.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.with("content-type", "application/json").send(Method::POST, path, body).await
    }

    /// The account's view as it was at `position` or later.
    pub async fn account(&self, account: Uuid, position: &str) -> Answer {
        self.get(&format!("/v1/accounts/{account}?min_position={position}")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    /// The same, but of an answer without an end only its beginning.
    pub async fn get_at_first(&self, path: &str) -> Answer {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let is_endless = response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream");
        match is_endless {
            true => Answer::without_body(&response),
            false => Answer::read(response).await,
        }
    }

    /// Follows the log: `query` is what comes behind the path.
    pub async fn follow(&self, query: &str) -> Follower {
        let response = self.request(Method::GET, &format!("/v1/events/stream{query}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{query}: {}", response.text().await.unwrap());
        Follower::new(response, self.home)
    }

    /// Follows the log on from where somebody was.
    pub async fn resume(&self, last_id: &str) -> Follower {
        let last_id = &self.home.map_or_else(|| last_id.to_owned(), |home| home.place(last_id));
        self.with("last-event-id", last_id).follow("").await
    }

    /// Anything at all.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let mut request = self.request(method.clone(), path);
        let is_command = method != Method::GET;
        if is_command {
            request = request.body(body);
        }
        let mut answer = Answer::read(request.send().await.unwrap()).await;
        if let Some(home) = self.home {
            answer.come_home(home);
        }
        if let (Some(heard), Some(position)) = (&self.heard, answer.header("passbook-position").filter(|_| is_command))
        {
            heard.hear(position);
        }
        answer
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = match (self.home, &self.heard) {
            (Some(home), _) => home.asked(path),
            (None, Some(heard)) => heard.meant(path),
            (None, None) => path.to_owned(),
        };
        let request = self.client.request(method, format!("{}{path}", self.url));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}
