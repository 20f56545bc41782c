//! Readers of the whole log during the faults: subscribers of the event feed, and the relay with its stream in NATS. Each must get every
//! event once and in order, and none that is not in the log.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::signal::Signal;
use passbook_testkit::{
    FeedSubscriber, eventually, http_client,
    log::Log,
    nats::Nats,
    process::{Passbook, Running},
};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use crate::instance::Instance;

const RETRY_MS: u64 = 100;

/// A received event: its partition, its position and its id.
type Received = (i64, i64, String);

/// A subscriber of one instance's event feed.
pub struct Feed {
    name: &'static str,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Feed {
    pub fn subscribe(instance: &Arc<Instance>) -> Self {
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let task = tokio::spawn(follow(Arc::clone(instance), Arc::clone(&received)));
        Self { name: instance.name, received, task }
    }

    /// Waits until the subscriber has received the whole log, and compares the events.
    pub async fn finish(self, log: &Log) {
        eventually(&format!("the feed of {} to reach the log head", self.name), async || {
            // A subscriber that panicked receives nothing any more.
            let is_complete = self.received.lock().unwrap().len() >= log.events.len();
            (is_complete || self.task.is_finished()).then_some(())
        })
        .await;
        self.task.abort();
        if let Err(error) = self.task.await {
            assert!(error.is_cancelled(), "the feed of {}: {error}", self.name);
        }
        assert_equals(self.name, &self.received.lock().unwrap(), log);
    }
}

/// Receives events from the start of the log on, and resumes after the last one whenever the stream ends.
async fn follow(instance: Arc<Instance>, received: Arc<Mutex<Vec<Received>>>) {
    let http = http_client().build().unwrap();
    let mut last_id = String::new();
    loop {
        let url = format!("{}/v1/events/stream", instance.base_url());
        let request = match last_id.is_empty() {
            true => http.get(url),
            false => http.get(url).header("last-event-id", &last_id),
        };
        if let Ok(response) = request.send().await {
            match response.status() {
                StatusCode::OK => {
                    let mut subscriber = FeedSubscriber::new(response, None);
                    while let Some(event) = subscriber.next().await {
                        received.lock().unwrap().push(received_of(&event.data));
                        last_id = event.id;
                    }
                }
                StatusCode::SERVICE_UNAVAILABLE => {}
                status => panic!("the feed of {} answers {status} to the cursor {last_id}", instance.name),
            }
        }
        sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

/// The relay, with the NATS server that it publishes to.
pub struct Relay {
    nats: Nats,
    process: Running,
}

impl Relay {
    pub async fn start(database_url: String) -> Self {
        let nats = Nats::start().await;
        let relay = Passbook::without_settings()
            .argument("relay")
            .argument("nats")
            .set("PASSBOOK_DATABASE_URL", database_url)
            .set("PASSBOOK_RELAY_NATS_URL", nats.url())
            .set("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0");
        let process = spawn_blocking(|| relay.start()).await.unwrap();
        Self { nats, process }
    }

    /// Waits until the stream of each partition is as long as its log, stops the relay, and compares the messages.
    pub async fn finish(self, log: &Log) {
        let mut published = Vec::new();
        for (partition, head) in (0i16..).zip(&log.heads) {
            eventually("the stream to reach the log head", async || {
                let last = self.nats.last_sequence_of(partition).await?;
                (last >= head.position.cast_unsigned()).then_some(())
            })
            .await;
            let messages = self.nats.messages(partition).await;
            let payloads = messages.iter().map(|message| serde_json::from_slice::<Value>(&message.payload).unwrap());
            published.extend(payloads.map(|payload| received_of(&payload)));
        }
        let exited = spawn_blocking(|| self.process.stop(Signal::SIGTERM)).await.unwrap();
        assert!(exited.status.success(), "the relay: {exited:?}");
        assert_equals("the relay", &published, log);
    }
}

fn received_of(event: &Value) -> Received {
    let position = event["position"].as_str().unwrap().parse().unwrap();
    (event["partition"].as_i64().unwrap_or_default(), position, event["id"].as_str().unwrap().to_owned())
}

/// Asserts that the events of each partition are those of its log, in order.
fn assert_equals(name: &str, received: &[Received], log: &Log) {
    for head in &log.heads {
        let own = received.iter().filter(|(partition, ..)| *partition == i64::from(head.partition));
        let own: Vec<(i64, &str)> = own.map(|(_, position, id)| (*position, &**id)).collect();
        let expected = log.events.iter().filter(|event| event.partition == head.partition);
        let expected: Vec<(i64, String)> = expected.map(|event| (event.position, event.id.to_string())).collect();
        let expected: Vec<(i64, &str)> = expected.iter().map(|(position, id)| (*position, &**id)).collect();
        let first = own.iter().zip(&expected).position(|(one, other)| one != other);
        assert!(
            own == expected,
            "{name} got {} of {} events of partition {}; the first difference is at {first:?}",
            own.len(),
            expected.len(),
            head.partition
        );
    }
}
