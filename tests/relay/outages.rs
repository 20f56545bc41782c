//! Outages of NATS, of the database or of the service: the relay waits, logs the outage once, and resumes.

use passbook_testkit::{folder::Folder, ports::free_port, postgres_server::PostgresServer, process::Passbook};
use tokio::task::spawn_blocking;

use crate::{
    nats::Nats,
    testbed::{Testbed, eventually, kill, stop},
};

/// The number of log lines that contain this text.
fn count_lines(stderr: &str, text: &str) -> usize {
    stderr.lines().filter(|line| line.contains(text)).count()
}

async fn lag_metric(base: &str, name: &str) -> Option<f64> {
    let text = reqwest::get(format!("{base}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{stream=\"passbook-0\"}}")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn during_a_nats_outage_the_metrics_report_the_lag() {
    let mut testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.wait_until_published().await;
    testbed.nats.kill();
    testbed.deposit("meanwhile", 7).await;
    let base = relay.client.base_url().to_owned();
    eventually("a lag of 7 events", async || lag_metric(&base, "passbook_relay_lag_events").await == Some(7.0)).await;
    assert!(lag_metric(&base, "passbook_relay_lag_seconds").await.unwrap() > 0.0);

    testbed.nats.restart();
    testbed.wait_for_checkpoint().await;
    eventually("a lag of 0", async || lag_metric(&base, "passbook_relay_lag_events").await == Some(0.0)).await;
    assert_eq!(lag_metric(&base, "passbook_relay_lag_seconds").await, Some(0.0));
    assert_eq!(lag_metric(&base, "passbook_relay_published_total").await, Some(8.0));
    testbed.assert_streams_match_log().await;
    let ended = stop(relay).await;
    assert_eq!(count_lines(&ended.stderr, "publishing failed; retrying"), 1, "{}", ended.stderr);
    assert_eq!(count_lines(&ended.stderr, "publishing resumed"), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn a_relay_starts_and_stops_before_the_service_and_nats_run() {
    let mut testbed = Testbed::new().await;
    testbed.stop_service().await;
    testbed.nats.kill();
    let relay = testbed.start_relay().await;
    let other = testbed.start_relay().await;
    let waits = async || count_lines(&relay.process.stderr(), "waiting for the log") == 1;
    eventually("the log line that the log is unavailable", waits).await;
    stop(other).await;
    testbed.start_service().await;
    eventually("the log line that publishing has stopped", async || {
        count_lines(&relay.process.stderr(), "publishing failed; retrying") == 1
    })
    .await;
    testbed.nats.restart();
    testbed.wait_until_published().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn events_published_before_the_relay_started_do_not_count_as_lag() {
    let mut testbed = Testbed::new().await;
    testbed.publish_deposits("before", 3).await;
    testbed.nats.kill();
    testbed.deposit("after", 2).await;
    let relay = testbed.start_relay().await;
    let base = relay.client.base_url().to_owned();
    eventually("the lag metric", async || lag_metric(&base, "passbook_relay_lag_events").await.is_some()).await;
    assert_eq!(lag_metric(&base, "passbook_relay_lag_events").await, Some(2.0));
    stop(relay).await;
}

#[tokio::test]
async fn one_reachable_server_of_several_is_enough() {
    let testbed = Testbed::new().await;
    let unreachable = (0..7).map(|_| format!("nats://127.0.0.1:{},", free_port()));
    let relay = testbed
        .relay_command()
        .set("PASSBOOK_RELAY_NATS_URL", unreachable.chain([testbed.nats.url()]).collect::<String>());
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    testbed.wait_for_checkpoint().await;
    let ended = stop(relay).await;
    assert_eq!(count_lines(&ended.stderr, "publishing failed; retrying"), 0, "{}", ended.stderr);
}

#[tokio::test]
async fn an_incompletely_copied_log_is_not_published() {
    let testbed = Testbed::new().await;
    testbed
        .execute(
            "INSERT INTO copy_progress (partition, source_partition, source_count, position, hash, compared, keys_at)
         VALUES (0, 0, 1, 0, '', 0, 'epoch')",
        )
        .await;
    let relay = testbed.start_relay().await;
    eventually("the log line that the copy is incomplete", async || {
        count_lines(&relay.process.stderr(), "the log is an incomplete copy") == 1
    })
    .await;
    assert_eq!(testbed.nats.last_sequence().await, None);
    testbed.execute("UPDATE copy_progress SET finished_at = now()").await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn the_relay_waits_for_the_database_and_resumes() {
    let mut testbed = Testbed::new().await;
    let relay = testbed.start_relay().await;
    testbed.deposit("before", 3).await;
    testbed.wait_until_published().await;
    testbed.stop_service().await;
    eventually("the log line that publishing has stopped", async || {
        count_lines(&relay.process.stderr(), "publishing failed; retrying") == 1
    })
    .await;
    testbed.start_service().await;
    testbed.deposit("after", 3).await;
    testbed.wait_for_checkpoint().await;
    testbed.assert_streams_match_log().await;
    kill(relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_relay_resumes_at_the_new_primary() {
    let (nats, folder) = (Nats::start().await, Folder::empty());
    let mut primary = PostgresServer::start(&folder).await;
    let standby = primary.standby(&folder).await;
    primary.require_synchronous_standby().await;
    let urls = format!("{},{}", primary.url(), standby.url());
    let starting = Passbook::with_database(&urls);
    let service = spawn_blocking(|| starting.start()).await.unwrap();
    let relay = Passbook::with_database(&urls)
        .argument("relay")
        .argument("nats")
        .set("PASSBOOK_RELAY_NATS_URL", nats.url())
        .set("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0");
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    service.client.open_account().await;
    eventually("the opening", async || nats.last_sequence().await == Some(1)).await;

    primary.kill();
    standby.promote();
    service.client.deposit_ok("after").await;
    eventually("the deposit", async || nats.last_sequence().await == Some(2)).await;
    let deposit: serde_json::Value = serde_json::from_slice(&nats.messages(0).await[1].payload).unwrap();
    assert_eq!(deposit["position"], "2");
    let ended = stop(relay).await;
    assert_eq!(count_lines(&ended.stderr, "publishing resumed"), 1, "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_neither_ends_the_relay_nor_is_published() {
    let (nats, folder) = (Nats::start().await, Folder::empty());
    let former = PostgresServer::start(&folder).await;
    let primary = former.standby(&folder).await;
    let start = async |url: String| {
        let starting = Passbook::with_database(&url);
        spawn_blocking(|| starting.start()).await.unwrap()
    };
    let relay_of = |url: &str| {
        let relay = Passbook::with_database(url).argument("relay").argument("nats");
        relay.set("PASSBOOK_RELAY_NATS_URL", nats.url()).set("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0")
    };
    let service = start(former.url()).await;
    service.client.open_account().await;
    stop(service).await;
    let has_opening = async || primary.query_bool("SELECT position = 1 FROM log_head").await;
    eventually("the opening at the standby", has_opening).await;
    primary.promote();
    // The new primary and the stream contain an event that the former primary does not have.
    let service = start(primary.url()).await;
    service.client.deposit_ok("published").await;
    let relay = relay_of(&primary.url());
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    eventually("the deposit", async || nats.last_sequence().await == Some(2)).await;
    stop(relay).await;
    stop(service).await;

    // Only the former primary answers. It may not end the relay, and its own events may not be published.
    primary.freeze();
    let service = start(former.url()).await;
    for key in ["former-1", "former-2"] {
        service.client.deposit_ok(key).await;
    }
    stop(service).await;
    let relay = relay_of(&format!("{},{}", former.url(), primary.url()));
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    let is_waiting = async || relay.process.stderr().contains("does not answer and may be the primary");
    eventually("the relay to wait for the primary", is_waiting).await;
    assert_eq!(nats.last_sequence().await, Some(2), "an event of the former primary was published");

    primary.thaw();
    let service = start(primary.url()).await;
    service.client.deposit_ok("after").await;
    eventually("the next deposit", async || nats.last_sequence().await == Some(3)).await;
    for (position, message) in (1..).zip(nats.messages(0).await) {
        let event: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let id = event["id"].as_str().unwrap();
        let is_in_log = format!("SELECT id = '{id}' FROM event WHERE partition = 0 AND position = {position}");
        assert!(primary.query_bool(&is_in_log).await, "the message at {position} is not in the log");
    }
    stop(relay).await;
}
