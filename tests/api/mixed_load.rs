//! A mixed load of concurrent commands: afterwards the log is consistent and the views equal its fold.

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, App, Response, Rng, audit::audit, spawn_app, spawn_app_with};
use serde_json::json;
use uuid::Uuid;

const CLIENTS: u64 = 12;
const COMMANDS: u64 = 25;
const ACCOUNTS: u64 = 10;

/// The commands of one client, of every kind, on accounts that all clients share.
async fn run_client(client: &ApiClient, accounts: &[Uuid], seed: u64) {
    let mut rng = Rng::new(seed);
    for round in 0..COMMANDS {
        let account = accounts[rng.below(ACCOUNTS) as usize];
        let other = accounts[rng.below(ACCOUNTS) as usize];
        let amount = i64::try_from(rng.below(300)).unwrap() + 1;
        let keyed = client.with_key(&format!("{seed}-{round}"));
        let response = match rng.below(12) {
            0..=2 => keyed.deposit(account, amount).await,
            3..=5 => keyed.withdraw(account, amount).await,
            6..=8 => keyed.transfer(account, other, amount).await,
            9 => client.freeze(account).await,
            10 => client.unfreeze(account).await,
            _ => client.open(json!({"currency": "EUR", "owner": "other", "initial_deposit": amount})).await,
        };
        assert_expected(&response);
    }
}

/// Asserts that the command succeeded or was refused for a reason that this load causes.
#[track_caller]
fn assert_expected(response: &Response) {
    let code = response.body["code"].as_str().unwrap_or_default();
    let expected = ["insufficient_funds", "account_frozen", "account_not_frozen", "same_account"];
    assert!(response.status < 300 || expected.contains(&code), "{} {}", response.status, response.body);
}

/// Runs all clients, distributed over the instances.
async fn run_load(apps: &[&App]) {
    let opening = apps[0].client();
    let accounts = join_all((0..ACCOUNTS).map(|_| opening.open_with_balance(500))).await;
    let clients: Vec<ApiClient> = apps.iter().map(|app| app.client()).collect();
    let clients = (1..=CLIENTS).map(|seed| {
        let client = &clients[seed as usize % clients.len()];
        run_client(client, &accounts, seed)
    });
    join_all(clients).await;
}

#[tokio::test]
async fn one_instance_is_consistent_after_a_mixed_load() {
    let app = spawn_app().await;
    run_load(&[&app]).await;
    audit(&app).await;
}

#[tokio::test]
async fn two_instances_are_consistent_after_a_mixed_load() {
    let app = spawn_app().await;
    let peer = app.spawn_peer().await;
    run_load(&[&app, &peer]).await;
    let log = audit(&app).await;

    // Each event was projected once, and both instances give the same list.
    let position = log.head.position.to_string();
    let path = format!("/v1/accounts?limit=1000&min_position={position}");
    let (list, peer_list) = (app.client().get(&path).await.expect(200), peer.client().get(&path).await.expect(200));
    assert_eq!(list.body, peer_list.body);
    let counted: i64 = list.data().iter().map(|account| account["transaction_count"].as_i64().unwrap()).sum();
    let moved = log.events.iter().filter(|event| !matches!(&*event.event_type, "AccountFrozen" | "AccountUnfrozen"));
    assert_eq!(counted, i64::try_from(moved.count()).unwrap());
}

#[tokio::test]
async fn instance_with_a_tiny_cache_is_consistent() {
    let app = spawn_app_with(&["--cache-accounts=2", "--snapshot-every=3"]).await;
    run_load(&[&app]).await;
    audit(&app).await;
}

#[tokio::test]
async fn two_instances_with_tiny_caches_are_consistent() {
    let app = spawn_app_with(&["--cache-accounts=1", "--snapshot-every=1"]).await;
    let peer = app.spawn_peer().await;
    run_load(&[&app, &peer]).await;
    audit(&peer).await;
}

#[tokio::test]
async fn log_is_consistent_while_an_instance_restarts() {
    let app = spawn_app().await;
    let mut peer = app.spawn_peer().await;
    let restarts = async {
        let account = peer.client().open_with_balance(5).await;
        for _ in 0..4 {
            peer.client().deposit(account, 1).await.expect(201);
            peer.restart().await;
        }
    };
    let instances = [&app];
    tokio::join!(restarts, run_load(&instances));
    audit(&app).await;
}
