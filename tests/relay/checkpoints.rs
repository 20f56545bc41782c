//! Checkpoints of the log in a stream of their own, beside the events.

use std::fs;

use async_nats::jetstream::stream::RawMessageErrorKind;
use passbook_checkpoint::SavedCheckpoint;
use passbook_testkit::eventually;
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::testbed::{Testbed, stop, wait_for_error};

#[tokio::test]
async fn a_signed_checkpoint_is_published_into_its_own_stream() {
    let testbed = Testbed::new().await;
    let relay = testbed.relay_command().set("PASSBOOK_RELAY_CHECKPOINTS", "true");
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    testbed.deposit("rent", 3).await;
    testbed.wait_until_published().await;
    let message = eventually("a checkpoint", async || {
        let stream = testbed.nats.jetstream().await.get_stream("passbook-checkpoints").await.ok()?;
        match stream.get_raw_message(1).await {
            Ok(message) => Some(message),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    let listed: Value = testbed.client().get("/v1/log/keys").await.json().await.unwrap();
    let key = listed["data"][0]["key"].as_str().unwrap().parse().unwrap();
    let saved = SavedCheckpoint::open("message", &message.payload, &[key]).unwrap();
    assert_eq!(message.subject.as_str(), format!("passbook-checkpoint.{}", saved.checkpoint.log_id));
    assert!((1..=4).contains(&saved.checkpoint.heads[0].position), "{saved:?}");
    assert_eq!(message.headers.get("Content-Type").unwrap().as_str(), "text/plain; charset=utf-8");
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn checkpoints_need_the_key_file() {
    let testbed = Testbed::new().await;
    fs::remove_file(testbed.folder.data().join("wrapping.key")).unwrap();
    let relay = testbed.relay_command().set("PASSBOOK_RELAY_CHECKPOINTS", "true");
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    let reason = wait_for_error(relay).await;
    assert!(reason.contains("PASSBOOK_RELAY_CHECKPOINTS needs the key file"), "{reason}");
    assert!(reason.contains("is missing"), "{reason}");
}
