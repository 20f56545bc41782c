//! An endpoint in the test process: it records each request, and answers as a function of the test says.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use passbook_testkit::{ApiClient, App, config::partitions, eventually};
use passbook_webhooks::Timing;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

/// By how much deliveries are faster than in a service: a first pause takes 50 ms, an attempt at most 3 s.
const TIME_DIVISOR: u32 = 100;

/// A request that an endpoint received.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn account(&self) -> Uuid {
        self.json()["aggregate_id"].as_str().unwrap().parse().unwrap()
    }

    pub fn version(&self) -> i64 {
        self.json()["version"].as_i64().unwrap()
    }

    pub fn event_type(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

type Holds = dyn Fn(&Received) -> bool + Send + Sync;
type Answer = dyn Fn(&Received, usize) -> Response + Send + Sync;

#[derive(Clone)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Answer>,
    holds: Arc<Holds>,
}

/// A running endpoint.
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// An endpoint that accepts everything.
    pub async fn start() -> Self {
        Self::answering(|_, _| StatusCode::NO_CONTENT.into_response()).await
    }

    /// An endpoint that answers as this function says: of the request, and the number of requests before it.
    pub async fn answering(answer: impl Fn(&Received, usize) -> Response + Send + Sync + 'static) -> Self {
        Self::holding(|_| false, answer).await
    }

    /// As [`Self::answering`], but requests for which `holds` is true are never answered.
    pub async fn holding(
        holds: impl Fn(&Received) -> bool + Send + Sync + 'static,
        answer: impl Fn(&Received, usize) -> Response + Send + Sync + 'static,
    ) -> Self {
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let shared = Shared { received: Arc::clone(&received), answer: Arc::new(answer), holds: Arc::new(holds) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let router = Router::new().fallback(receive).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, received }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The requests about an account.
    pub fn of_account(&self, account: Uuid) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.account() == account).collect()
    }

    /// Waits until `count` requests were received.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually(&format!("{count} deliveries"), async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }

    /// Waits until all versions up to `version` of an account were received.
    pub async fn wait_for_version(&self, account: Uuid, version: i64) -> Vec<Received> {
        eventually(&format!("version {version} of {account}"), async || {
            let received = self.of_account(account);
            received.iter().any(|received| received.version() == version).then_some(received)
        })
        .await
    }
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Response {
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let received = Received { headers, body };
    let before = {
        let mut all = shared.received.lock().unwrap();
        all.push(received.clone());
        all.len() - 1
    };
    if (shared.holds)(&received) {
        std::future::pending::<()>().await;
    }
    (shared.answer)(&received, before)
}

/// An app that may send to this machine, with short pauses.
pub async fn spawn_sending_app() -> App {
    spawn_with_partitions(partitions().count()).await
}

/// As [`spawn_sending_app`], with one partition: the order of its events is that of their times.
pub async fn spawn_sending_app_with_one_partition() -> App {
    spawn_with_partitions(1).await
}

async fn spawn_with_partitions(count: i16) -> App {
    let flags = [format!("--partitions={count}"), "--webhooks-allow-private".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (database, mut config) = passbook_testkit::app::empty_database(&flags).await;
    config.webhooks.timing = Timing::divided_by(TIME_DIVISOR);
    passbook_testkit::app::start_app(config, database).await
}

/// Registers an endpoint for the events of accounts from the first one on. Returns its id.
pub async fn register(client: &ApiClient, url: &str) -> Uuid {
    register_with(client, json!({"url": url, "after": "0", "types": ["AccountOpened", "MoneyDeposited"]})).await
}

pub async fn register_with(client: &ApiClient, body: Value) -> Uuid {
    client.command("/v1/webhooks", body).await.expect(201).uuid("/webhook_id")
}

/// The endpoint as the service shows it.
pub async fn webhook(client: &ApiClient, webhook: Uuid) -> Value {
    client.get(&format!("/v1/webhooks/{webhook}")).await.expect(200).body
}

/// Waits until a member of the endpoint has this value.
pub async fn wait_for_member(client: &ApiClient, id: Uuid, member: &str, value: &Value) -> Value {
    eventually(&format!("{member} {value}"), async || {
        let found = webhook(client, id).await;
        (found[member] == *value).then_some(found)
    })
    .await
}

/// The versions of an account in the order in which they arrived first.
pub fn first_versions(received: &[Received]) -> Vec<i64> {
    let mut versions = Vec::new();
    for received in received {
        if !versions.contains(&received.version()) {
            versions.push(received.version());
        }
    }
    versions
}
