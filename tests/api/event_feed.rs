//! The event feed (Server-Sent Events): each subscriber gets every event once and in order.

use std::time::Duration;

use futures_util::future::join_all;
use passbook_testkit::{
    ApiClient, FeedEvent, Rng, eventually, fault_proxy::Flow, spawn_app_in_one_partition,
    spawn_app_in_one_partition_behind_proxy,
};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::event_log::{all_events, cursor, record_every_type};

pub fn data(received: &[FeedEvent]) -> Vec<Value> {
    received.iter().map(|event| event.data.clone()).collect()
}

pub fn positions(received: &[FeedEvent]) -> Vec<i64> {
    received.iter().map(FeedEvent::position).collect()
}

#[tokio::test]
async fn subscriber_gets_past_and_new_events() {
    let app = spawn_app_in_one_partition().await;
    let (_, other) = record_every_type(&app.client()).await;
    let mut subscriber = app.client().subscribe("").await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(subscriber.header(name), Some(value));
    }
    let mut received = subscriber.take(9).await;
    for amount in 1..=20 {
        app.client().deposit(other, amount).await.expect(201);
        received.extend(subscriber.take(1).await);
    }
    let log = app.log().await;
    assert_eq!(data(&received), all_events(&app).await);
    for (feed_event, event) in received.iter().zip(&log.events) {
        assert_eq!((&feed_event.id, &feed_event.event_type), (&cursor(event), &event.event_type));
        assert!(!feed_event.text.contains('\n'), "an event is one line");
    }
    // The text of each event is the same as in the list.
    let page = String::from_utf8(app.client().get("/v1/events").await.bytes).unwrap();
    assert!(received.iter().all(|event| page.contains(&event.text)));
}

#[tokio::test]
async fn subscriber_resumes_after_its_last_event() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    let events = app.log().await.events;
    let client = app.client();
    for event in &events[..8] {
        let (cursor, next) = (cursor(event), event.position + 1);
        let resumed = client.resume_after(&cursor).await.take(1).await;
        let with_cursor = client.subscribe(&format!("?after={cursor}")).await.take(1).await;
        let with_position = client.subscribe(&format!("?after={}", event.position)).await.take(1).await;
        // An EventSource reconnects to the same URL and adds the header.
        let both = client.with_header("last-event-id", &app.qualify(&cursor)).subscribe("?after=5").await.take(1).await;
        for received in [resumed, with_cursor, with_position, both] {
            assert_eq!(positions(&received), [next]);
        }
    }
    let mut at_head = client.resume_after(&cursor(events.last().unwrap())).await;
    assert!(at_head.receives_nothing_for(Duration::from_millis(300)).await);
    client.open_with_balance(0).await;
    assert_eq!(positions(&at_head.take(1).await), [10]);
}

#[tokio::test]
async fn type_and_since_filter_the_feed() {
    let app = spawn_app_in_one_partition().await;
    let (_, other) = record_every_type(&app.client()).await;
    let client = app.client();
    let since = passbook_event_store::timestamp::format(&app.log().await.events[4].recorded_at);
    let mut opened = client.subscribe("?type=AccountOpened").await;
    let mut deposited = client.subscribe("?type=MoneyDeposited").await;
    let mut since_stream = client.subscribe(&format!("?since={since}")).await;
    let mut frozen = client.subscribe(&format!("?after=1&since={since}&type=AccountFrozen")).await;
    let mut future = client.subscribe("?since=2100-01-01T00:00:00Z").await;
    for _ in 0..3 {
        client.deposit(other, 1).await.expect(201);
        client.freeze(other).await.expect(200);
        client.unfreeze(other).await.expect(200);
        client.open_with_balance(0).await;
    }
    assert_eq!(positions(&opened.take(5).await), [1, 2, 13, 17, 21]);
    assert_eq!(positions(&deposited.take(4).await), [3, 10, 14, 18]);
    assert_eq!(positions(&since_stream.take(17).await), (5..=21).collect::<Vec<_>>());
    assert_eq!(positions(&frozen.take(4).await), [7, 11, 15, 19]);
    assert!(future.receives_nothing_for(Duration::from_millis(300)).await);
    assert_eq!(future.last_id, cursor(&app.log().await.events[8]), "the cursor is at the log's head");
}

#[tokio::test]
async fn invalid_subscriptions_are_refused_with_400() {
    let app = spawn_app_in_one_partition().await;
    record_every_type(&app.client()).await;
    let last = cursor(app.log().await.events.last().unwrap());
    app.replace_last_event().await;
    let client = app.client();
    let cursors =
        ["", "x", "-1", "v1", "1-", "1-0000000", "10", "10-00000000", "9223372036854775808", "1-zzzzzzzz", &last];
    for invalid in cursors {
        let refused =
            client.get(&format!("/v1/events/stream?after={invalid}")).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "after", "{invalid}");
        let header = client.with_header("last-event-id", invalid);
        // The header takes precedence over a valid `after`.
        let refused = header.get("/v1/events/stream?after=1").await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "Last-Event-ID", "{invalid}");
    }
    client
        .with_header("last-event-id", "1")
        .with_header("last-event-id", "1")
        .get("/v1/events/stream")
        .await
        .expect(400);
    client
        .with_header("last-event-id", "1")
        .get("/v1/events/stream?after=x")
        .await
        .expect_problem(400, "invalid_parameter");
    for invalid in
        ["type=MoneyStolen", "type=", "since=now", "since=", "limit=1", "afer=1", "after=1&after=1", "after=%FF"]
    {
        client.get(&format!("/v1/events/stream?{invalid}")).await.expect_problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn events_of_another_instance_are_received() {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let mut subscriber = app.client().subscribe("").await;
    let account = peer.client().open_with_balance(0).await;
    for _ in 0..5 {
        app.client().deposit(account, 1).await.expect(201);
        peer.client().deposit(account, 1).await.expect(201);
    }
    let mut received = subscriber.take(11).await;
    // Only the peer writes now, so this instance finds the event by polling.
    assert!(subscriber.receives_nothing_for(Duration::from_millis(100)).await);
    peer.client().deposit(account, 1).await.expect(201);
    received.extend(subscriber.take(1).await);
    assert_eq!(data(&received), all_events(&app).await);
}

#[tokio::test]
async fn event_stream_is_never_compressed() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(0).await;
    let mut subscriber = app.client().with_header("accept-encoding", "gzip").subscribe("").await;
    assert_eq!(subscriber.header("content-encoding"), None);
    assert_eq!(positions(&subscriber.take(1).await), [1]);
}

#[tokio::test]
async fn event_data_with_line_breaks_arrives_complete() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(1).await;
    app.tamper("UPDATE event SET data = E'{\"owner\":\\n\"x\",\\r\\n \"currency\":\"EUR\",\"initial_deposit\":1}'")
        .await;
    let received = app.client().subscribe("").await.take(1).await;
    assert_eq!(data(&received), all_events(&app).await);
}

/// Reads up to the position in `done`. Disconnects at random and resumes after the last id, on either instance.
async fn subscribe_with_reconnects(
    clients: [ApiClient; 2],
    seed: u64,
    mut done: watch::Receiver<i64>,
) -> Vec<FeedEvent> {
    let mut rng = Rng::new(seed);
    let mut received: Vec<FeedEvent> = Vec::new();
    let mut subscriber = clients[0].subscribe("").await;
    loop {
        let stay = rng.below(40) as usize;
        for _ in 0..stay {
            tokio::select! {
                next = subscriber.next() => match next {
                    Some(next) => received.push(next),
                    None => break,
                },
                _ = done.changed() => {}
            }
            let end = *done.borrow();
            if end > 0 && received.last().is_some_and(|last| last.position() >= end) {
                return received;
            }
        }
        let last_id = received.last().map_or("0", |last| last.id.as_str());
        subscriber = clients[rng.below(2) as usize].resume_after(last_id).await;
    }
}

#[tokio::test]
async fn event_recorded_during_a_page_read_is_received() {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(&[]).await;
    app.client().open_with_balance(0).await;
    let mut steady = app.client().subscribe("").await;
    steady.take(1).await;
    let page_connections = proxy.connections_named("passbook log pages");
    // The statement with this type is executed, but its response is held.
    page_connections.iter().for_each(|connection| connection.set_flow_from("AccountOpened", Flow::Pass, Flow::Hold));
    let mut subscriber = eventually("a held page", async || {
        let subscriber = app.client().subscribe("?type=AccountOpened").await;
        sleep(Duration::from_millis(200)).await;
        page_connections.iter().any(|connection| !connection.is_rule_pending()).then_some(subscriber)
    })
    .await;
    app.client().open_with_balance(0).await;
    assert_eq!(positions(&steady.take(1).await), [2]);
    page_connections.iter().for_each(|connection| connection.set_flow(Flow::Pass, Flow::Pass));
    assert_eq!(positions(&subscriber.take(2).await), [1, 2]);
}

/// Opens an account and moves money 51 times, with random pauses.
async fn run_movements(client: ApiClient, seed: u64) {
    let mut rng = Rng::new(seed + 100);
    let account = client.open_with_balance(1_000).await;
    for _ in 0..51 {
        let moved = match rng.below(2) {
            0 => client.deposit(account, 1).await,
            _ => client.withdraw(account, 1).await,
        };
        moved.expect(201);
        sleep(Duration::from_millis(rng.below(20))).await;
    }
}

#[tokio::test]
async fn reconnecting_subscribers_get_each_event_once_in_order() {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let (done, is_done) = watch::channel(0);
    let readers = (1..=8).map(|seed| subscribe_with_reconnects([app.client(), peer.client()], seed, is_done.clone()));
    let mut steady = app.client().subscribe("").await;
    let load = async {
        join_all((0..12).map(|seed| run_movements(if seed % 2 == 0 { app.client() } else { peer.client() }, seed)))
            .await;
        let head = app.log().await.head.position;
        done.send_replace(head);
        steady.take(head as usize).await
    };
    let (steady, readers) = tokio::join!(load, join_all(readers));
    let expected = all_events(&app).await;
    assert_eq!(expected.len(), 12 * 52);
    for received in readers.iter().chain([&steady]) {
        assert_eq!(positions(received), (1..=expected.len() as i64).collect::<Vec<_>>());
        assert_eq!(data(received), expected);
    }
}

#[tokio::test]
async fn heartbeat_carries_the_id_of_skipped_events() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let mut subscriber = app.client().subscribe("?type=AccountClosed").await;
    let mut idle = app.client().subscribe("?after=1").await;
    subscriber.next_block().await.unwrap();
    app.client().deposit(account, 1).await.expect(201);
    idle.take(1).await;
    let second = cursor(&app.log().await.events[1]);
    let heartbeats = [subscriber.next_block().await.unwrap(), idle.next_block().await.unwrap()];
    assert_eq!(heartbeats, [format!(":\nid: {}\n\n", app.qualify(&second)), ":\n\n".to_owned()]);
    assert_eq!(subscriber.next_block().await.unwrap(), ":\n\n", "no further event was skipped");
    app.client().withdraw(account, 1).await.expect(201);
    app.client().close(account).await.expect(200);
    assert_eq!(positions(&subscriber.take(1).await), [4]);
    assert_eq!(positions(&idle.take(2).await), [3, 4]);
}
