//! A statement under a lock returns few bytes, however long the texts are: a server process that waits in the middle of a response,
//! because its client is frozen, keeps the lock without a time limit.

use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use passbook_audit::verification;
use passbook_event_store::{
    locked_read::LOCKED_READ_BYTES_MAX,
    log::{self, Batch, Head, Key, KeyId, Outcome},
};
use passbook_testkit::{App, audit::audit, spawn_app, spawn_app_in_one_partition};
use serde_json::{Map, Value, json};
use sqlx::{Connection, query_as};
use uuid::Uuid;

/// As many events as the statement reads that takes the log-head lock.
const EVENTS: usize = 16;

/// The number of events in the response of the statement that takes the lock, and the bytes of their data.
async fn locked_response(app: &App, known: &Head) -> (i64, i64) {
    let sql = "SELECT count(stream_id), coalesce(sum(octet_length(data)), 0)::bigint
               FROM lock_head_and_read_since($1, $2, $3, $4, 192)";
    query_as(sql)
        .bind(app.partition_under_test())
        .bind(known.position)
        .bind(EVENTS as i64)
        .bind(LOCKED_READ_BYTES_MAX as i64)
        .fetch_one(&mut app.database().await)
        .await
        .unwrap()
}

fn metadata(value_characters: usize) -> Value {
    let pairs = (0..20).map(|n| (format!("{n:02}{}", "ä".repeat(38)), json!("😀".repeat(value_characters))));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

#[tokio::test]
async fn events_with_the_longest_metadata_are_read_in_slices() {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let partition = app.partition_under_test();
    let (client, peer_client) = (app.client(), peer.client());
    let account = client.open_with_balance(0).await;
    for (value_characters, fits) in [(0, true), (20, false), (500, false)] {
        // The peer caches the account.
        peer_client.deposit(account, 1).await.expect(201);
        let known = log::head(&mut app.database().await, partition).await.unwrap();
        for _ in 0..EVENTS {
            let body = json!({"amount": 1, "metadata": metadata(value_characters)});
            client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
        }
        let (events, bytes) = locked_response(&app, &known).await;
        assert_eq!(events, if fits { EVENTS as i64 + 1 } else { 0 }, "{value_characters} characters");
        assert!(bytes <= LOCKED_READ_BYTES_MAX as i64, "{bytes} bytes in one response");

        let mut connection = app.database().await;
        let mut transaction = connection.begin().await.unwrap();
        let read = log::lock_head_and_read_since(&mut transaction, partition, Some(&known), EVENTS as i64);
        let (head, events) = read.await.unwrap();
        let versions: Vec<i64> = events.expect("the events").iter().map(|event| event.version).collect();
        assert_eq!((head.position - known.position, versions.len()), (EVENTS as i64, EVENTS));
        assert!(versions.is_sorted(), "{versions:?}");
        transaction.rollback().await.unwrap();
        let all = peer_client.withdraw(account, EVENTS as i64 + 1).await.expect(201);
        assert_eq!(all.body["balance"], 0, "the peer decides on all events");
    }
    audit(&app).await;
}

/// The keys of each response, until no key is left. The last call succeeds.
async fn responses(app: &App, head: &Head, mut asked: Vec<KeyId>, appends: bool) -> Vec<Vec<Key>> {
    let (mut connection, partition) = (app.database().await, app.partition_under_test());
    let mut responses = Vec::new();
    loop {
        let recorded_at = head.recorded_at + TimeDelta::microseconds(1);
        let outcome = if appends {
            let batch = Batch { recorded_at, keys_to_check: asked.clone(), ..Batch::default() };
            log::append(&mut connection, partition, head, &batch).await.unwrap()
        } else {
            log::check_head_and_keys(&mut connection, partition, head, recorded_at, &asked).await.unwrap()
        };
        match outcome {
            Outcome::KeysRecorded(found) => {
                asked.retain(|id| found.iter().all(|key| key.id != *id));
                responses.push(found);
            }
            Outcome::Done(_) => return responses,
            Outcome::HeadMoved => panic!("the head has moved"),
        }
    }
}

#[tokio::test]
async fn recorded_keys_are_returned_up_to_the_bytes_of_one_response() {
    let app = spawn_app_in_one_partition().await;
    let partition = app.partition_under_test();
    let head = log::head(&mut app.database().await, partition).await.unwrap();
    let sizes = [25_000; 3].into_iter().chain([300; 100]);
    let keys: Vec<Key> = sizes
        .enumerate()
        .map(|(number, bytes)| Key {
            id: KeyId { caller: "anonymous".into(), key: format!("key-{number}") },
            fingerprint: vec![0; 32],
            receipt: json!("x".repeat(bytes)).to_string(),
        })
        .collect();
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id.clone()).collect();
    let batch = Batch { recorded_at: Utc::now().max(head.recorded_at), keys, ..Batch::default() };
    let Outcome::Done(head) = log::append(&mut app.database().await, partition, &head, &batch).await.unwrap() else {
        panic!("the keys are not recorded");
    };
    for appends in [false, true] {
        let responses = responses(&app, &head, ids.clone(), appends).await;
        let bytes = |keys: &[Key]| keys.iter().map(|key| key.receipt.len()).sum::<usize>();
        assert!(responses.iter().all(|keys| keys.len() == 1 || bytes(keys) < LOCKED_READ_BYTES_MAX));
        assert_eq!(responses.iter().map(Vec::len).sum::<usize>(), ids.len());
        assert_eq!(responses[0].len(), 1, "the second key does not fit");
        assert!(responses.len() < 8, "{} responses", responses.len());
    }
}

#[tokio::test]
async fn views_go_on_after_a_restart_on_accounts_with_many_holds() {
    let mut app = spawn_app().await;
    let client = app.client();
    let mut accounts: Vec<(Uuid, Uuid)> = Vec::new();
    for _ in 0..3 {
        let account = client.open_with_balance(1_000).await;
        let placed = join_all((0..150).map(|_| client.place_hold(account, json!({"amount": 2})))).await;
        let holds: Vec<Uuid> = placed.into_iter().map(|placed| placed.expect(201).uuid("/hold/hold_id")).collect();
        accounts.push((account, holds[75]));
    }
    app.wait_until_projected().await;
    // The projections have cached nothing. The holds of all accounts are more than one response contains.
    app.restart().await;
    let client = app.client();
    let captures = join_all(accounts.iter().map(|(account, hold)| client.capture_hold(*account, *hold, json!({}))));
    let captured = app.run_as_one_batch(captures).await;
    for ((account, hold), captured) in accounts.iter().zip(captured) {
        let captured = captured.expect(201);
        for moment in [format!("min_position={}", captured.position()), format!("as_of_version={}", 152)] {
            let view = client.get(&format!("/v1/accounts/{account}?{moment}")).await.expect(200).body;
            let money = ["balance", "held", "available"].map(|member| view[member].as_i64().unwrap());
            assert_eq!(money, [998, 298, 700], "{moment}");
        }
        let ended = client.get(&format!("/v1/accounts/{account}/holds/{hold}")).await.expect(200).body;
        assert_eq!(ended["status"], "captured");
        let active = client.get(&format!("/v1/accounts/{account}/holds?status=active&limit=200")).await.expect(200);
        assert_eq!(active.data().len(), 149);
    }
    audit(&app).await;
    verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}
