//! A log with four partitions: transfers, keys, lists and rebuilds across partitions. These tests do not depend on the run's
//! number of partitions.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join_all;
use passbook::service::{Error, Service};
use passbook_audit::verify;
use passbook_event_store::Partitions;
use serde_json::{Value, json};
use sqlx::query_scalar;
use uuid::Uuid;

use crate::support::{
    ApiClient, App, Response, Rng,
    app::empty_database,
    audit::{audit, expected_hashes},
    eventually,
    proxy::{
        Flow::{self, Discard, Hold, Pass},
        Proxy, ProxyConnection,
    },
    spawn_app_behind_proxy, spawn_app_with,
};

const FOUR: &str = "--partitions=4";

fn four() -> Partitions {
    Partitions::new(4).unwrap()
}

/// Opens an account with this balance in a partition.
async fn open_in(client: &ApiClient, partition: i16, balance: i64) -> Uuid {
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
    assert_eq!(four().of(transfer), 0, "the transfer id leads to the paying account's partition");
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
        four().of(to) != event.partition
    });
    assert!(across.count() > 20, "many transfers are between partitions");
    let report = verify::verify(&app.auditor().await, four(), &[], |_, _| ()).await.unwrap();
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
        seen.insert(four().of(again.account_id()));
    }
    assert!(seen.len() > 1, "the accounts are in several partitions");
    assert_eq!(audit(&app).await.head.position, 12);
}

/// An app behind a proxy, accounts in partitions 1 and 2, and the connection of the executor for several partitions.
async fn spawn_with_two_accounts(flags: &[&str]) -> (App, Proxy, [Uuid; 2], ProxyConnection) {
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

/// Sends a transfer and cuts the connection at its commit.
async fn transfer_with_cut_commit(requests: Flow, responses: Flow, is_recorded: bool) -> (App, Response, [Uuid; 2]) {
    let (app, _proxy, accounts, writer) = spawn_with_two_accounts(&[]).await;
    writer.set_flow_from("COMMIT", requests, responses);
    let client = app.client();
    let cut = async {
        eventually("the commit request", async || (!writer.awaits_trigger()).then_some(())).await;
        if is_recorded {
            eventually("the log head at this position", async || (app.log().await.head.position == 6).then_some(())).await;
        }
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.transfer(accounts[0], accounts[1], 30), cut);
    (app, response, accounts)
}

#[tokio::test]
async fn committed_transfer_is_answered_after_a_lost_response() {
    let (app, response, accounts) = transfer_with_cut_commit(Pass, Discard, true).await;
    assert_moved_once(&app, response, accounts).await;
    assert_eq!(fences(&app).await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn transfer_with_a_lost_commit_is_retried_with_new_fences() {
    let (app, response, accounts) = transfer_with_cut_commit(Discard, Pass, false).await;
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
            eventually("the commit request", async || (!writer.awaits_trigger()).then_some(())).await;
            let position = if is_committed { 6 } else { 4 };
            eventually("the log head at this position", async || (app.log().await.head.position == position).then_some(())).await;
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
            eventually("a deposit by the peer", async || (keyed.deposit(account, 1).await.status == 201).then_some(())).await;
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
        let config = passbook::config::Config { partitions, ..app.config().clone() };
        match Service::start(&config).await {
            Ok(service) => {
                assert!(is_accepted, "{partitions:?}");
                service.stop().await;
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
    let start = async |partitions| Service::start(&passbook::config::Config { partitions, ..config.clone() }).await;
    let (two, eight) = tokio::join!(start(Some(2)), start(Some(8)));
    assert_eq!(two.is_ok(), eight.is_err(), "exactly one start succeeds: {two:?} {eight:?}");
    for service in [two, eight].into_iter().flatten() {
        service.stop().await;
    }
}

#[tokio::test]
async fn invalid_positions_and_cursors_are_refused() {
    let app = spawn_app_with(&[FOUR]).await;
    let account = open_in(&app.client(), 2, 5).await;
    let plain = ApiClient::new(reqwest::Client::new(), app.url());
    for position in ["1", "4:1", "0:1,9:1", "2:1,0:1", "2:x", "2:1,"] {
        for path in [format!("/v1/accounts/{account}?min_position="), "/v1/accounts?min_position=".to_owned()] {
            plain.get(&format!("{path}{position}")).await.expect_problem(400, "invalid_parameter");
        }
        plain.get(&format!("/v1/events?after={position}")).await.expect_problem(400, "invalid_parameter");
        plain.get(&format!("/v1/events/stream?after={position}")).await.expect_problem(400, "invalid_parameter");
    }
    for position in ["0", "2:1", "0:0,2:1"] {
        plain.get(&format!("/v1/accounts?min_position={position}")).await.expect(200);
        plain.get(&format!("/v1/events?after={position}")).await.expect(200);
    }
    plain.get(&format!("/v1/accounts/{account}?min_position=0:99")).await.expect(200);
    plain.get(&format!("/v1/accounts/{account}?min_position=2:99")).await.expect_problem(503, "projection_behind");
}

#[tokio::test]
async fn lists_and_totals_cover_all_partitions() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let mut accounts = Vec::new();
    for n in 0..11 {
        accounts.push(open_in(&client, n % 4, 10).await);
    }
    client.freeze(accounts[6]).await.expect(200);
    accounts.reverse();
    let mut listed: Vec<Uuid> = Vec::new();
    let mut after = String::new();
    while listed.len() < 100 {
        let page = client.get(&format!("/v1/accounts?limit=3&min_position=12{after}")).await.expect(200);
        assert_eq!(page.position(), app.latest_position());
        listed
            .extend(page.data().iter().map(|account| account["account_id"].as_str().unwrap().parse::<Uuid>().unwrap()));
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(listed, accounts, "newest first");
    let overview = client.get("/v1/overview?min_position=12").await.expect(200);
    let expected = json!({"open": 10, "frozen": 1, "closed": 0});
    assert_eq!((&overview.body["accounts"], &overview.body["money"]), (&expected, &json!({"EUR": 110})));
    assert_eq!(overview.position(), app.latest_position());
    let views = client.get("/v1/projections?min_position=12").await.expect(200);
    assert_eq!(views.data().len(), 4, "one row for each view");
    for view in views.data() {
        assert_eq!((&view["state"], &view["position"]), (&json!("live"), &json!(app.latest_position())));
    }
    let heads = client.get("/v1/log/head").await.expect(200);
    assert_eq!(
        heads.data().iter().map(|head| &head["position"]).collect::<Vec<_>>(),
        [3, 3, 4, 2].map(|n| json!(n)).iter().collect::<Vec<_>>()
    );
}

/// Asserts that the events are exactly the recorded ones, and in order within each partition.
fn assert_complete(received: &[Value], recorded: &[(i16, i64, Uuid)]) {
    let key = |event: &Value| {
        let (partition, position) = event["position"].as_str().unwrap().split_once(':').unwrap();
        let id: Uuid = event["id"].as_str().unwrap().parse().unwrap();
        (partition.parse::<i16>().unwrap(), position.parse::<i64>().unwrap(), id)
    };
    let mut by_partition: BTreeMap<i16, Vec<_>> = BTreeMap::new();
    received.iter().map(key).for_each(|event| by_partition.entry(event.0).or_default().push(event));
    assert!(by_partition.values().all(|events| events.is_sorted()), "in order: {by_partition:?}");
    let mut all: Vec<_> = by_partition.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, recorded);
}

async fn recorded_events(app: &App) -> Vec<(i16, i64, Uuid)> {
    let mut events: Vec<_> =
        app.log().await.events.iter().map(|event| (event.partition, event.position, event.id)).collect();
    events.sort_unstable();
    events
}

/// Deposits into the accounts in turn and transfers between them.
async fn run_movements(client: &ApiClient, accounts: &[Uuid], rounds: usize) {
    for round in 0..rounds {
        let (from, to) = (accounts[round % accounts.len()], accounts[(round * 3 + 1) % accounts.len()]);
        client.deposit(from, 5).await.expect(201);
        if from != to {
            client.transfer(from, to, 1).await.expect(201);
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_contain_each_event_of_all_partitions_once() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    // One partition has most of the events, and one has none.
    let accounts = [open_in(&client, 0, 9).await, open_in(&client, 2, 9).await, open_in(&client, 3, 9).await];
    run_movements(&client, &accounts, 8).await;
    for _ in 0..30 {
        client.deposit(accounts[1], 1).await.expect(201);
    }
    let all = recorded_events(&app).await;
    for limit in [1, 2, 3, 5, 7, 50, 1_000] {
        let (mut received, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let page = client.get(&format!("/v1/events?limit={limit}&after={after}")).await.expect(200);
            assert!(page.data().len() <= limit);
            received.extend_from_slice(page.data());
            let next = page.text("/next").to_owned();
            if next == after {
                break;
            }
            after = next;
        }
        assert_complete(&received, &all);
    }
    let (mut received, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = client.get(&format!("/v1/events?limit=2&type=TransferSent&after={after}")).await.expect(200);
        received.extend_from_slice(page.data());
        let next = page.text("/next").to_owned();
        if next == after {
            break;
        }
        after = next;
    }
    let sent = app.log().await.events.iter().filter(|event| event.event_type == "TransferSent").count();
    assert_eq!(received.len(), sent);
}

#[tokio::test]
async fn reconnecting_subscriber_gets_each_event_of_all_partitions() {
    let app = spawn_app_with(&[FOUR]).await;
    let peer = app.spawn_peer().await;
    let client = app.client();
    let accounts = join_all((0..4).map(|partition| open_in(&client, partition, 50))).await;
    let load = async {
        let (client, peer_client) = (app.client(), peer.client());
        tokio::join!(run_movements(&client, &accounts, 30), run_movements(&peer_client, &accounts, 30));
    };
    let subscribe_repeatedly = async |seed| {
        let mut rng = Rng::new(seed);
        let (mut received, mut last) = (Vec::new(), String::new());
        // 4 openings, and for each round one deposit, plus two events of a transfer if the accounts differ.
        let all = 4 + 2 * (0..30).map(|n| if n % 4 == (n * 3 + 1) % 4 { 1 } else { 3 }).sum::<usize>();
        while received.len() < all {
            let mut subscriber =
                if last.is_empty() { client.subscribe("").await } else { client.resume_after(&last).await };
            let some = usize::try_from(rng.below(20)).unwrap() + 1;
            for event in subscriber.take(some.min(all - received.len())).await {
                last = event.id;
                received.push(event.data);
            }
        }
        received
    };
    let ((), one, other) = tokio::join!(load, subscribe_repeatedly(1), subscribe_repeatedly(2));
    let all = recorded_events(&app).await;
    assert_complete(&one, &all);
    assert_complete(&other, &all);
}

#[tokio::test]
async fn verification_names_the_partition_of_a_change() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let accounts = join_all((0..4).map(|partition| open_in(&client, partition, 50))).await;
    run_movements(&client.with_key("only-once"), &accounts[..1], 1).await;
    client.with_key("across").transfer(accounts[1], accounts[3], 7).await.expect(201);
    audit(&app).await;
    let report = verify::verify(&app.auditor().await, four(), &[], |_, _| ()).await.unwrap();
    assert_eq!((report.events, report.receipts, report.partitions.len()), (7, 2, 4));
    let witness: Vec<passbook_audit::Witness> =
        report.witness().split(',').map(|witness| witness.parse().unwrap()).collect();
    verify::verify(&app.auditor().await, four(), &witness, |_, _| ()).await.unwrap();

    let found = async || match verify::verify(&app.auditor().await, four(), &[], |_, _| ()).await {
        Err(verify::Error::Broken(finding)) => (finding.partition, finding.position, finding.sentence),
        other => panic!("{other:?}"),
    };
    // Verification compares each side of a transfer's receipt in the partition of its account.
    let rewrite = async |from: &str, to: &str| {
        let (from, to) = (format!("\"balance\":{from},"), format!("\"balance\":{to},"));
        let sql = format!("SET receipt = replace(receipt::text, '{from}', '{to}')::json WHERE key = 'across'");
        app.tamper(&format!("UPDATE idempotency_key {sql}")).await;
    };
    for (half, partition) in [("43", 1), ("57", 3)] {
        rewrite(half, "1").await;
        let (at, position, sentence) = found().await;
        assert!((at, position) == (Some(partition), 2) && sentence.contains("across"), "{at:?} {position} {sentence}");
        rewrite("1", half).await;
    }
    app.tamper("UPDATE event SET data = replace(data::text, '50', '51')::json WHERE partition = 2").await;
    let (at, position, sentence) = found().await;
    assert!((at, position) == (Some(2), 1) && sentence.contains("changed"), "{sentence}");
}

#[tokio::test]
async fn verification_compares_both_sides_of_a_transfer() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (from, to) = (open_in(&client, 1, 50).await, open_in(&client, 3, 50).await);
    let moved = client.transfer(from, to, 7).await.expect(201);
    client.get_account(to, moved.position()).await.expect(200);
    // Changes one side's amount, recomputes the hashes of its partition, and removes the views.
    app.tamper("UPDATE event SET data = replace(data::text, '\"amount\":7', '\"amount\":8')::json WHERE partition = 3; DELETE FROM projection").await;
    let log = app.log().await;
    for (event, hash) in log.events.iter().zip(expected_hashes(&log.events)).filter(|(event, _)| event.partition == 3) {
        let hash = hex::encode(hash);
        let position = event.position;
        app.tamper(&format!("UPDATE event SET hash = decode('{hash}', 'hex') WHERE partition = 3 AND position = {position}; UPDATE log_head SET hash = decode('{hash}', 'hex') WHERE partition = 3")).await;
    }
    match verify::verify(&app.auditor().await, four(), &[], |_, _| ()).await {
        Err(verify::Error::Broken(finding)) => {
            let message = finding.to_string();
            assert!(finding.position == 2 && message.contains(&moved.uuid("/transfer_id").to_string()), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rebuild_covers_all_partitions() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let accounts = join_all((0..3).map(|partition| open_in(&client, partition, 50))).await;
    run_movements(&client, &accounts, 6).await;
    let started = client.post("/v1/projections/accounts/rebuild?verify=true", "").await.expect(202);
    assert_eq!(started.body["generation"], 2);
    eventually("generation 2", async || {
        let views = client.get("/v1/projections").await.expect(200);
        let live = views.data().iter().filter(|view| view["name"] == "accounts" && view["state"] == "live");
        let live: Vec<_> = live.map(|view| view["generation"].as_i64().unwrap()).collect();
        (live == [2]).then_some(())
    })
    .await;
    audit(&app).await;
    let seen = client.get(&format!("/v1/accounts/{}", accounts[2])).await.expect(200);
    assert!(seen.header("etag").unwrap().ends_with(".2\""));
}
