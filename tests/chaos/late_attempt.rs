//! A scenario in which the outcome of a key could change. The first attempt of a withdrawal is on its way, and its retry under the
//! same key is refused at another instance. Then the account gets enough money, and the first attempt arrives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use passbook_testkit::Rng;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    command::Command,
    instance::Instance,
    workload::{Client, CommandRecord, Outcome},
};

/// The balance of the account, and the amount of the withdrawal.
const AMOUNT: u64 = 100;
/// Longer than an instance stays frozen plus the time that a command may wait in its queue.
const RESPONSE_S_MAX: u64 = 25;
/// The longest pause between two scenarios.
const PAUSE_MS_MAX: u64 = 500;

/// The commands of one scenario.
pub struct Scenario {
    pub records: Vec<CommandRecord>,
    /// Whether the first attempt arrived after the retry and was answered. A fault can prevent that.
    pub is_complete: bool,
}

/// Scenarios that run one after the other until [`finish`](Self::finish).
pub struct LateAttempts {
    is_over: Arc<AtomicBool>,
    scenarios: JoinHandle<Vec<Scenario>>,
}

impl LateAttempts {
    pub fn start(instances: &[Arc<Instance>], round: u64, rng: &mut Rng) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut client = Client::new(instances, rng.fork());
        let scenarios = tokio::spawn({
            let is_over = Arc::clone(&is_over);
            async move {
                let mut scenarios = Vec::new();
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let first = client.pick_instance();
                    scenarios.push(run(&mut client, &first, &format!("{round}-late-{number}")).await);
                    sleep(client.rng.millis(1, PAUSE_MS_MAX)).await;
                }
                scenarios
            }
        });
        Self { is_over, scenarios }
    }

    /// Lets the current scenario end, and returns all.
    pub async fn finish(self) -> Vec<Scenario> {
        self.is_over.store(true, Ordering::Relaxed);
        self.scenarios.await.unwrap()
    }
}

/// Runs the scenario: the first attempt goes to the instance `first`, and `client` sends everything else.
pub async fn run(client: &mut Client, first: &Instance, name: &str) -> Scenario {
    let account = client.rng.uuid();
    let key = |step: &str| format!("{name}-{step}");
    let opened = client.send_until_definite(Command::open(key("open"), account, AMOUNT)).await;
    let withdrawal = Command::withdrawal(key("withdraw"), account, AMOUNT);
    let on_its_way = UnfinishedRequest::send(first, &withdrawal).await;

    let emptied = client.send_until_definite(Command::withdrawal(key("empty"), account, AMOUNT)).await;
    let mut retry = client.send_until_definite(withdrawal).await;
    let refused = Outcome::Rejected("insufficient_funds".to_owned());
    assert_eq!(retry.outcome, refused, "the account is empty: {retry:?}");
    let filled = client.send_until_definite(Command::deposit(key("fill"), account, AMOUNT)).await;

    let response = match on_its_way {
        Some(request) => request.finish().await,
        None => None,
    };
    retry.had_unknown_attempt = true;
    retry.history.push(format!("{}, which began first: {response:?}", first.name));
    let code = response.as_ref().map(|response| response.code.as_str());
    match &response {
        Some(response) if response.status == 422 => {
            assert!(response.is_replay && code == Some("insufficient_funds"), "{retry:?}");
        }
        // The count of commands that were recorded after a rejection shows it, too.
        Some(response) if response.status < 300 => {}
        Some(response) => assert!(matches!(response.status, 408 | 503), "{retry:?}"),
        None => {}
    }
    let is_complete = response.is_some_and(|response| response.status < 300 || response.status == 422);
    Scenario { records: vec![opened, emptied, retry, filled], is_complete }
}

/// A request whose last byte was not sent yet.
struct UnfinishedRequest {
    stream: TcpStream,
    last: u8,
}

#[derive(Debug)]
struct LateResponse {
    status: u16,
    is_replay: bool,
    /// The code of the problem; empty in other responses.
    code: String,
}

impl UnfinishedRequest {
    /// Sends all but the last byte of a command. `None` if the instance cannot be reached.
    async fn send(instance: &Instance, command: &Command) -> Option<Self> {
        let url = instance.base_url();
        let address = url.strip_prefix("http://").unwrap();
        let (path, key, body) = (&command.path, &command.key, command.body.to_string());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nx-request-id: {key}\r\nidempotency-key: {key}\r\n\r\n{body}",
            body.len()
        );
        let (last, sent) = request.as_bytes().split_last().unwrap();
        let sending = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(sent).await?;
            std::io::Result::Ok(stream)
        };
        let stream = timeout(Duration::from_secs(RESPONSE_S_MAX), sending).await.ok()?.ok()?;
        Some(Self { stream, last: *last })
    }

    /// Sends the last byte and reads the response. `None` if there is none.
    async fn finish(mut self) -> Option<LateResponse> {
        let mut response = Vec::new();
        let exchange = async {
            self.stream.write_all(&[self.last]).await?;
            self.stream.read_to_end(&mut response).await
        };
        timeout(Duration::from_secs(RESPONSE_S_MAX), exchange).await.ok()?.ok()?;
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().unwrap();
        let is_replay = head.to_lowercase().contains("idempotency-replayed: true");
        let body: Value = serde_json::from_str(body).ok()?;
        Some(LateResponse { status, is_replay, code: body["code"].as_str().unwrap_or_default().to_owned() })
    }
}
