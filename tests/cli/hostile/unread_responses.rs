//! Clients that send requests and never read the responses.

use serde_json::json;
use tokio::task::JoinSet;

use super::harness::{AbuseHarness, connections};

/// The service's own memory plus its budget of 256 MiB for large responses.
const MEMORY_MIB_MAX: u64 = 450;
/// A subscriber of the event feed holds at most one page of the log, here 250 events of 2.5 KB.
const SUBSCRIBER_MIB_MAX: u64 = 1;
/// The largest send queue in the kernel for one client that does not read.
const SEND_QUEUE_KIB_MAX: u64 = 256;
/// Enough movements to fill every buffer between the service and a client several times.
const MOVEMENTS: usize = 1_600;
const CLIENTS: usize = 16;
const TEXT_CHARS_MAX: usize = 500;
/// The number of pipelined requests per connection.
const PIPELINED: usize = 400;
/// Lines of JSON that are no commands. Their results are a hundred times as long, and exceed every buffer.
const BATCH_LINES: usize = 10_000;

/// Creates an account with a long history, and returns its path.
pub async fn long_history(harness: &AbuseHarness) -> String {
    let opened = harness.client().post("/v1/accounts", "long", &json!({"currency": "EUR"})).await.unwrap();
    let opened: serde_json::Value = opened.json().await.unwrap();
    let account = format!("/v1/accounts/{}", opened["account_id"].as_str().unwrap());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (service, deposits) = (harness.client().clone(), format!("{account}/deposits"));
        clients.spawn(async move {
            let deposit = json!({"amount": 1, "reference": "€".repeat(TEXT_CHARS_MAX)});
            for number in 0..MOVEMENTS / CLIENTS {
                let response = service.post(&deposits, &format!("{client}-{number}"), &deposit).await.unwrap();
                assert_eq!(response.status(), 201);
            }
        });
    }
    clients.join_all().await;
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_time_out_and_do_no_harm() {
    let readers = connections() / 32;
    let harness = AbuseHarness::start().await;
    let account = long_history(&harness).await;
    let get = |path: &str, accept: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
    let lines = "x\n".repeat(BATCH_LINES);
    let batch = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{lines}",
        lines.len()
    );
    let days = "from=2020-01-01&to=2100-01-01";
    let requests = [
        get("/v1/events/stream", "text/event-stream"),
        batch,
        get(&format!("{account}/statement?{days}"), "text/csv"),
        get(&format!("{account}/transactions?limit=1000"), "*/*"),
        get("/v1/accounts", "*/*").repeat(PIPELINED),
        get(&format!("{account}/events?limit=1000"), "*/*"),
    ];
    let mut unread = Vec::new();
    for request in requests {
        unread.extend((0..readers).map(|_| harness.send_without_reading(&request)));
    }
    let each_kib = harness.unread_send_queue_kib() / unread.len() as u64;
    println!("the kernel queues {each_kib} KiB per connection");
    assert!(each_kib <= SEND_QUEUE_KIB_MAX);
    harness.connections_released().await;
    drop(unread);
    harness.finish(MEMORY_MIB_MAX + SUBSCRIBER_MIB_MAX * readers as u64).await;
}
