//! A long mixed load: whatever happened in whatever order, the log is whole and the views are its fold.

use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::support::{ApiClient, App, Response, Rng, audit::audit, spawn_app, spawn_app_with};

const CLIENTS: u64 = 12;
const COMMANDS: u64 = 25;
const ACCOUNTS: u64 = 10;

/// One client's share: every kind of command on accounts that all clients share.
async fn load(client: &ApiClient, accounts: &[Uuid], seed: u64) {
    let mut rng = Rng::new(seed);
    for round in 0..COMMANDS {
        let account = accounts[rng.below(ACCOUNTS) as usize];
        let another = accounts[rng.below(ACCOUNTS) as usize];
        let amount = i64::try_from(rng.below(300)).unwrap() + 1;
        let keyed = client.with_key(&format!("{seed}-{round}"));
        let response = match rng.below(12) {
            0..=2 => keyed.deposit(account, amount).await,
            3..=5 => keyed.withdraw(account, amount).await,
            6..=8 => keyed.transfer(account, another, amount).await,
            9 => client.freeze(account).await,
            10 => client.unfreeze(account).await,
            _ => client.open(json!({"currency": "EUR", "owner": "late", "initial_deposit": amount})).await,
        };
        assert_foreseen(&response);
    }
}

/// Succeeded, or refused for a reason that such a load has.
#[track_caller]
fn assert_foreseen(response: &Response) {
    let code = response.body["code"].as_str().unwrap_or_default();
    let foreseen = ["insufficient_funds", "account_frozen", "account_not_frozen", "same_account"];
    assert!(response.status < 300 || foreseen.contains(&code), "{} {}", response.status, response.body);
}

/// The same load on all servers at once.
async fn load_all(apps: &[&App]) {
    let opening = apps[0].client();
    let accounts = join_all((0..ACCOUNTS).map(|_| opening.open_with_balance(500))).await;
    let clients: Vec<ApiClient> = apps.iter().map(|app| app.client()).collect();
    let clients = (1..=CLIENTS).map(|seed| {
        let client = &clients[seed as usize % clients.len()];
        load(client, &accounts, seed)
    });
    join_all(clients).await;
}

#[tokio::test]
async fn one_server_under_a_mixed_load_keeps_its_books() {
    let app = spawn_app().await;
    load_all(&[&app]).await;
    audit(&app).await;
}

#[tokio::test]
async fn two_servers_under_one_mixed_load_keep_the_same_books() {
    let app = spawn_app().await;
    let peer = app.spawn_peer().await;
    load_all(&[&app, &peer]).await;
    let log = audit(&app).await;

    // Each event was projected once, and both tell the same of it.
    let position = log.head.position.to_string();
    let path = format!("/v1/accounts?limit=1000&min_position={position}");
    let (here, there) = (app.client().get(&path).await.expect(200), peer.client().get(&path).await.expect(200));
    assert_eq!(here.body, there.body);
    let counted: i64 = here.data().iter().map(|account| account["transaction_count"].as_i64().unwrap()).sum();
    let moved = log.events.iter().filter(|event| !matches!(&*event.event_type, "AccountFrozen" | "AccountUnfrozen"));
    assert_eq!(counted, i64::try_from(moved.count()).unwrap());
}

#[tokio::test]
async fn a_server_that_can_hold_hardly_anything_keeps_its_books() {
    let app = spawn_app_with(&["--cache-accounts=2", "--snapshot-every=3"]).await;
    load_all(&[&app]).await;
    audit(&app).await;
}

#[tokio::test]
async fn two_servers_that_hold_hardly_anything_keep_the_same_books() {
    let app = spawn_app_with(&["--cache-accounts=1", "--snapshot-every=1"]).await;
    let peer = app.spawn_peer().await;
    load_all(&[&app, &peer]).await;
    audit(&peer).await;
}

#[tokio::test]
async fn a_server_that_comes_and_goes_leaves_the_books_in_order() {
    let app = spawn_app().await;
    let mut peer = app.spawn_peer().await;
    let visits = async {
        let account = peer.client().open_with_balance(5).await;
        for _ in 0..4 {
            peer.client().deposit(account, 1).await.expect(201);
            peer.restart().await;
        }
    };
    let servers = [&app];
    tokio::join!(visits, load_all(&servers));
    audit(&app).await;
}
