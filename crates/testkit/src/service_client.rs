//! An HTTP client of the service. All its deposits go to one account.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ACCOUNT: &str = "01900000-0000-7000-8000-0000000000aa";
/// How long a retried deposit and a view may take to recover from a fault.
const RECOVERY_S_MAX: u64 = 60;
const READY_S_MAX: u64 = 60;

/// The key of the final deposit, which marks the end of the log.
const LAST: &str = "the-last-one";

/// The outcome of a command, as far as the client knows it.
#[derive(Debug)]
pub enum Outcome {
    /// A success response; holds the event's id.
    Recorded(String),
    /// A response that the command was not executed.
    NotExecuted,
    /// No response, or a response that the outcome is unknown.
    Unknown,
}

/// A deposit as the transaction view shows it.
#[derive(Debug)]
pub struct Deposit {
    /// The id of the event.
    pub event_id: String,
    /// The idempotency key of the command.
    pub key: String,
}

/// A client of one service.
#[derive(Clone)]
pub struct Client {
    base_url: String,
    http: reqwest::Client,
}

impl Client {
    /// A client of the service at this base URL.
    pub fn new(base_url: &str) -> Self {
        let http = crate::http_client().timeout(Duration::from_secs(30)).build().unwrap();
        Self { base_url: base_url.to_owned(), http }
    }

    /// The base URL of the service.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Sends a GET request. Panics if there is no response.
    pub async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.base_url)).send().await.unwrap()
    }

    /// Sends a command with an idempotency key and a JSON body. Fails if there is no response.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<Response> {
        self.http.post(format!("{}{path}", self.base_url)).header("idempotency-key", key).json(body).send().await
    }

    /// Opens the account that all deposits go to.
    pub async fn open_account(&self) {
        let body = json!({"account_id": ACCOUNT, "currency": "EUR"});
        let opened = self.post("/v1/accounts", "open", &body).await.unwrap();
        assert_eq!(opened.status(), StatusCode::CREATED);
    }

    /// Deposits 1, with the key also as the reference.
    pub async fn deposit(&self, key: &str) -> Outcome {
        let path = format!("/v1/accounts/{ACCOUNT}/deposits");
        let Ok(response) = self.post(&path, key, &json!({"amount": 1, "reference": key})).await else {
            return Outcome::Unknown;
        };
        let status = response.status();
        // An incomplete response says nothing about the outcome.
        let Ok(body) = response.json::<Value>().await else { return Outcome::Unknown };
        if status.is_success() {
            return Outcome::Recorded(body["events"][0]["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        match body["code"].as_str().unwrap() {
            "storage_unavailable" | "overloaded" => Outcome::NotExecuted,
            "outcome_unknown" => Outcome::Unknown,
            other => panic!("unexpected problem code {other}"),
        }
    }

    /// Deposits 1 and expects success. Returns the event's id.
    pub async fn deposit_ok(&self, key: &str) -> String {
        match self.deposit(key).await {
            Outcome::Recorded(event_id) => event_id,
            other => panic!("the deposit failed: {other:?}"),
        }
    }

    /// Deposits 1, with retries under the same key until success.
    pub async fn deposit_with_retry(&self, key: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(RECOVERY_S_MAX);
        loop {
            if let Outcome::Recorded(event_id) = self.deposit(key).await {
                return event_id;
            }
            assert!(Instant::now() < deadline, "no command has succeeded for {RECOVERY_S_MAX} s");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// All recorded deposits, newest first. Waits until the view has read the whole log.
    pub async fn deposits(&self) -> Vec<Deposit> {
        let last = self.deposit_ok(LAST).await;
        let deadline = Instant::now() + Duration::from_secs(RECOVERY_S_MAX);
        loop {
            let mut deposits = self.read_deposits().await;
            if deposits.first().is_some_and(|newest| newest.event_id == last) {
                return deposits.split_off(1);
            }
            assert!(Instant::now() < deadline, "the view does not show the last deposit");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn read_deposits(&self) -> Vec<Deposit> {
        let (mut deposits, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/accounts/{ACCOUNT}/transactions?limit=1000{after}")).await;
            let page: Value = page.json().await.unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let rows = page["data"].as_array().unwrap().iter();
            deposits.extend(rows.map(|row| Deposit { event_id: text(&row["event_id"]), key: text(&row["reference"]) }));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return deposits,
            }
        }
    }

    /// Waits until the service is ready. A new view takes a moment to catch up.
    pub async fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(READY_S_MAX);
        loop {
            let response = self.get("/readyz").await;
            if response.status() == StatusCode::OK {
                return;
            }
            let problem = response.text().await.unwrap();
            assert!(Instant::now() < deadline, "not ready after {READY_S_MAX} s: {problem}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
