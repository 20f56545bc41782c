//! A log in four partitions, whatever the run's other logs have: what is over several of them is as whole as what is in
//! one.

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

/// An account with this balance in a partition.
async fn account_in(client: &ApiClient, partition: i16, balance: i64) -> Uuid {
    let body = json!({"currency": "EUR", "initial_deposit": balance, "account_id": four().new_id_in(partition)});
    client.open(body).await.expect(201).account_id()
}

#[tokio::test]
async fn a_transfer_over_two_partitions_is_one_fact_in_both() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (from, to) = (account_in(&client, 0, 100).await, account_in(&client, 3, 0).await);
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
    assert_eq!(four().of(transfer), 0, "it is looked for where the account that paid is");
    let seen = client.get(&format!("/v1/transfers/{transfer}?min_position={}", moved.position())).await.expect(200);
    assert_eq!((&seen.body["amount"], seen.position()), (&json!(30), "0:2"));
    let dry = client.dry_run().transfer(to, from, 1).await.expect(200);
    assert_eq!(dry.position(), "0:2,3:2", "the log's heads");
    client.transfer(from, to, 71).await.expect_problem(422, "insufficient_funds");
    assert_eq!(audit(&app).await.head.position, 4);
}

#[tokio::test]
async fn transfers_in_all_directions_on_two_servers_keep_the_sum() {
    let app = spawn_app_with(&[FOUR, "--cache-accounts=8"]).await;
    let peer = app.spawn_peer().await;
    let client = app.client();
    let accounts = join_all((0..12).map(|n| account_in(&client, n % 4, 50))).await;
    let crowd = (0..16).map(async |n| {
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
    join_all(crowd).await;
    let log = audit(&app).await;
    let across = log.events.iter().filter(|event| event.event_type == "TransferSent").filter(|event| {
        let to: Uuid = event.json()["to"].as_str().unwrap().parse().unwrap();
        four().of(to) != event.partition
    });
    assert!(across.count() > 20, "many lead over partitions");
    let report = verify::verify(&app.auditor().await, four(), &[], |_, _| ()).await.unwrap();
    assert_eq!(i64::try_from(log.events.len()).unwrap(), report.events);
}

#[tokio::test]
async fn an_open_without_an_id_that_is_tried_again_opens_one_account() {
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
    assert!(seen.len() > 1, "they are not all in one partition");
    assert_eq!(audit(&app).await.head.position, 12);
}

/// Two accounts in two partitions, and the connection on which the server writes to several.
async fn across(flags: &[&str]) -> (App, Proxy, [Uuid; 2], ProxyConnection) {
    let (app, proxy) = spawn_app_behind_proxy(&[&[FOUR], flags].concat()).await;
    let client = app.client();
    let accounts = [account_in(&client, 1, 100).await, account_in(&client, 2, 100).await];
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
    let told = response.expect(201);
    for (account, pointer) in [(from, "/from/events/0/id"), (to, "/to/events/0/id")] {
        let last = log.events.iter().rfind(|event| event.stream_id == account).unwrap();
        assert_eq!(told.uuid(pointer), last.id);
    }
}

async fn moved_although(requests: Flow, responses: Flow, is_recorded: bool) -> (App, Response, [Uuid; 2]) {
    let (app, _proxy, accounts, writer) = across(&[]).await;
    writer.set_flow_from("COMMIT", requests, responses);
    let client = app.client();
    let cut = async {
        eventually("the commit", async || (!writer.awaits_trigger()).then_some(())).await;
        if is_recorded {
            eventually("the record", async || (app.log().await.head.position == 6).then_some(())).await;
        }
        writer.cut();
    };
    let (response, ()) = tokio::join!(client.transfer(accounts[0], accounts[1], 30), cut);
    (app, response, accounts)
}

#[tokio::test]
async fn a_transfer_that_stands_is_answered_although_its_answer_was_lost() {
    let (app, response, accounts) = moved_although(Pass, Discard, true).await;
    assert_moved_once(&app, response, accounts).await;
    assert_eq!(fences(&app).await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_transfer_whose_commit_never_arrived_is_made_up_for_behind_new_fences() {
    let (app, response, accounts) = moved_although(Discard, Pass, false).await;
    assert_moved_once(&app, response, accounts).await;
    assert_eq!(fences(&app).await, [0, 1, 1, 0], "both sides, and nobody else");
}

#[tokio::test]
async fn a_transfer_whose_outcome_stays_unknown_is_carried_out_once_when_it_is_tried_again() {
    for (requests, stands) in [(Pass, true), (Discard, false)] {
        let (app, proxy, [from, to], writer) = across(&["--command-timeout-ms=2000"]).await;
        writer.set_flow_from("COMMIT", requests, Discard);
        let client = app.client().with_key("one");
        let part = async {
            eventually("the commit", async || (!writer.awaits_trigger()).then_some(())).await;
            let position = if stands { 6 } else { 4 };
            eventually("the record", async || (app.log().await.head.position == position).then_some(())).await;
            proxy.disconnect();
        };
        let (response, ()) = tokio::join!(client.transfer(from, to, 30), part);
        response.expect_problem(503, "outcome_unknown");
        proxy.reconnect();
        let again = client.transfer(from, to, 30).await.expect(201);
        assert!(again.is_replay() || !stands);
        assert_moved_once(&app, again, [from, to]).await;
    }
}

#[tokio::test]
async fn a_server_that_froze_inside_two_turnstiles_holds_nobody_up() {
    let (app, _proxy, [from, to], writer) = across(&[]).await;
    let peer = app.spawn_peer().await;
    writer.set_flow_from("COMMIT", Hold, Pass);
    let client = app.client();
    let others = async {
        eventually("the commit", async || writer.is_holding_request().then_some(())).await;
        let there = peer.client();
        for (account, key) in [(from, "one"), (to, "other")] {
            let keyed = there.with_key(key);
            eventually("a way past", async || (keyed.deposit(account, 1).await.status == 201).then_some(())).await;
        }
        writer.set_flow(Pass, Pass);
    };
    let (here, ()) = tokio::join!(client.transfer(from, to, 1), others);
    here.expect(201);
    assert_eq!(audit(&app).await.event_payloads(from).len(), 4);
}

#[tokio::test]
async fn a_key_is_of_one_request_within_its_accounts_partition() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (here, beside, there) =
        (account_in(&client, 1, 100).await, account_in(&client, 1, 0).await, account_in(&client, 2, 100).await);
    let keyed = client.with_key("one");
    keyed.deposit(here, 5).await.expect(201);
    keyed.deposit(beside, 5).await.expect_problem(422, "idempotency_key_reused");
    keyed.transfer(here, there, 5).await.expect_problem(422, "idempotency_key_reused");
    keyed.transfer(here, beside, 5).await.expect_problem(422, "idempotency_key_reused");
    assert!(!keyed.transfer(there, here, 5).await.expect(201).is_replay());
    assert!(keyed.transfer(there, here, 5).await.expect(201).is_replay());
    assert!(keyed.deposit(here, 5).await.expect(201).is_replay());
    audit(&app).await;
}

#[tokio::test]
async fn the_same_key_on_transfers_from_two_partitions_in_one_batch_stands_for_both() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (one, other) = (account_in(&client, 0, 100).await, account_in(&client, 3, 100).await);
    let keyed = client.with_key("same");
    let (there, back, again) = app
        .run_as_one_batch(async {
            tokio::join!(keyed.transfer(one, other, 10), keyed.transfer(other, one, 20), keyed.transfer(one, other, 10))
        })
        .await;
    assert_eq!(there.expect(201).bytes, again.expect(201).bytes);
    assert_eq!(back.expect(201).body["amount"], 20);
    let log = audit(&app).await;
    assert_eq!((log.event_payloads(one).len(), log.event_payloads(other).len(), log.keys), (3, 3, 2));
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_and_none_takes_what_is_there() {
    let mut app = spawn_app_with(&[FOUR]).await;
    let account = account_in(&app.client(), 3, 5).await;
    app.stop().await;
    for (partitions, fits) in [(Some(1), false), (Some(8), false), (Some(4), true), (None, true)] {
        let config = passbook::config::Config { partitions, ..app.config().clone() };
        match Service::start(&config).await {
            Ok(service) => {
                assert!(fits, "{partitions:?}");
                service.stop().await;
            }
            Err(error) => {
                assert!(!fits && matches!(error, Error::Partitions { found: 4, .. }), "{error}");
                let told = error.to_string();
                assert!(told.contains("created with 4 partitions") && told.contains("passbook copy"), "{told}");
            }
        }
    }
    app.start_again().await;
    assert_eq!(app.client().withdraw(account, 5).await.expect(201).body["balance"], 0);
}

#[tokio::test]
async fn of_servers_that_create_a_log_together_the_first_decides_for_all() {
    let (_database, config) = empty_database(&[]).await;
    let start = async |partitions| Service::start(&passbook::config::Config { partitions, ..config.clone() }).await;
    let (two, eight) = tokio::join!(start(Some(2)), start(Some(8)));
    assert_eq!(two.is_ok(), eight.is_err(), "one of both: {two:?} {eight:?}");
    for service in [two, eight].into_iter().flatten() {
        service.stop().await;
    }
}

#[tokio::test]
async fn positions_and_cursors_of_other_partitions_are_refused() {
    let app = spawn_app_with(&[FOUR]).await;
    let account = account_in(&app.client(), 2, 5).await;
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
async fn lists_and_totals_are_of_all_partitions() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let mut accounts = Vec::new();
    for n in 0..11 {
        accounts.push(account_in(&client, n % 4, 10).await);
    }
    client.freeze(accounts[6]).await.expect(200);
    accounts.reverse();
    let mut walked: Vec<Uuid> = Vec::new();
    let mut after = String::new();
    while walked.len() < 100 {
        let page = client.get(&format!("/v1/accounts?limit=3&min_position=12{after}")).await.expect(200);
        assert_eq!(page.position(), app.latest_position());
        walked
            .extend(page.data().iter().map(|account| account["account_id"].as_str().unwrap().parse::<Uuid>().unwrap()));
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(walked, accounts, "newest first");
    let overview = client.get("/v1/overview?min_position=12").await.expect(200);
    let expected = json!({"open": 10, "frozen": 1, "closed": 0});
    assert_eq!((&overview.body["accounts"], &overview.body["money"]), (&expected, &json!({"EUR": 110})));
    assert_eq!(overview.position(), app.latest_position());
    let views = client.get("/v1/projections?min_position=12").await.expect(200);
    assert_eq!(views.data().len(), 4, "one row a view");
    for view in views.data() {
        assert_eq!((&view["state"], &view["position"]), (&json!("live"), &json!(app.latest_position())));
    }
    let heads = client.get("/v1/log/head").await.expect(200);
    assert_eq!(
        heads.data().iter().map(|head| &head["position"]).collect::<Vec<_>>(),
        [3, 3, 4, 2].map(|n| json!(n)).iter().collect::<Vec<_>>()
    );
}

/// Every event once, and each partition's in its order.
fn assert_whole(told: &[Value], app_events: &[(i16, i64, Uuid)]) {
    let place = |event: &Value| {
        let (partition, position) = event["position"].as_str().unwrap().split_once(':').unwrap();
        let id: Uuid = event["id"].as_str().unwrap().parse().unwrap();
        (partition.parse::<i16>().unwrap(), position.parse::<i64>().unwrap(), id)
    };
    let mut lanes: BTreeMap<i16, Vec<_>> = BTreeMap::new();
    told.iter().map(place).for_each(|event| lanes.entry(event.0).or_default().push(event));
    assert!(lanes.values().all(|lane| lane.is_sorted()), "in order: {lanes:?}");
    let mut all: Vec<_> = lanes.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, app_events);
}

async fn recorded_events(app: &App) -> Vec<(i16, i64, Uuid)> {
    let mut events: Vec<_> =
        app.log().await.events.iter().map(|event| (event.partition, event.position, event.id)).collect();
    events.sort_unstable();
    events
}

/// Something happens in every partition, and across.
async fn bustle(client: &ApiClient, accounts: &[Uuid], rounds: usize) {
    for round in 0..rounds {
        let (from, to) = (accounts[round % accounts.len()], accounts[(round * 3 + 1) % accounts.len()]);
        client.deposit(from, 5).await.expect(201);
        if from != to {
            client.transfer(from, to, 1).await.expect(201);
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_lead_over_all_partitions_without_loss_or_double() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    // One partition has most of it, and one has nothing.
    let accounts = [account_in(&client, 0, 9).await, account_in(&client, 2, 9).await, account_in(&client, 3, 9).await];
    bustle(&client, &accounts, 8).await;
    for _ in 0..30 {
        client.deposit(accounts[1], 1).await.expect(201);
    }
    let all = recorded_events(&app).await;
    for limit in [1, 2, 3, 5, 7, 50, 1_000] {
        let (mut told, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let page = client.get(&format!("/v1/events?limit={limit}&after={after}")).await.expect(200);
            assert!(page.data().len() <= limit);
            told.extend_from_slice(page.data());
            let next = page.text("/next").to_owned();
            if next == after {
                break;
            }
            after = next;
        }
        assert_whole(&told, &all);
    }
    let (mut told, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = client.get(&format!("/v1/events?limit=2&type=TransferSent&after={after}")).await.expect(200);
        told.extend_from_slice(page.data());
        let next = page.text("/next").to_owned();
        if next == after {
            break;
        }
        after = next;
    }
    let sent = app.log().await.events.iter().filter(|event| event.event_type == "TransferSent").count();
    assert_eq!(told.len(), sent);
}

#[tokio::test]
async fn a_follower_that_comes_and_goes_is_told_every_event_of_every_partition_once() {
    let app = spawn_app_with(&[FOUR]).await;
    let peer = app.spawn_peer().await;
    let client = app.client();
    let accounts = join_all((0..4).map(|partition| account_in(&client, partition, 50))).await;
    let busy = async {
        let (here, there) = (app.client(), peer.client());
        tokio::join!(bustle(&here, &accounts, 30), bustle(&there, &accounts, 30));
    };
    let follow = async |seed| {
        let mut rng = Rng::new(seed);
        let (mut told, mut last) = (Vec::new(), String::new());
        // 4 openings, 60 deposits, and two events for each of the 40 or so transfers that are over two accounts.
        let all = 4 + 2 * (0..30).map(|n| if n % 4 == (n * 3 + 1) % 4 { 1 } else { 3 }).sum::<usize>();
        while told.len() < all {
            let mut subscriber =
                if last.is_empty() { client.subscribe("").await } else { client.resume_after(&last).await };
            let some = usize::try_from(rng.below(20)).unwrap() + 1;
            for event in subscriber.take(some.min(all - told.len())).await {
                last = event.id;
                told.push(event.data);
            }
        }
        told
    };
    let ((), one, other) = tokio::join!(busy, follow(1), follow(2));
    let all = recorded_events(&app).await;
    assert_whole(&one, &all);
    assert_whole(&other, &all);
}

#[tokio::test]
async fn what_is_changed_in_any_partition_is_found_there() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let accounts = join_all((0..4).map(|partition| account_in(&client, partition, 50))).await;
    bustle(&client.with_key("only-once"), &accounts[..1], 1).await;
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
    // Both halves of a receipt are compared, each where its account is.
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
async fn half_a_transfer_is_found_although_its_partition_is_whole() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let (from, to) = (account_in(&client, 1, 50).await, account_in(&client, 3, 50).await);
    let moved = client.transfer(from, to, 7).await.expect(201);
    client.get_account(to, moved.position()).await.expect(200);
    // A superuser who can count: another amount, fitting hashes, and no view that knows better.
    app.tamper("UPDATE event SET data = replace(data::text, '\"amount\":7', '\"amount\":8')::json WHERE partition = 3; DELETE FROM projection").await;
    let log = app.log().await;
    for (event, hash) in log.events.iter().zip(expected_hashes(&log.events)).filter(|(event, _)| event.partition == 3) {
        let hash = hex::encode(hash);
        let position = event.position;
        app.tamper(&format!("UPDATE event SET hash = decode('{hash}', 'hex') WHERE partition = 3 AND position = {position}; UPDATE log_head SET hash = decode('{hash}', 'hex') WHERE partition = 3")).await;
    }
    match verify::verify(&app.auditor().await, four(), &[], |_, _| ()).await {
        Err(verify::Error::Broken(finding)) => {
            let told = finding.to_string();
            assert!(finding.position == 2 && told.contains(&moved.uuid("/transfer_id").to_string()), "{told}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_view_is_rebuilt_in_all_partitions() {
    let app = spawn_app_with(&[FOUR]).await;
    let client = app.client();
    let accounts = join_all((0..3).map(|partition| account_in(&client, partition, 50))).await;
    bustle(&client, &accounts, 6).await;
    let started = client.post("/v1/projections/accounts/rebuild?verify=true", "").await.expect(202);
    assert_eq!(started.body["generation"], 2);
    eventually("the next generation", async || {
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
