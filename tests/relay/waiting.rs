//! What is away is waited for, and told once.

use std::net::TcpListener;

use tokio::task::spawn_blocking;

use crate::{
    folder::Folder,
    nats::Nats,
    passbook::Passbook,
    servers::Server,
    site::{Site, eventually, kill, stop},
};

/// How often a log line says so.
fn told(stderr: &str, words: &str) -> usize {
    stderr.lines().filter(|line| line.contains(words)).count()
}

async fn figure(base: &str, name: &str) -> Option<f64> {
    let text = reqwest::get(format!("{base}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{stream=\"passbook-0\"}}")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn while_nats_is_away_the_bank_goes_on_and_the_figures_say_how_far_the_stream_is_behind() {
    let mut site = Site::new().await;
    let relay = site.start_relay().await;
    site.is_published().await;
    site.nats.kill();
    site.deposit("meanwhile", 7).await;
    let base = relay.client.base().to_owned();
    eventually("the lag", async || figure(&base, "passbook_relay_lag_events").await == Some(7.0)).await;
    assert!(figure(&base, "passbook_relay_lag_seconds").await.unwrap() > 0.0);

    site.nats.restart();
    site.is_noted().await;
    eventually("no lag", async || figure(&base, "passbook_relay_lag_events").await == Some(0.0)).await;
    assert_eq!(figure(&base, "passbook_relay_lag_seconds").await, Some(0.0));
    assert_eq!(figure(&base, "passbook_relay_published_total").await, Some(8.0));
    site.stream_is_the_log().await;
    let ended = stop(relay).await;
    assert_eq!(told(&ended.stderr, "stands still"), 1, "{}", ended.stderr);
    assert_eq!(told(&ended.stderr, "goes on"), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn a_relay_may_be_started_first_and_ended_before_anything_is_there() {
    let mut site = Site::new().await;
    site.close_bank().await;
    site.nats.kill();
    let relay = site.start_relay().await;
    let other = site.start_relay().await;
    let waits = async || told(&relay.process.stderr(), "waits for the log") == 1;
    eventually("its word", waits).await;
    stop(other).await;
    site.open_bank().await;
    eventually("its word", async || told(&relay.process.stderr(), "stands still") == 1).await;
    site.nats.restart();
    site.is_published().await;
    site.stream_is_the_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn what_was_published_before_the_relay_began_is_no_lag() {
    let mut site = Site::new().await;
    site.relayed("before", 3).await;
    site.nats.kill();
    site.deposit("after", 2).await;
    let relay = site.start_relay().await;
    let base = relay.client.base().to_owned();
    eventually("a figure", async || figure(&base, "passbook_relay_lag_events").await.is_some()).await;
    assert_eq!(figure(&base, "passbook_relay_lag_events").await, Some(2.0));
    stop(relay).await;
}

#[tokio::test]
async fn of_several_servers_one_is_enough() {
    let site = Site::new().await;
    let away = (0..7).map(|_| {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        format!("nats://{free},")
    });
    let relay = site.relay().set("PASSBOOK_RELAY_NATS_URL", away.chain([site.nats.url()]).collect::<String>());
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    site.is_noted().await;
    let ended = stop(relay).await;
    assert_eq!(told(&ended.stderr, "stands still"), 0, "{}", ended.stderr);
}

#[tokio::test]
async fn a_log_of_which_not_all_is_copied_yet_is_not_published() {
    let site = Site::new().await;
    site.execute(
        "INSERT INTO copy_progress (partition, source_partition, source_count, position, hash, compared, keys_at)
         VALUES (0, 0, 1, 0, '', 0, 'epoch')",
    )
    .await;
    let relay = site.start_relay().await;
    eventually("its word", async || told(&relay.process.stderr(), "not all of it is here") == 1).await;
    assert_eq!(site.nats.last().await, None);
    site.execute("UPDATE copy_progress SET finished_at = now()").await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    stop(relay).await;
}

#[tokio::test]
async fn while_the_database_is_away_the_relay_waits_and_then_goes_on() {
    let mut site = Site::new().await;
    let relay = site.start_relay().await;
    site.deposit("before", 3).await;
    site.is_published().await;
    site.close_bank().await;
    eventually("its word", async || told(&relay.process.stderr(), "stands still") == 1).await;
    site.open_bank().await;
    site.deposit("after", 3).await;
    site.is_noted().await;
    site.stream_is_the_log().await;
    kill(relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_another_server_takes_over_the_log_the_relay_goes_on_there() {
    let (nats, folder) = (Nats::start().await, Folder::empty());
    let mut primary = Server::start(&folder).await;
    let standby = primary.standby(&folder).await;
    primary.waits_for_standby().await;
    let urls = format!("{},{}", primary.url(), standby.url());
    let starting = Passbook::using(&urls);
    let bank = spawn_blocking(|| starting.start()).await.unwrap();
    let relay = Passbook::using(&urls)
        .argument("relay")
        .argument("nats")
        .set("PASSBOOK_RELAY_NATS_URL", nats.url())
        .set("PASSBOOK_RELAY_LISTEN", "127.0.0.1:0");
    let relay = spawn_blocking(|| relay.start()).await.unwrap();
    bank.client.open().await;
    eventually("the opening", async || nats.last().await == Some(1)).await;

    primary.kill();
    standby.promote();
    bank.client.deposit_now("after").await;
    eventually("the deposit", async || nats.last().await == Some(2)).await;
    let deposit: serde_json::Value = serde_json::from_slice(&nats.messages(0).await[1].payload).unwrap();
    assert_eq!(deposit["position"], "2");
    let ended = stop(relay).await;
    assert_eq!(told(&ended.stderr, "goes on"), 1, "{}", ended.stderr);
}
