//! Acknowledged to end while it works, it ends in order: what it answered with success stands, and nothing is left running.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    client::{Client, Deposit, Outcome},
    folder::Folder,
    passbook::{Passbook, Running},
};

const CLIENTS: usize = 8;
const ANSWERED_MIN: usize = 20;

/// Clients that pay in one after the other until they are told that it is over.
pub struct Workload {
    over: Arc<AtomicBool>,
    clients: JoinSet<Acknowledged>,
}

/// What clients were told.
#[derive(Default)]
pub struct Acknowledged {
    /// The ids of the events that were answered with success.
    pub recorded: Vec<String>,
    /// The keys of the commands of which nothing was done.
    pub not_executed: Vec<String>,
}

impl Workload {
    /// Returns in the middle of the work.
    pub async fn start(client: &Client) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (client, over, answered) = (client.clone(), Arc::clone(&over), Arc::clone(&answered));
            clients.spawn(async move {
                let mut told = Acknowledged::default();
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{number}-{turn}");
                    match client.deposit(&key).await {
                        Outcome::Recorded(event_id) => {
                            told.recorded.push(event_id);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Outcome::NotExecuted => told.not_executed.push(key),
                        Outcome::Unknown => sleep(Duration::from_millis(5)).await,
                    }
                }
                told
            });
        }
        let patience = Instant::now() + Duration::from_secs(60);
        while answered.load(Ordering::Relaxed) < ANSWERED_MIN && Instant::now() < patience {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(100)).await;
        Self { over, clients }
    }

    /// Lets them go home and tell.
    pub async fn finish(self) -> Acknowledged {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for told in self.clients.join_all().await {
            all.recorded.extend(told.recorded);
            all.not_executed.extend(told.not_executed);
        }
        assert!(all.recorded.len() >= ANSWERED_MIN, "only {} deposits were answered", all.recorded.len());
        all
    }
}

impl Acknowledged {
    /// The bank knows everything that was answered with success, each once, and nothing of which nothing was done.
    #[track_caller]
    pub fn assert_matches(&self, known: &[Deposit]) {
        let mut times = HashMap::new();
        known.iter().for_each(|deposit| *times.entry(deposit.event_id.as_str()).or_insert(0) += 1);
        for id in &self.recorded {
            assert_eq!(times.get(id.as_str()), Some(&1), "{id} was answered with success");
        }
        let keys: HashSet<&str> = known.iter().map(|deposit| deposit.key.as_str()).collect();
        assert_eq!(keys.len(), known.len(), "a command was carried out twice");
        for key in &self.not_executed {
            assert!(!keys.contains(key.as_str()), "of {key} nothing was done");
        }
    }
}

/// A bank that starts again in this folder knows what the workload knows.
pub async fn assert_nothing_lost(folder: &Folder, workload: Workload) {
    let told = workload.finish().await;
    let bank = Passbook::in_folder(folder).start();
    told.assert_matches(&bank.client.deposits().await);
}

async fn ends_in_order_at(signal: Signal) {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).start();
    bank.client.open_account().await;
    let workload = Workload::start(&bank.client).await;
    let ended = bank.stop(signal);
    assert!(folder.processes().is_empty(), "still working: {:?}", folder.processes());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout.len(), 1, "{ended:?}");
    assert_nothing_lost(&folder, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_sigterm_it_answers_what_it_accepted_and_ends_with_its_postgres() {
    ends_in_order_at(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_sigint_it_answers_what_it_accepted_and_ends_with_its_postgres() {
    ends_in_order_at(Signal::SIGINT).await;
}

#[tokio::test]
async fn told_to_end_it_says_that_it_is_not_ready_and_serves_on_for_as_long_as_it_was_set() {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).set("PASSBOOK_SHUTDOWN_DELAY_MS", "60000").start();
    bank.client.open_account().await;
    bank.client.wait_until_ready().await;
    bank.process.signal(Signal::SIGTERM);
    let mut ready = bank.client.get("/readyz").await;
    while ready.status() == 200 {
        sleep(Duration::from_millis(10)).await;
        ready = bank.client.get("/readyz").await;
    }
    let problem: Value = ready.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("overloaded")), "{problem}");
    bank.client.deposit_ok("late").await;
    // Whoever does not want to wait says it twice.
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(1));
    folder.wait_until_unused();
    assert_eq!(Passbook::in_folder(&folder).start().client.deposits().await.len(), 1);
}

#[tokio::test]
async fn told_to_end_while_it_starts_it_ends_at_once_and_leaves_nothing_running() {
    let folder = Folder::empty();
    let starting = Passbook::in_folder(&folder).spawn();
    // It has begun to make its database, and so listens to signals.
    while !folder.data().exists() {
        sleep(Duration::from_millis(5)).await;
    }
    starting.signal(Signal::SIGTERM);
    let ended = starting.wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.wait_until_unused();
    let bank = Passbook::in_folder(&folder).start();
    bank.client.wait_until_ready().await;
}

/// A client that asks for more than both sides' buffers hold, and reads nothing of it.
fn deaf_client(bank: &Running) -> TcpStream {
    let mut deaf = TcpStream::connect(bank.client.base_url().strip_prefix("http://").unwrap()).unwrap();
    let request = "GET /swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n";
    deaf.write_all(request.repeat(20).as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(300));
    deaf
}

#[test]
fn a_client_that_never_reads_does_not_keep_it_from_ending() {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).start();
    let _deaf = deaf_client(&bank);
    let ended = bank.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.wait_until_unused();
}

#[test]
fn told_to_end_a_second_time_it_waits_for_nobody() {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).start();
    let _deaf = deaf_client(&bank);
    bank.process.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    let ended = bank.stop(Signal::SIGINT);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("a second time"), "{ended:?}");
    folder.wait_until_unused();
}
