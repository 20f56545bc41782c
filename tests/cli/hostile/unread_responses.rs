//! Answers that were asked for and are never read.

use serde_json::json;
use tokio::task::JoinSet;

use super::harness::{AbuseHarness, connections};

/// What the service needs for itself, and 256 MiB of large answers, however many were asked for.
const MEMORY_MIB_MAX: u64 = 450;
/// A follower of the log holds a page of it at the most, here 250 events of 2.5 KB.
const FOLLOWER_MIB_MAX: u64 = 1;
/// What the kernel keeps for one who does not read.
const SENT_IN_VAIN_KIB_MAX: u64 = 256;
/// So many movements fill every buffer between the service and whoever does not read, several times over.
const MOVEMENTS: usize = 1_600;
const CLIENTS: usize = 16;
const TEXT_CHARS_MAX: usize = 500;
/// Questions in one breath.
const QUESTIONS: usize = 400;

/// An account with a long history.
async fn long_history(harness: &AbuseHarness) -> String {
    let opened = harness.client().post("/v1/accounts", "long", &json!({"currency": "EUR"})).await.unwrap();
    let opened: serde_json::Value = opened.json().await.unwrap();
    let account = format!("/v1/accounts/{}", opened["account_id"].as_str().unwrap());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (bank, deposits) = (harness.client().clone(), format!("{account}/deposits"));
        clients.spawn(async move {
            let deposit = json!({"amount": 1, "reference": "€".repeat(TEXT_CHARS_MAX)});
            for turn in 0..MOVEMENTS / CLIENTS {
                let paid = bank.post(&deposits, &format!("{client}-{turn}"), &deposit).await.unwrap();
                assert_eq!(paid.status(), 201);
            }
        });
    }
    clients.join_all().await;
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_given_up_and_harm_nobody() {
    let readers = connections() / 32;
    let harness = AbuseHarness::start().await;
    let account = long_history(&harness).await;
    let get = |path: &str, accept: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
    let days = "from=2020-01-01&to=2100-01-01";
    let questions = [
        get("/v1/events/stream", "text/event-stream"),
        get(&format!("{account}/statement?{days}"), "text/csv"),
        get(&format!("{account}/transactions?limit=1000"), "*/*"),
        get("/v1/accounts", "*/*").repeat(QUESTIONS),
        get(&format!("{account}/events?limit=1000"), "*/*"),
    ];
    let mut unread = Vec::new();
    for question in questions {
        unread.extend((0..readers).map(|_| harness.send_without_reading(&question)));
    }
    let each_kib = harness.unread_send_queue_kib() / unread.len() as u64;
    println!("the kernel keeps {each_kib} KiB a connection");
    assert!(each_kib <= SENT_IN_VAIN_KIB_MAX);
    harness.connections_released().await;
    drop(unread);
    harness.finish(MEMORY_MIB_MAX + FOLLOWER_MIB_MAX * readers as u64).await;
}
