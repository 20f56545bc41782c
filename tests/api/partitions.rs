//! Commands on a log with four partitions: transfers between partitions, idempotency keys, and the fixed number of
//! partitions. The tests do not depend on the run's number of partitions.

use std::collections::HashSet;

use futures_util::future::join_all;
use passbook::config::{Config, PartitionArgs};
use passbook::service::{Error, Service};
use passbook_audit::verification;
use passbook_event_store::Partitions;
use passbook_testkit::{
    ApiClient, App, Response, Rng,
    app::empty_database,
    audit::audit,
    eventually,
    fault_proxy::{
        FaultProxy,
        Flow::{self, Discard, Hold, Pass},
        ProxyConnection,
    },
    spawn_app_behind_proxy, spawn_app_with,
};
use serde_json::json;
use sqlx::query_scalar;
use uuid::Uuid;

pub const FOUR: &str = "--partitions=4";

pub fn four() -> Partitions {
    Partitions::new(4).unwrap()
}

/// Opens an account with this balance in a partition.
pub async fn open_in(client: &ApiClient, partition: i16, balance: i64) -> Uuid {
    let body = json!({"currency": "EUR", "initial_deposit": balance, "account_id": four().new_id_in(partition)});
    client.open(body).await.expect(201).account_id()
}

#[tokio::test]
async fn transfer_between_partitions_is_atomic() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (from, to) = (open_in(&client, 0, 100).await, open_in(&client, 3, 0).await);
    let moved = client.with_key("rent").transfer(from, to, 30).await.expect(201);
    let body = &moved.body;
    assert_eq!((moved.position(), moved.text("/position")), ("0:2,3:2", "0:2,3:2"));
    assert_eq!((moved.text("/from/position"), moved.text("/to/position")), ("0:2", "3:2"));
    assert_eq!((&body["from"]["balance"], &body["to"]["balance"]), (&json!(70), &json!(30)));
    assert_eq!(body["from"]["events"][0]["recorded_at"], body["to"]["events"][0]["recorded_at"]);
    for (account, balance, position) in [(from, 70, "0:2"), (to, 30, "3:2")] {
        let seen = client.get_account(account, moved.position()).await.expect(200);
        assert_eq!((&seen.body["balance"], seen.position()), (&json!(balance), position));
    }
    let again = client.with_key("rent").transfer(from, to, 30).await.expect(201);
    assert!(again.is_replay() && again.bytes == moved.bytes);
    let transfer = moved.uuid("/transfer_id");
    assert_eq!(four().partition_of(transfer), 0, "the transfer id leads to the paying account's partition");
    let seen = client.get(&format!("/v1/transfers/{transfer}?min_position={}", moved.position())).await.expect(200);
    assert_eq!((&seen.body["amount"], seen.position()), (&json!(30), "0:2"));
    let dry = client.dry_run().transfer(to, from, 1).await.expect(200);
    assert_eq!(dry.position(), "0:2,3:2", "the heads of both partitions");
    client.transfer(from, to, 71).await.expect_problem(422, "insufficient_funds");
    assert_eq!(audit(&app).await.head.position, 4);
}

#[tokio::test]
async fn transfers_between_partitions_on_two_instances_keep_the_sum() {
    let app = spawn_app_with(&[FOUR, "--cache-accounts=8"]).await;
    let peer = app.spawn_peer().await;
    let client = app.client();
    let accounts = join_all((0..12).map(|n| open_in(&client, n % 4, 50))).await;
    let clients = (0..16).map(async |n| {
        let client = if n % 2 == 0 { app.client() } else { peer.client() };
        let mut rng = Rng::new(n);
        for round in 0..12 {
            let [from, to] = [(); 2].map(|()| accounts[usize::try_from(rng.below(12)).unwrap()]);
            let amount = i64::try_from(rng.below(60)).unwrap() + 1;
            let keyed = client.with_key(&format!("{n}-{round}"));
            let response = match rng.below(5) {
                0 => keyed.deposit(from, amount).await,
                1 => keyed.withdraw(from, amount).await,
                _ if from == to => continue,
                _ => {
                    let first = keyed.transfer(from, to, amount).await;
                    let again = keyed.transfer(from, to, amount).await;
                    assert!(first.status != 201 || (again.is_replay() && again.bytes == first.bytes));
                    first
                }
            };
            assert!(response.status == 201 || response.status == 422, "{}", response.body);
        }
    });
    join_all(clients).await;
    let log = audit(&app).await;
    let across = log.events.iter().filter(|event| event.event_type == "TransferSent").filter(|event| {
        let to: Uuid = event.json()["to"].as_str().unwrap().parse().unwrap();
        four().partition_of(to) != event.partition
    });
    assert!(across.count() > 20, "many transfers are between partitions");
    let report = verification::verify(&app.auditor().await, four(), &[], |_, _| ()).await.unwrap();
    assert_eq!(i64::try_from(log.events.len()).unwrap(), report.events);
}

#[tokio::test]
async fn retried_open_without_id_opens_one_account() {
    let mut app = spawn_app_with(&[FOUR]).await;
    let mut seen = HashSet::new();
    for n in 0..12 {
        let open = async |app: &App| app.client().with_key(&format!("open-{n}")).open(json!({"currency": "EUR"})).await;
        let (one, two) = tokio::join!(open(&app), open(&app));
        assert_eq!(one.expect(201).account_id(), two.expect(201).account_id());
        if n == 5 {
            app.restart().await;
        }
        let again = open(&app).await.expect(201);
        assert!(again.is_replay());
        seen.insert(four().partition_of(again.account_id()));
    }
    assert!(seen.len() > 1, "the accounts are in several partitions");
    assert_eq!(audit(&app).await.head.position, 12);
}

/// An app behind a proxy, accounts in partitions 1 and 2, and the connection of the executor for several partitions.
async fn spawn_with_two_accounts(flags: &[&str]) -> (App, FaultProxy, [Uuid; 2], ProxyConnection) {
    let (app, proxy) = spawn_app_behind_proxy(&[&[FOUR], flags].concat()).await;
    let client = app.client();
    let accounts = [open_in(&client, 1, 100).await, open_in(&client, 2, 100).await];
    client.transfer(accounts[0], accounts[1], 1).await.expect(201);
    let writer = proxy.newest_connection("passbook writer").await;
    (app, proxy, accounts, writer)
}

async fn fences(app: &App) -> Vec<i64> {
    let fences = query_scalar("SELECT fence FROM log_head ORDER BY partition");
    fences.fetch_all(&mut app.database().await).await.unwrap()
}

async fn assert_moved_once(app: &App, response: Response, [from, to]: [Uuid; 2]) {
    let log = audit(app).await;
    assert_eq!((log.event_payloads(from).len(), log.event_payloads(to).len()), (3, 3));
    let receipt = response.expect(201);
    for (account, pointer) in [(from, "/from/events/0/id"), (to, "/to/events/0/id")] {
        let last = log.events.iter().rfind(|event| event.stream_id == account).unwrap();
        assert_eq!(receipt.uuid(pointer), last.id);
    }
}

/// Sends a transfer and cuts the connection at its commit. The proxy must outlive the audit: the projectors use it, too.
async fn transfer_with_cut_commit(
    requests: Flow,
    responses: Flow,
    is_recorded: bool,
) -> (App, FaultProxy, Response, [Uuid; 2]) {
    let (app, proxy, accounts, writer) = spawn_with_two_accounts(&[]).await;
    writer.set_flow_from("COMMIT", requests, responses);
    let client = app.client();
    let cut = async {
        eventually("the commit request", async || (!writer.is_rule_pending()).then_some(())).await;
        if is_recorded {
            eventually("the log head at this position", async || (app.log().await.head.position == 6).then_some(()))
                .await;
        }
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.transfer(accounts[0], accounts[1], 30), cut);
    (app, proxy, response, accounts)
}

#[tokio::test]
async fn committed_transfer_is_answered_after_a_lost_response() {
    let (app, _proxy, response, accounts) = transfer_with_cut_commit(Pass, Discard, true).await;
    assert_moved_once(&app, response, accounts).await;
    assert_eq!(fences(&app).await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn transfer_with_a_lost_commit_is_retried_with_new_fences() {
    let (app, _proxy, response, accounts) = transfer_with_cut_commit(Discard, Pass, false).await;
    assert_moved_once(&app, response, accounts).await;
    assert_eq!(fences(&app).await, [0, 1, 1, 0], "only the fences of both partitions were raised");
}

#[tokio::test]
async fn retried_transfer_after_unknown_outcome_executes_once() {
    for (requests, is_committed) in [(Pass, true), (Discard, false)] {
        let (app, proxy, [from, to], writer) = spawn_with_two_accounts(&["--command-timeout-ms=2000"]).await;
        writer.set_flow_from("COMMIT", requests, Discard);
        let client = app.client().with_key("one");
        let disconnect = async {
            eventually("the commit request", async || (!writer.is_rule_pending()).then_some(())).await;
            let position = if is_committed { 6 } else { 4 };
            eventually("the log head at this position", async || {
                (app.log().await.head.position == position).then_some(())
            })
            .await;
            proxy.disconnect();
        };
        let (response, ()) = tokio::join!(client.transfer(from, to, 30), disconnect);
        response.expect_problem(503, "outcome_unknown");
        proxy.reconnect();
        let again = client.transfer(from, to, 30).await.expect(201);
        assert!(again.is_replay() || !is_committed);
        assert_moved_once(&app, again, [from, to]).await;
    }
}

#[tokio::test]
async fn instance_frozen_with_two_head_locks_does_not_block_others() {
    let (app, _proxy, [from, to], writer) = spawn_with_two_accounts(&[]).await;
    let peer = app.spawn_peer().await;
    writer.set_flow_from("COMMIT", Hold, Pass);
    let client = app.client();
    let peer_commands = async {
        eventually("the held commit", async || writer.is_holding_request().then_some(())).await;
        let peer_client = peer.client();
        for (account, key) in [(from, "one"), (to, "other")] {
            let keyed = peer_client.with_key(key);
            eventually("a deposit by the peer", async || (keyed.deposit(account, 1).await.status == 201).then_some(()))
                .await;
        }
        writer.set_flow(Pass, Pass);
    };
    let (response, ()) = tokio::join!(client.transfer(from, to, 1), peer_commands);
    response.expect(201);
    assert_eq!(audit(&app).await.event_payloads(from).len(), 4);
}

#[tokio::test]
async fn key_is_unique_within_the_partition_of_its_account() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (account, same_partition, other_partition) =
        (open_in(&client, 1, 100).await, open_in(&client, 1, 0).await, open_in(&client, 2, 100).await);
    let keyed = client.with_key("one");
    keyed.deposit(account, 5).await.expect(201);
    keyed.deposit(same_partition, 5).await.expect_problem(422, "idempotency_key_reused");
    keyed.transfer(account, other_partition, 5).await.expect_problem(422, "idempotency_key_reused");
    keyed.transfer(account, same_partition, 5).await.expect_problem(422, "idempotency_key_reused");
    assert!(!keyed.transfer(other_partition, account, 5).await.expect(201).is_replay());
    assert!(keyed.transfer(other_partition, account, 5).await.expect(201).is_replay());
    assert!(keyed.deposit(account, 5).await.expect(201).is_replay());
    audit(&app).await;
}

#[tokio::test]
async fn same_key_from_two_partitions_in_one_batch_is_two_requests() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (one, other) = (open_in(&client, 0, 100).await, open_in(&client, 3, 100).await);
    let keyed = client.with_key("same");
    let (first, opposite, repeated) = app
        .run_as_one_batch(async {
            tokio::join!(keyed.transfer(one, other, 10), keyed.transfer(other, one, 20), keyed.transfer(one, other, 10))
        })
        .await;
    assert_eq!(first.expect(201).bytes, repeated.expect(201).bytes);
    assert_eq!(opposite.expect(201).body["amount"], 20);
    let log = audit(&app).await;
    assert_eq!((log.event_payloads(one).len(), log.event_payloads(other).len(), log.keys), (3, 3, 2));
}

#[tokio::test]
async fn start_refuses_another_number_of_partitions() {
    let mut app = spawn_app_with(&[FOUR]).await;
    let account = open_in(&app.client(), 3, 5).await;
    app.stop().await;
    for (partitions, is_accepted) in [(Some(1), false), (Some(8), false), (Some(4), true), (None, true)] {
        let config = Config { partitions: PartitionArgs { partitions }, ..app.config().clone() };
        match Service::start(&config).await {
            Ok(service) => {
                assert!(is_accepted, "{partitions:?}");
                service.stop().await.unwrap();
            }
            Err(error) => {
                assert!(!is_accepted && matches!(error, Error::Partitions { found: 4, .. }), "{error}");
                let message = error.to_string();
                assert!(message.contains("4 partitions") && message.contains("passbook copy"), "{message}");
            }
        }
    }
    app.start_again().await;
    assert_eq!(app.client().withdraw(account, 5).await.expect(201).body["balance"], 0);
}

#[tokio::test]
async fn first_of_two_concurrent_starts_fixes_the_partitions() {
    let (_database, config) = empty_database(&[]).await;
    let start =
        async |partitions| Service::start(&Config { partitions: PartitionArgs { partitions }, ..config.clone() }).await;
    let (two, eight) = tokio::join!(start(Some(2)), start(Some(8)));
    assert_eq!(two.is_ok(), eight.is_err(), "exactly one start succeeds: {two:?} {eight:?}");
    for service in [two, eight].into_iter().flatten() {
        service.stop().await.unwrap();
    }
}
