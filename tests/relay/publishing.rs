//! What other services get.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{Row, query};
use tokio::time::sleep;

use crate::{
    nats::STREAM,
    site::{Site, kill, stop},
};

#[tokio::test]
async fn an_event_is_a_cloud_event_under_a_subject_of_its_type() {
    let site = Site::new().await;
    let relay = site.start_relay().await;
    site.deposit("rent", 1).await;
    site.is_published().await;

    let stream = site.nats.jetstream().await.get_stream(STREAM).await.unwrap();
    let message = stream.get_last_raw_message_by_subject("passbook.0.MoneyDeposited").await.unwrap();
    assert_eq!(message.headers.get("Content-Type").unwrap().as_str(), "application/cloudevents+json");
    let sql =
        "SELECT id::text, stream_id::text, encode(hash, 'hex') AS hash, metadata::jsonb ->> 'causation_id' AS cause,
                      metadata::jsonb ->> 'correlation_id' AS correlation, metadata::jsonb ->> 'user_id' AS user_id,
                      to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time
               FROM event WHERE position = 2";
    let event = query(sql).fetch_one(&mut site.superuser().await).await.unwrap();
    let recorded = |name: &str| Value::from(event.get::<&str, _>(name));
    let told: Value = serde_json::from_slice(&message.payload).unwrap();
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
        "data": told["data"],
    });
    assert_eq!(told, expected);
    // As CloudEvents 1.0 wants the names of attributes.
    let is_plain = |name: &String| name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase());
    assert!(told.as_object().unwrap().keys().all(is_plain), "{told}");
    site.stream_is_the_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_relay_goes_on_where_the_stream_ends_and_not_where_the_database_remembers() {
    let site = Site::new().await;
    // So short that the server has forgotten every id when the relay comes back.
    site.nats.make(Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    let relay = site.start_relay().await;
    site.deposit("first", 20).await;
    site.is_noted().await;
    kill(relay).await;
    site.deposit("meanwhile", 5).await;
    site.execute("UPDATE relay SET position = 3").await;
    sleep(Duration::from_millis(500)).await;

    let relay = site.start_relay().await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn two_relays_at_once_publish_every_event_once() {
    let site = Site::new().await;
    site.nats.make(Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    site.deposit("before", 50).await;
    let (one, other) = (site.start_relay().await, site.start_relay().await);
    site.deposit("beside", 50).await;
    site.is_published().await;
    kill(one).await;
    site.deposit("after", 10).await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    stop(other).await;
}

#[tokio::test]
async fn a_relay_that_stood_still_does_not_publish_again_what_another_one_has_published() {
    let site = Site::new().await;
    site.nats.make(Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    let frozen = site.start_relay().await;
    site.deposit("before", 3).await;
    site.is_published().await;
    frozen.process.signal(Signal::SIGSTOP);
    let other = site.start_relay().await;
    site.deposit("meanwhile", 3).await;
    site.is_published().await;
    kill(other).await;
    // The server has forgotten every id when the first one wakes up and publishes what it finds in the log.
    sleep(Duration::from_millis(500)).await;
    frozen.process.signal(Signal::SIGCONT);
    site.deposit("after", 3).await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    stop(frozen).await;
}

#[tokio::test]
async fn a_log_of_several_partitions_fills_a_stream_each() {
    let site = Site::over("4").await;
    let relay = site.start_relay().await;
    let mut accounts = Vec::new();
    for number in 0..24 {
        let body = json!({"currency": "EUR", "initial_deposit": 100});
        let opened = site.client().post("/v1/accounts", &format!("open-{number}"), &body).await.unwrap();
        accounts.push(opened.json::<Value>().await.unwrap()["account_id"].clone());
    }
    for (number, pair) in accounts.windows(2).enumerate() {
        let body = json!({"from": pair[0], "to": pair[1], "amount": 1});
        let sent = site.client().post("/v1/transfers", &format!("transfer-{number}"), &body).await.unwrap();
        assert!(sent.status().is_success(), "{sent:?}");
    }
    site.is_noted().await;
    for partition in 0..4 {
        assert!(site.nats.last_of(partition).await > Some(0), "nothing is in partition {partition}");
    }
    site.stream_is_the_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_stream_that_was_purged_goes_on_at_the_next_position() {
    let mut site = Site::new().await;
    site.relayed("old", 3).await;
    site.nats.jetstream().await.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    site.nats.restart();
    site.deposit("new", 2).await;

    let relay = site.start_relay().await;
    site.is_published().await;
    let stream = site.nats.jetstream().await.get_stream(STREAM).await.unwrap();
    let state = &stream.cached_info().state;
    assert_eq!((state.first_sequence, state.last_sequence, state.messages), (5, 6, 2));
    stop(relay).await;
}
