//! The life of event feed subscriptions: slow subscribers, shutdown, outages, a changed history, and the limit of
//! subscribers.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use passbook_audit::feed::FEED_SUBSCRIBERS_MAX;
use passbook_testkit::{
    App, FeedSubscriber, WAIT_S_MAX, eventually, spawn_app_in_one_partition, spawn_app_in_one_partition_behind_proxy,
};
use sqlx::query_scalar;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    event_feed::{data, positions},
    event_log::{all_events, cursor},
};

/// Two events of this size fill a chunk of 64 KiB.
const REFERENCE_BYTES: usize = 33_000;
/// The queue of a subscriber holds 1 024 chunks. These events have 20 MB more than that, which no buffer of a socket holds.
const SLOW_EVENTS: i64 = 2_700;
const INSERTED_EVENTS: i64 = 300;
/// The kernel limits it further. With a buffer of a few packets each of them waits for a delayed acknowledgement, and to read the
/// rest of the stream takes a minute.
const RECEIVE_BYTES: u32 = 1 << 20;

/// Subscribes over a socket with a limited receive buffer and reads nothing after the status line.
async fn subscribe_without_reading(app: &App) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    let mut stream = socket.connect(app.url().trim_start_matches("http://").parse().unwrap()).await.unwrap();
    stream.write_all(b"GET /v1/events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// The ids in the rest of a stream, and whether the stream ended with the last chunk.
async fn read_ids(mut stream: TcpStream) -> (Vec<i64>, bool) {
    let mut bytes = Vec::new();
    let end = timeout(Duration::from_secs(WAIT_S_MAX), stream.read_to_end(&mut bytes));
    end.await.expect("the stream ends").unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")?.split_once('-')?.0.parse().ok());
    (ids.filter(|id| *id > 0).collect(), bytes.ends_with(b"0\r\n\r\n"))
}

#[tokio::test]
async fn slow_subscriber_is_ended_and_does_not_delay_others() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(0).await;
    let slow = subscribe_without_reading(&app).await;
    let mut quick = app.client().subscribe("").await;
    quick.take(1).await;
    // More chunks than the queue of one subscriber and the buffers of its socket hold.
    for _ in 0..SLOW_EVENTS / INSERTED_EVENTS {
        app.insert_deposits(INSERTED_EVENTS, REFERENCE_BYTES).await;
        let received = quick.take(INSERTED_EVENTS as usize).await;
        assert!(positions(&received).is_sorted());
    }
    assert_eq!(quick.last_id, cursor(app.log().await.events.last().unwrap()));
    let head = 1 + SLOW_EVENTS;
    let (ids, ended) = read_ids(slow).await;
    let last = ids.last().copied().unwrap_or_default();
    assert!(ended && last < head, "last id {last}");
    assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "ids are dense");
    let received = app.client().resume_after(&last.to_string()).await.take((head - last) as usize).await;
    assert_eq!(positions(&received), (last + 1..=head).collect::<Vec<_>>());
}

#[tokio::test]
async fn shutdown_ends_streams_and_subscribers_resume_elsewhere() {
    let mut app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    app.insert_deposits(200, 40_000).await;
    let not_reading = subscribe_without_reading(&app).await;
    let mut subscribers: Vec<FeedSubscriber> =
        join_all((0..5).map(async |_| app.client().subscribe("?after=1").await)).await;
    for subscriber in &mut subscribers {
        subscriber.take(1).await;
    }
    let mut idle = app.client().subscribe("?after=201").await;
    assert!(idle.receives_nothing_for(Duration::from_millis(100)).await);
    let stopping = Instant::now();
    app.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    drop(not_reading);
    assert_eq!(
        (idle.read_to_end().await, idle.is_broken),
        (vec![], false),
        "the stream ends without a connection error"
    );
    let peer = app.spawn_peer().await;
    peer.client().deposit(account, 1).await.expect(201);
    for mut subscriber in subscribers {
        let mut received = subscriber.read_to_end().await;
        let resumed = peer.client().resume_after(&subscriber.last_id).await.take(200 - received.len()).await;
        received.extend(resumed);
        assert_eq!(positions(&received), (3..=202).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn streams_end_when_the_history_changes() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    app.client().deposit(account, 1).await.expect(201);
    let mut subscriber = app.client().subscribe("").await;
    let mut of_type = app.client().subscribe("?type=AccountOpened").await;
    subscriber.take(2).await;
    of_type.take(1).await;
    app.replace_last_event().await;
    assert_eq!((subscriber.read_to_end().await, of_type.read_to_end().await), (vec![], vec![]));
    let header = app.client().with_header("last-event-id", &subscriber.last_id);
    header.get("/v1/events/stream").await.expect_problem(400, "invalid_parameter");
    let mut anew = app.client().subscribe("").await;
    assert_eq!(data(&anew.take(2).await), all_events(&app).await);
}

#[tokio::test]
async fn stream_pauses_during_an_outage_and_continues() {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(&[]).await;
    let peer = app.spawn_peer().await;
    let account = peer.client().open_with_balance(0).await;
    let mut subscriber = app.client().subscribe("").await;
    assert_eq!(positions(&subscriber.take(1).await), [1]);
    for outage in 1..=2 {
        proxy.disconnect();
        peer.client().deposit(account, 1).await.expect(201);
        peer.client().deposit(account, 1).await.expect(201);
        assert!(subscriber.receives_nothing_for(Duration::from_millis(600)).await);
        proxy.reconnect();
        assert_eq!(positions(&subscriber.take(2).await), [2 * outage, 2 * outage + 1]);
    }
}

#[tokio::test]
async fn subscribers_beyond_the_limit_are_refused() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let mut subscribers = Vec::new();
    for _ in 0..FEED_SUBSCRIBERS_MAX / 100 {
        subscribers.extend(join_all((0..100).map(async |_| app.client().subscribe("").await)).await);
    }
    app.client().get("/v1/events/stream").await.expect_problem(503, "overloaded");
    // Queries are served while all subscribers catch up.
    app.client().get("/v1/accounts").await.expect(200);
    app.client().deposit(account, 1).await.expect(201);
    for subscriber in &mut subscribers {
        assert_eq!(positions(&subscriber.take(2).await), [1, 2]);
    }
    drop(subscribers);
    // A closed connection is noticed when the next event is sent.
    let mut subscriber = eventually("a free subscription", async || {
        app.client().deposit(account, 1).await.expect(201);
        sleep(Duration::from_millis(50)).await;
        let invalid = app.client().get("/v1/events/stream?after=x").await;
        assert_eq!(invalid.status, 400);
        let probe = reqwest::get(format!("{}/v1/events/stream", app.url())).await.unwrap();
        (probe.status() == 200).then(|| FeedSubscriber::new(probe, None))
    })
    .await;
    subscriber.take(2).await;
}

#[tokio::test]
async fn log_is_polled_only_while_there_are_subscribers() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let feed_connections = async || -> i64 {
        query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'passbook feed'",
        )
        .fetch_one(&mut app.database().await)
        .await
        .unwrap()
    };
    assert_eq!(feed_connections().await, 0);
    let mut subscribers = vec![app.client().subscribe("").await, app.client().subscribe("").await];
    for subscriber in &mut subscribers {
        subscriber.take(1).await;
    }
    eventually("a feed connection", async || (feed_connections().await == 1).then_some(())).await;
    drop(subscribers);
    eventually("the end of the feed connection", async || {
        app.client().deposit(account, 1).await.expect(201);
        (feed_connections().await == 0).then_some(())
    })
    .await;
    assert_eq!(positions(&app.client().subscribe("").await.take(1).await), [1]);
}
