//! What somebody has to decide stops the relay with a sentence, and harms nobody.

use async_nats::jetstream::stream::Config;

use crate::{
    nats::{Nats, STREAM},
    testbed::{Testbed, wait_for_error, stop},
};

/// Another event stands at position 3.
const ANOTHER_HISTORY: &str = "ALTER TABLE event DISABLE TRIGGER event_immutable;
     UPDATE event SET hash = decode(repeat('00', 32), 'hex') WHERE position = 3";

#[tokio::test]
async fn a_stream_that_is_gone_stops_the_relay_and_is_made_anew_only_on_demand() {
    let testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.deposit("a", 3).await;
    testbed.wait_for_checkpoint().await;
    testbed.nats.jetstream().await.delete_stream(STREAM).await.unwrap();
    testbed.deposit("b", 1).await;
    let sentence = wait_for_error(relay).await;
    assert!(sentence.contains("is gone") && sentence.contains("position 4"), "{sentence}");
    // The bank goes on, and whoever starts the relay again is told the same.
    testbed.deposit("c", 1).await;
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("is gone"), "{sentence}");
    assert_eq!(testbed.nats.last_sequence().await, None);

    let relay = testbed.relay_command().argument("--refill");
    let relay = tokio::task::spawn_blocking(|| relay.start()).await.unwrap();
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn a_stream_that_was_cut_off_stops_the_relay() {
    let testbed = Testbed::new().await;
    testbed.publish_deposits("a", 3).await;
    testbed.nats.jetstream().await.delete_stream(STREAM).await.unwrap();
    testbed.nats.create_stream(Config::default()).await;
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("ends at 0") && sentence.contains("position 4"), "{sentence}");
    assert_eq!(testbed.nats.last_sequence().await, Some(0));
}

#[tokio::test]
async fn a_stream_that_is_full_stops_the_relay_until_there_is_room() {
    let testbed = Testbed::new().await;
    testbed.nats.create_stream(Config { max_messages: 5, ..Config::default() }).await;
    let relay = testbed.start_relay().await;
    testbed.deposit("a", 10).await;
    let sentence = wait_for_error(relay).await;
    assert!(sentence.contains("is full at 5 (maximum messages exceeded"), "{sentence}");

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
async fn a_message_that_a_stream_does_not_take_for_its_size_stops_the_relay() {
    let testbed = Testbed::new().await;
    testbed.nats.create_stream(Config { max_message_size: 100, ..Config::default() }).await;
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("position 1 is larger"), "{sentence}");
}

#[tokio::test]
async fn somebody_else_in_the_stream_stops_the_relay() {
    let testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.deposit("a", 2).await;
    testbed.wait_for_checkpoint().await;
    let jetstream = testbed.nats.jetstream().await;
    jetstream.publish("passbook.0.MoneyDeposited", "{}".into()).await.unwrap().await.unwrap();
    testbed.deposit("b", 1).await;
    let sentence = wait_for_error(relay).await;
    assert!(sentence.contains("somebody else publishes"), "{sentence}");
    assert_eq!(testbed.nats.last_sequence().await, Some(4), "nothing is published behind it");
}

#[tokio::test]
async fn a_log_of_another_history_stops_the_relay() {
    let testbed = Testbed::new().await;
    testbed.publish_deposits("a", 2).await;
    testbed.execute(ANOTHER_HISTORY).await;
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("another history"), "{sentence}");
    testbed.execute("DELETE FROM event WHERE position = 3").await;
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("beyond the log's head"), "{sentence}");
}

#[tokio::test]
async fn a_log_of_another_history_stops_the_relay_though_the_stream_was_purged() {
    let testbed = Testbed::new().await;
    testbed.publish_deposits("a", 2).await;
    testbed.nats.jetstream().await.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    testbed.execute(ANOTHER_HISTORY).await;
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("another history"), "{sentence}");
}

#[tokio::test]
async fn a_stream_that_takes_other_subjects_stops_the_relay() {
    let testbed = Testbed::new().await;
    let settings = Config { name: STREAM.to_owned(), subjects: vec!["other.>".to_owned()], ..Config::default() };
    testbed.nats.jetstream().await.create_stream(settings).await.unwrap();
    let sentence = wait_for_error(testbed.start_relay().await).await;
    assert!(sentence.contains("does not take the subjects passbook.0.>"), "{sentence}");
}

#[tokio::test]
async fn a_server_that_does_not_let_the_relay_in_stops_it_and_learns_no_password() {
    let testbed = Testbed::with(Nats::start_with(&["--user", "bank", "--pass", "right"]).await).await;
    let wrong = testbed.nats.url().replace("nats://", "nats://bank:wrong@");
    let relay = testbed.relay_command().set("PASSBOOK_RELAY_NATS_URL", wrong);
    let sentence = wait_for_error(tokio::task::spawn_blocking(|| relay.start()).await.unwrap()).await;
    assert!(sentence.contains("does not let this relay in") && !sentence.contains("wrong"), "{sentence}");
}

#[tokio::test]
async fn settings_that_make_no_sense_stop_the_relay() {
    let testbed = Testbed::new().await;
    for (name, value, told) in [
        ("PASSBOOK_RELAY_NATS_URL", "nats://[", "no address of a NATS server"),
        ("PASSBOOK_RELAY_STREAM", "a.b", "no stream's name"),
        ("PASSBOOK_RELAY_NATS_CREDENTIALS_FILE", "/nowhere", "cannot be used"),
    ] {
        let relay = testbed.relay_command().set(name, value);
        let sentence = wait_for_error(tokio::task::spawn_blocking(|| relay.start()).await.unwrap()).await;
        assert!(sentence.contains(told), "{name}={value}: {sentence}");
    }
}
