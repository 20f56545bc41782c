//! Errors that need an operator's decision: the relay exits with an error message, and the service keeps running.

use async_nats::jetstream::stream::Config;

use crate::{
    nats::{Nats, STREAM},
    testbed::{Testbed, stop, wait_for_error},
};

/// Changes the hash of the event at position 3.
const CHANGE_HISTORY: &str = "ALTER TABLE event DISABLE TRIGGER event_immutable;
     UPDATE event SET hash = decode(repeat('00', 32), 'hex') WHERE position = 3";

#[tokio::test]
async fn a_deleted_stream_stops_the_relay_until_refill_is_requested() {
    let testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.deposit("a", 3).await;
    testbed.wait_for_checkpoint().await;
    testbed.nats.jetstream().await.delete_stream(STREAM).await.unwrap();
    testbed.deposit("b", 1).await;
    let error = wait_for_error(relay).await;
    assert!(error.contains("no longer exists") && error.contains("position 4"), "{error}");
    // The service keeps running, and a restarted relay fails with the same error.
    testbed.deposit("c", 1).await;
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("no longer exists"), "{error}");
    assert_eq!(testbed.nats.last_sequence().await, None);

    let relay = testbed.relay_command().argument("--refill");
    let relay = tokio::task::spawn_blocking(|| relay.start()).await.unwrap();
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_truncated_stream_stops_the_relay() {
    let testbed = Testbed::new().await;
    testbed.publish_deposits("a", 3).await;
    testbed.nats.jetstream().await.delete_stream(STREAM).await.unwrap();
    testbed.nats.create_stream(Config::default()).await;
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("ends at 0") && error.contains("position 4"), "{error}");
    assert_eq!(testbed.nats.last_sequence().await, Some(0));
}

#[tokio::test]
async fn a_full_stream_stops_the_relay_until_its_limit_is_raised() {
    let testbed = Testbed::new().await;
    testbed.nats.create_stream(Config { max_messages: 5, ..Config::default() }).await;
    let relay = testbed.start_relay().await;
    testbed.deposit("a", 10).await;
    let error = wait_for_error(relay).await;
    assert!(error.contains("is full at 5 (maximum messages exceeded"), "{error}");

    let jetstream = testbed.nats.jetstream().await;
    let mut settings = jetstream.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    settings.max_messages = -1;
    jetstream.update_stream(&settings).await.unwrap();
    let relay = testbed.start_relay().await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_message_above_the_streams_size_limit_stops_the_relay() {
    let testbed = Testbed::new().await;
    testbed.nats.create_stream(Config { max_message_size: 100, ..Config::default() }).await;
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("position 1 is larger"), "{error}");
}

#[tokio::test]
async fn another_publisher_in_the_stream_stops_the_relay() {
    let testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.deposit("a", 2).await;
    testbed.wait_for_checkpoint().await;
    let jetstream = testbed.nats.jetstream().await;
    jetstream.publish("passbook.0.MoneyDeposited", "{}".into()).await.unwrap().await.unwrap();
    testbed.deposit("b", 1).await;
    let error = wait_for_error(relay).await;
    assert!(error.contains("another publisher writes"), "{error}");
    assert_eq!(testbed.nats.last_sequence().await, Some(4), "the relay must publish nothing after the foreign message");
}

#[tokio::test]
async fn a_log_with_another_history_stops_the_relay() {
    let testbed = Testbed::new().await;
    testbed.publish_deposits("a", 2).await;
    testbed.execute(CHANGE_HISTORY).await;
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("different histories"), "{error}");
    testbed.execute("DELETE FROM event WHERE position = 3").await;
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("beyond the log's head"), "{error}");
}

#[tokio::test]
async fn a_log_with_another_history_stops_the_relay_of_a_purged_stream() {
    let testbed = Testbed::new().await;
    testbed.publish_deposits("a", 2).await;
    testbed.nats.jetstream().await.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    testbed.execute(CHANGE_HISTORY).await;
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("different histories"), "{error}");
}

#[tokio::test]
async fn a_stream_with_other_subjects_stops_the_relay() {
    let testbed = Testbed::new().await;
    let settings = Config { name: STREAM.to_owned(), subjects: vec!["other.>".to_owned()], ..Config::default() };
    testbed.nats.jetstream().await.create_stream(settings).await.unwrap();
    let error = wait_for_error(testbed.start_relay().await).await;
    assert!(error.contains("does not accept the subjects passbook.0.>"), "{error}");
}

#[tokio::test]
async fn failed_authentication_stops_the_relay_without_leaking_a_password() {
    let testbed = Testbed::with(Nats::start_with(&["--user", "bank", "--pass", "right"]).await).await;
    let wrong = testbed.nats.url().replace("nats://", "nats://bank:wrong@");
    let relay = testbed.relay_command().set("PASSBOOK_RELAY_NATS_URL", wrong);
    let error = wait_for_error(tokio::task::spawn_blocking(|| relay.start()).await.unwrap()).await;
    assert!(error.contains("rejected the relay's login") && !error.contains("wrong"), "{error}");
}

#[tokio::test]
async fn invalid_settings_stop_the_relay() {
    let testbed = Testbed::new().await;
    for (name, value, expected) in [
        ("PASSBOOK_RELAY_NATS_URL", "nats://[", "must be the URL of a NATS server"),
        ("PASSBOOK_RELAY_STREAM", "a.b", "is not a valid stream name"),
        ("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE", "/nowhere", "cannot be read"),
    ] {
        let relay = testbed.relay_command().set(name, value);
        let error = wait_for_error(tokio::task::spawn_blocking(|| relay.start()).await.unwrap()).await;
        assert!(error.contains(expected), "{name}={value}: {error}");
    }
}

#[tokio::test]
async fn a_panic_in_the_log_reader_ends_the_relay() {
    let testbed = Testbed::new().await;
    let relay = testbed.relay_command().set("PASSBOOK_TEST_PANIC_TASK", "log reader");
    let relay = tokio::task::spawn_blocking(|| relay.start()).await.unwrap();
    let ended = tokio::task::spawn_blocking(|| relay.process.wait_for_exit()).await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the background task `log reader` ended unexpectedly"), "{ended:?}");
    testbed.deposit("a", 1).await;
}
