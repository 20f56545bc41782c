//! Somebody who uses the bank over HTTP.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ACCOUNT: &str = "01900000-0000-7000-8000-0000000000aa";
const HEAL_S_MAX: u64 = 60;
const READY_S_MAX: u64 = 60;

/// The key of the deposit behind which nothing comes.
const LAST: &str = "the-last-one";

/// What a client knows of a command that it has sent.
#[derive(Debug)]
pub enum Outcome {
    /// Answered with success; the event's id.
    Recorded(String),
    /// Answered that nothing was done.
    NotExecuted,
    /// Not answered, or answered that nobody knows.
    Unknown,
}

/// A deposit as the view shows it.
#[derive(Debug)]
pub struct Deposit {
    pub event_id: String,
    pub key: String,
}

#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { base: base.to_owned(), http }
    }

    pub fn base_url(&self) -> &str {
        &self.base
    }

    pub async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<Response> {
        self.http.post(format!("{}{path}", self.base)).header("idempotency-key", key).json(body).send().await
    }

    /// Opens the account that all money goes to.
    pub async fn open_account(&self) {
        let body = json!({"account_id": ACCOUNT, "currency": "EUR"});
        let opened = self.post("/v1/accounts", "open", &body).await.unwrap();
        assert_eq!(opened.status(), StatusCode::CREATED);
    }

    /// Pays in 1, with the key as the reference.
    pub async fn deposit(&self, key: &str) -> Outcome {
        let path = format!("/v1/accounts/{ACCOUNT}/deposits");
        let Ok(answer) = self.post(&path, key, &json!({"amount": 1, "reference": key})).await else {
            return Outcome::Unknown;
        };
        let status = answer.status();
        // An answer that broke off on its way is none.
        let Ok(body) = answer.json::<Value>().await else { return Outcome::Unknown };
        if status.is_success() {
            return Outcome::Recorded(body["events"][0]["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        match body["code"].as_str().unwrap() {
            "storage_unavailable" | "overloaded" => Outcome::NotExecuted,
            "outcome_unknown" => Outcome::Unknown,
            other => panic!("a command was answered {other}"),
        }
    }

    /// Pays in 1 and expects that to work.
    pub async fn deposit_ok(&self, key: &str) -> String {
        match self.deposit(key).await {
            Outcome::Recorded(event_id) => event_id,
            other => panic!("a deposit was answered {other:?}"),
        }
    }

    /// Pays in 1, again and again under the same key, until that is answered with success.
    pub async fn deposit_with_retry(&self, key: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(HEAL_S_MAX);
        loop {
            if let Outcome::Recorded(event_id) = self.deposit(key).await {
                return event_id;
            }
            assert!(Instant::now() < deadline, "no command has worked for {HEAL_S_MAX} s");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// All deposits that the bank knows, newest first, once its view has read the whole log.
    pub async fn deposits(&self) -> Vec<Deposit> {
        let last = self.deposit_ok(LAST).await;
        let deadline = Instant::now() + Duration::from_secs(HEAL_S_MAX);
        loop {
            let mut deposits = self.read_deposits().await;
            if deposits.first().is_some_and(|newest| newest.event_id == last) {
                return deposits.split_off(1);
            }
            assert!(Instant::now() < deadline, "the view has not read the last deposit");
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

    /// Waits until commands and queries can be answered: a view that is new takes a moment.
    pub async fn is_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(READY_S_MAX);
        loop {
            let answer = self.get("/readyz").await;
            if answer.status() == StatusCode::OK {
                return;
            }
            let problem = answer.text().await.unwrap();
            assert!(Instant::now() < deadline, "not ready after {READY_S_MAX} s: {problem}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
