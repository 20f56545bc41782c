//! Checks reads under faults: one writer deposits 1 into an account again and again, and readers query it on every instance. Each
//! balance must be a state of that account. It is at most the number of deposits sent, and at least the balance at the position
//! that the reader required.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use passbook_testkit::{Rng, eventually};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    client::{Client, CommandRecord, Outcome},
    command::Command,
    instance::Instance,
};

/// Longer than the service waits for a required position.
const READ_S_MAX: u64 = 20;

pub struct Probe {
    account: Uuid,
    history: Arc<History>,
    is_over: Arc<AtomicBool>,
    writer: JoinSet<Vec<CommandRecord>>,
    readers: JoinSet<()>,
    instances: Vec<Arc<Instance>>,
}

/// The deposits of the writer to the account.
#[derive(Default)]
struct History {
    /// The number of deposits sent.
    sent: AtomicI64,
    /// The balance and the position of the last acknowledged deposit.
    acknowledged: Mutex<(i64, String)>,
    reads: AtomicU64,
}

/// The result of one read.
enum Reading {
    Balance(i64),
    /// The account does not exist, which is true before its opening.
    NotFound,
    /// The request failed, or the response says nothing about the account.
    Unavailable,
}

impl Probe {
    /// Opens a new account, and starts one writer and a reader for each instance.
    pub async fn start(instances: &[Arc<Instance>], round: u64, rng: &mut Rng) -> Self {
        let account = rng.uuid();
        let history = Arc::new(History::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let mut client = Client::new(instances, rng.fork());
        let opened = client.send_until_definite(Command::open(format!("{round}-probe"), account, 0)).await;
        history.acknowledge(&opened);

        let mut writer = JoinSet::new();
        writer.spawn({
            let (history, is_over) = (Arc::clone(&history), Arc::clone(&is_over));
            async move {
                let mut records = vec![opened];
                while !is_over.load(Ordering::Relaxed) {
                    let number = history.sent.fetch_add(1, Ordering::SeqCst) + 1;
                    let deposit = Command::deposit(format!("{round}-probe-{number}"), account, 1);
                    let record = client.send_until_definite(deposit).await;
                    history.acknowledge(&record);
                    records.push(record);
                    sleep(client.rng.millis(1, 30)).await;
                }
                records
            }
        });
        let mut readers = JoinSet::new();
        for instance in instances {
            let (history, is_over, instance) = (Arc::clone(&history), Arc::clone(&is_over), Arc::clone(instance));
            let mut client = Client::new(instances, rng.fork());
            readers.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let requires_position = client.rng.chance(50);
                    read_and_check(&client, &instance, account, &history, requires_position).await;
                    sleep(client.rng.millis(5, 50)).await;
                }
            });
        }
        Self { account, history, is_over, writer, readers, instances: instances.to_vec() }
    }

    /// Stops the writer and the readers, and checks that each running instance shows the current balance. Returns the
    /// records of all commands and the number of reads.
    pub async fn finish(self, running: &[Arc<Instance>]) -> (Vec<CommandRecord>, u64) {
        self.is_over.store(true, Ordering::Relaxed);
        let records = self.writer.join_all().await.concat();
        self.readers.join_all().await;
        let client = Client::new(&self.instances, Rng::new(0));
        for instance in running {
            eventually("a current balance", async || {
                match read_and_check(&client, instance, self.account, &self.history, true).await {
                    Reading::Balance(_) => Some(()),
                    Reading::NotFound | Reading::Unavailable => None,
                }
            })
            .await;
        }
        (records, self.history.reads.load(Ordering::Relaxed))
    }
}

impl History {
    fn acknowledge(&self, record: &CommandRecord) {
        let Outcome::Recorded(receipt) = &record.outcome else { panic!("a probe command was rejected: {record:?}") };
        let position = receipt["position"].as_str().unwrap().to_owned();
        *self.acknowledged.lock().unwrap() = (receipt["balance"].as_i64().unwrap(), position);
    }
}

/// Reads the account once and checks the balance. With `requires_position` the read must include the last acknowledged
/// deposit.
async fn read_and_check(
    client: &Client,
    instance: &Instance,
    account: Uuid,
    history: &History,
    requires_position: bool,
) -> Reading {
    let (min, position) =
        if requires_position { history.acknowledged.lock().unwrap().clone() } else { (0, "0".to_owned()) };
    let reading = timeout(Duration::from_secs(READ_S_MAX), read(client, instance, account, &position)).await;
    let reading = reading.unwrap_or(Reading::Unavailable);
    let max = history.sent.load(Ordering::SeqCst);
    let name = instance.name;
    match reading {
        Reading::Balance(balance) => {
            history.reads.fetch_add(1, Ordering::Relaxed);
            assert!(balance <= max, "{name} shows balance {balance}, but only {max} deposits were sent");
            assert!(balance >= min, "{name} shows balance {balance} at position {position}, expected at least {min}");
        }
        Reading::NotFound => assert!(!requires_position, "{name} does not find the account at position {position}"),
        Reading::Unavailable => {}
    }
    reading
}

async fn read(client: &Client, instance: &Instance, account: Uuid, position: &str) -> Reading {
    let base_url = instance.base_url();
    let url = format!("{base_url}/v1/accounts/{account}?min_position={position}");
    let Ok(response) = client.http.get(url).send().await else { return Reading::Unavailable };
    let status = response.status();
    let read_up_to = response.headers().get("passbook-position").map(|value| value.to_str().unwrap().to_owned());
    let Ok(view) = response.json::<Value>().await else { return Reading::Unavailable };
    match status {
        StatusCode::OK => {
            let read_up_to = read_up_to.unwrap();
            assert!(
                last_position(&read_up_to) >= last_position(position),
                "{} read up to {read_up_to}, but {position} was required",
                instance.name
            );
            let [balance, version, count] =
                ["balance", "version", "transaction_count"].map(|name| view[name].as_i64().unwrap());
            assert_eq!((version, count), (balance + 1, balance), "{} shows an impossible state: {view}", instance.name);
            Reading::Balance(balance)
        }
        StatusCode::NOT_FOUND => Reading::NotFound,
        StatusCode::SERVICE_UNAVAILABLE => Reading::Unavailable,
        _ => panic!("{} responds {status} to a read: {view}", instance.name),
    }
}

/// The position within the account's partition. The account's own positions name no other partition.
fn last_position(position: &str) -> i64 {
    position.rsplit(':').next().unwrap().parse().unwrap()
}
