//! Graceful shutdown under load: every acknowledged command stays recorded, and no process is left running.

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
use passbook_testkit::{
    folder::Folder,
    process::{Passbook, Running},
    service_client::{Client, Deposit, Outcome},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

const CLIENTS: usize = 8;
const ACKNOWLEDGED_MIN: usize = 20;

/// Concurrent clients that deposit until [`finish`](Self::finish).
pub struct Workload {
    is_over: Arc<AtomicBool>,
    clients: JoinSet<Responses>,
}

/// The responses that the clients of a workload got.
#[derive(Default)]
pub struct Responses {
    /// The ids of the acknowledged events.
    pub recorded: Vec<String>,
    /// The keys of the commands whose response says that they were not executed.
    pub not_executed: Vec<String>,
}

impl Workload {
    /// Starts the clients, and returns once some deposits are acknowledged.
    pub async fn start(client: &Client) -> Self {
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for client_number in 0..CLIENTS {
            let (client, is_over, acknowledged) = (client.clone(), Arc::clone(&is_over), Arc::clone(&acknowledged));
            clients.spawn(async move {
                let mut responses = Responses::default();
                for deposit_number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{client_number}-{deposit_number}");
                    match client.deposit(&key).await {
                        Outcome::Recorded(event_id) => {
                            responses.recorded.push(event_id);
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        Outcome::NotExecuted => responses.not_executed.push(key),
                        Outcome::Unknown => sleep(Duration::from_millis(5)).await,
                    }
                }
                responses
            });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged.load(Ordering::Relaxed) < ACKNOWLEDGED_MIN && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(100)).await;
        Self { is_over, clients }
    }

    /// Stops the clients, and returns all their responses.
    pub async fn finish(self) -> Responses {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Responses::default();
        for responses in self.clients.join_all().await {
            all.recorded.extend(responses.recorded);
            all.not_executed.extend(responses.not_executed);
        }
        assert!(all.recorded.len() >= ACKNOWLEDGED_MIN, "only {} deposits were acknowledged", all.recorded.len());
        all
    }
}

impl Responses {
    /// Asserts that each acknowledged deposit is recorded once, and that no deposit is recorded whose response says that it
    /// was not executed.
    #[track_caller]
    pub fn assert_matches(&self, recorded: &[Deposit]) {
        let mut times = HashMap::new();
        recorded.iter().for_each(|deposit| *times.entry(deposit.event_id.as_str()).or_insert(0) += 1);
        for id in &self.recorded {
            assert_eq!(times.get(id.as_str()), Some(&1), "event {id} was acknowledged");
        }
        let keys: HashSet<&str> = recorded.iter().map(|deposit| deposit.key.as_str()).collect();
        assert_eq!(keys.len(), recorded.len(), "a command was executed twice");
        for key in &self.not_executed {
            assert!(!keys.contains(key.as_str()), "command {key} is recorded, but its response denied that");
        }
    }
}

/// Restarts the service in this folder, and compares its deposits with the workload's responses.
pub async fn assert_nothing_lost(folder: &Folder, workload: Workload) {
    let responses = workload.finish().await;
    let service = Passbook::in_folder(folder).start();
    responses.assert_matches(&service.client.deposits().await);
}

async fn assert_graceful_shutdown(signal: Signal) {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    let workload = Workload::start(&service.client).await;
    let ended = service.stop(signal);
    assert!(folder.processes().is_empty(), "processes still run: {:?}", folder.processes());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout.len(), 1, "{ended:?}");
    assert_nothing_lost(&folder, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_accepted_requests_and_stops_postgres() {
    assert_graceful_shutdown(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_finishes_accepted_requests_and_stops_postgres() {
    assert_graceful_shutdown(Signal::SIGINT).await;
}

#[tokio::test]
async fn during_the_shutdown_delay_it_is_unready_and_still_serves() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_SHUTDOWN_DELAY_MS", "60000").start();
    service.client.open_account().await;
    service.client.wait_until_ready().await;
    service.process.signal(Signal::SIGTERM);
    let mut ready = service.client.get("/readyz").await;
    while ready.status() == 200 {
        sleep(Duration::from_millis(10)).await;
        ready = service.client.get("/readyz").await;
    }
    let problem: Value = ready.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("overloaded")), "{problem}");
    service.client.deposit_ok("late").await;
    // A second signal ends the delay.
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(1));
    folder.wait_until_unused();
    assert_eq!(Passbook::in_folder(&folder).start().client.deposits().await.len(), 1);
}

#[tokio::test]
async fn a_signal_during_startup_ends_it_and_leaves_nothing_running() {
    let folder = Folder::empty();
    let starting = Passbook::in_folder(&folder).spawn();
    // Once the data folder exists, the process handles signals.
    while !folder.data().exists() {
        sleep(Duration::from_millis(5)).await;
    }
    starting.signal(Signal::SIGTERM);
    let ended = starting.wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.wait_until_unused();
    let service = Passbook::in_folder(&folder).start();
    service.client.wait_until_ready().await;
}

/// A client that requests more data than the buffers of both sides hold, and reads none of it.
fn client_that_never_reads(service: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(service.client.base_url().strip_prefix("http://").unwrap()).unwrap();
    let request = "GET /swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.repeat(20).as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(300));
    stream
}

#[test]
fn a_client_that_never_reads_does_not_block_the_shutdown() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let _client = client_that_never_reads(&service);
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.wait_until_unused();
}

#[test]
fn a_second_signal_ends_it_without_waiting_for_clients() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let _client = client_that_never_reads(&service);
    service.process.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    let ended = service.stop(Signal::SIGINT);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("a second signal"), "{ended:?}");
    folder.wait_until_unused();
}
