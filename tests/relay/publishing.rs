//! The messages that the relay publishes, and their order with several relays and several partitions.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{Row, query};
use tokio::time::sleep;

use crate::{
    nats::STREAM,
    testbed::{Testbed, kill, stop},
};

#[tokio::test]
async fn an_event_is_published_as_a_cloud_event_on_its_types_subject() {
    let testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.deposit("rent", 1).await;
    testbed.wait_until_published().await;

    let stream = testbed.nats.jetstream().await.get_stream(STREAM).await.unwrap();
    let message = stream.get_last_raw_message_by_subject("passbook.0.MoneyDeposited").await.unwrap();
    assert_eq!(message.headers.get("Content-Type").unwrap().as_str(), "application/cloudevents+json");
    let sql =
        "SELECT id::text, stream_id::text, encode(hash, 'hex') AS hash, metadata::jsonb ->> 'causation_id' AS cause,
                      metadata::jsonb ->> 'correlation_id' AS correlation, metadata::jsonb ->> 'user_id' AS user_id,
                      to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time
               FROM event WHERE position = 2";
    let event = query(sql).fetch_one(&mut testbed.superuser().await).await.unwrap();
    let recorded = |name: &str| Value::from(event.get::<&str, _>(name));
    let published: Value = serde_json::from_slice(&message.payload).unwrap();
    let expected = json!({
        "specversion": "1.0",
        "id": recorded("id"),
        "source": "/passbook/0",
        "type": "passbook.MoneyDeposited.v2",
        "subject": recorded("stream_id"),
        "time": recorded("time"),
        "datacontenttype": "application/json",
        "partition": 0,
        "position": "2",
        "sequence": "0000000000000000002",
        "accountversion": "2",
        "hash": recorded("hash"),
        "userid": recorded("user_id"),
        "correlationid": recorded("correlation"),
        "causationid": recorded("cause"),
        "data": published["data"],
    });
    assert_eq!(published, expected);
    // CloudEvents 1.0 requires lower-case attribute names of at most 20 characters.
    let is_valid_name = |name: &String| name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase());
    assert!(published.as_object().unwrap().keys().all(is_valid_name), "{published}");
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_relay_resumes_at_the_streams_end_and_not_at_its_checkpoint() {
    let testbed = Testbed::new().await;
    // The window is so short that the server no longer deduplicates when the relay restarts.
    testbed.nats.create_stream(Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    let relay = testbed.start_relay().await;
    testbed.deposit("first", 20).await;
    testbed.wait_for_checkpoint().await;
    kill(relay).await;
    testbed.deposit("meanwhile", 5).await;
    testbed.execute("UPDATE relay SET position = 3").await;
    sleep(Duration::from_millis(500)).await;

    let relay = testbed.start_relay().await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn two_concurrent_relays_publish_every_event_once() {
    let testbed = Testbed::new().await;
    testbed.nats.create_stream(Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    testbed.deposit("before", 50).await;
    let (one, other) = (testbed.start_relay().await, testbed.start_relay().await);
    testbed.deposit("beside", 50).await;
    testbed.wait_until_published().await;
    kill(one).await;
    testbed.deposit("after", 10).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(other).await;
}

#[tokio::test]
async fn a_relay_resumed_after_a_freeze_publishes_no_duplicates() {
    let testbed = Testbed::new().await;
    testbed.nats.create_stream(Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    let frozen = testbed.start_relay().await;
    testbed.deposit("before", 3).await;
    testbed.wait_until_published().await;
    frozen.process.signal(Signal::SIGSTOP);
    let other = testbed.start_relay().await;
    testbed.deposit("meanwhile", 3).await;
    testbed.wait_until_published().await;
    kill(other).await;
    // The deduplication window is over when the first relay resumes and publishes from the log.
    sleep(Duration::from_millis(500)).await;
    frozen.process.signal(Signal::SIGCONT);
    testbed.deposit("after", 3).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(frozen).await;
}

#[tokio::test]
async fn each_partition_is_published_to_its_own_stream() {
    let testbed = Testbed::with_partitions("4").await;
    let relay = testbed.start_relay().await;
    let mut accounts = Vec::new();
    for number in 0..24 {
        let body = json!({"currency": "EUR", "initial_deposit": 100});
        let opened = testbed.client().post("/v1/accounts", &format!("open-{number}"), &body).await.unwrap();
        accounts.push(opened.json::<Value>().await.unwrap()["account_id"].clone());
    }
    for (number, pair) in accounts.windows(2).enumerate() {
        let body = json!({"from": pair[0], "to": pair[1], "amount": 1});
        let sent = testbed.client().post("/v1/transfers", &format!("transfer-{number}"), &body).await.unwrap();
        assert!(sent.status().is_success(), "{sent:?}");
    }
    testbed.wait_for_checkpoint().await;
    for partition in 0..4 {
        assert!(
            testbed.nats.last_sequence_of(partition).await > Some(0),
            "the stream of partition {partition} is empty"
        );
    }
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_purged_stream_continues_at_the_next_position() {
    let mut testbed = Testbed::new().await;
    testbed.publish_deposits("old", 3).await;
    testbed.nats.jetstream().await.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    testbed.nats.restart();
    testbed.deposit("new", 2).await;

    let relay = testbed.start_relay().await;
    testbed.wait_until_published().await;
    let stream = testbed.nats.jetstream().await.get_stream(STREAM).await.unwrap();
    let state = &stream.cached_info().state;
    assert_eq!((state.first_sequence, state.last_sequence, state.messages), (5, 6, 2));
    stop(relay).await;
}
