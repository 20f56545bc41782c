//! Reads of a log with four partitions: lists, totals, event pages, the feed, verification and rebuilds cover all of
//! them.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use passbook_audit::verification::{self, PinnedHead};
use passbook_testkit::{
    ApiClient, App, Rng,
    audit::{audit, expected_hashes},
    eventually, spawn_app_with,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::partitions::{FOUR, four, open_in};

#[tokio::test]
async fn invalid_positions_and_cursors_are_refused() {
    let app = spawn_app_with(&[FOUR]).await;
    let account = open_in(&app.client(), 2, 5).await;
    let plain = ApiClient::new(passbook_testkit::http_client().build().unwrap(), app.url());
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
    assert_eq!((&overview.body["accounts"], &overview.body["money"]), (&expected, &json!({"EUR": "110"})));
    assert_eq!(overview.position(), app.latest_position());
    let views = client.get("/v1/projections?min_position=12").await.expect(200);
    assert_eq!(views.data().len(), 6, "one row for each view");
    for view in views.data() {
        assert_eq!((&view["state"], &view["position"]), (&json!("live"), &json!(app.latest_position())));
    }
    let heads = client.get("/v1/log/head").await.expect(200);
    assert_eq!(
        heads.data().iter().map(|head| &head["position"]).collect::<Vec<_>>(),
        ["0:3", "1:3", "2:4", "3:2"].map(|position| json!(position)).iter().collect::<Vec<_>>()
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
    let report = verification::verify(&app.auditor().await, four(), &[], |_, _| ()).await.unwrap();
    assert_eq!((report.events, report.receipts, report.partitions.len()), (7, 2, 4));
    let heads: Vec<PinnedHead> = report.heads_to_pin().split(',').map(|head| head.parse().unwrap()).collect();
    verification::verify(&app.auditor().await, four(), &heads, |_, _| ()).await.unwrap();

    let found = async || match verification::verify(&app.auditor().await, four(), &[], |_, _| ()).await {
        Err(verification::Error::Inconsistent(finding)) => (finding.partition, finding.position, finding.message),
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
        let (at, position, message) = found().await;
        assert!((at, position) == (Some(partition), 2) && message.contains("across"), "{at:?} {position} {message}");
        rewrite("1", half).await;
    }
    app.tamper("UPDATE event SET data = replace(data::text, '50', '51')::json WHERE partition = 2").await;
    let (at, position, message) = found().await;
    assert!((at, position) == (Some(2), 1) && message.contains("changed"), "{message}");
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
    match verification::verify(&app.auditor().await, four(), &[], |_, _| ()).await {
        Err(verification::Error::Inconsistent(finding)) => {
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
