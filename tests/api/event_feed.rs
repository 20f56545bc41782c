//! The feed: every event exactly once and in order, whoever comes and goes, and nobody holds up anybody else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use passbook_audit::feed::FEED_READERS_MAX;
use serde_json::Value;
use sqlx::query_scalar;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    event_log::{cursor, history, shown},
    support::{
        ApiClient, App, FeedEvent, FeedSubscriber, Rng, WAIT_S_MAX, eventually, proxy::Flow,
        spawn_app_in_one_partition, spawn_app_in_one_partition_behind_proxy,
    },
};

fn data(told: &[FeedEvent]) -> Vec<Value> {
    told.iter().map(|told| told.data.clone()).collect()
}

fn positions(told: &[FeedEvent]) -> Vec<i64> {
    told.iter().map(FeedEvent::position).collect()
}

async fn all(app: &App) -> Vec<Value> {
    app.log().await.events.iter().map(shown).collect()
}

#[tokio::test]
async fn a_follower_is_told_what_is_there_and_what_comes() {
    let app = spawn_app_in_one_partition().await;
    let (_, other) = history(&app.client()).await;
    let mut subscriber = app.client().subscribe("").await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(subscriber.header(name), Some(value));
    }
    let mut told = subscriber.take(9).await;
    for amount in 1..=20 {
        app.client().deposit(other, amount).await.expect(201);
        told.extend(subscriber.take(1).await);
    }
    let log = app.log().await;
    assert_eq!(data(&told), all(&app).await);
    for (told, event) in told.iter().zip(&log.events) {
        assert_eq!((&told.id, &told.event_type), (&cursor(event), &event.event_type));
        assert!(!told.text.contains('\n'), "an event is one line");
    }
    // To the letter what the list says.
    let page = String::from_utf8(app.client().get("/v1/events").await.bytes).unwrap();
    assert!(told.iter().all(|told| page.contains(&told.text)));
}

#[tokio::test]
async fn a_follower_goes_on_behind_the_last_event_that_it_has() {
    let app = spawn_app_in_one_partition().await;
    history(&app.client()).await;
    let events = app.log().await.events;
    let client = app.client();
    for event in &events[..8] {
        let (cursor, next) = (cursor(event), event.position + 1);
        let resumed = client.resume_after(&cursor).await.take(1).await;
        let asked = client.subscribe(&format!("?after={cursor}")).await.take(1).await;
        let bare = client.subscribe(&format!("?after={}", event.position)).await.take(1).await;
        // As an EventSource comes back, which repeats the address.
        let both = client.with_header("last-event-id", &app.qualify(&cursor)).subscribe("?after=5").await.take(1).await;
        for told in [resumed, asked, bare, both] {
            assert_eq!(positions(&told), [next]);
        }
    }
    let mut at_head = client.resume_after(&cursor(events.last().unwrap())).await;
    assert!(at_head.is_silent_for(Duration::from_millis(300)).await);
    client.open_with_balance(0).await;
    assert_eq!(positions(&at_head.take(1).await), [10]);
}

#[tokio::test]
async fn a_follower_is_told_what_it_wants() {
    let app = spawn_app_in_one_partition().await;
    let (_, other) = history(&app.client()).await;
    let client = app.client();
    let since = passbook_event_store::timestamp::format(&app.log().await.events[4].recorded_at);
    let mut opened = client.subscribe("?type=AccountOpened").await;
    let mut deposited = client.subscribe("?type=MoneyDeposited").await;
    let mut late = client.subscribe(&format!("?since={since}")).await;
    let mut late_frozen = client.subscribe(&format!("?after=1&since={since}&type=AccountFrozen")).await;
    let mut next_century = client.subscribe("?since=2100-01-01T00:00:00Z").await;
    for _ in 0..3 {
        client.deposit(other, 1).await.expect(201);
        client.freeze(other).await.expect(200);
        client.unfreeze(other).await.expect(200);
        client.open_with_balance(0).await;
    }
    assert_eq!(positions(&opened.take(5).await), [1, 2, 13, 17, 21]);
    assert_eq!(positions(&deposited.take(4).await), [3, 10, 14, 18]);
    assert_eq!(positions(&late.take(17).await), (5..=21).collect::<Vec<_>>());
    assert_eq!(positions(&late_frozen.take(4).await), [7, 11, 15, 19]);
    assert!(next_century.is_silent_for(Duration::from_millis(300)).await);
    assert_eq!(next_century.last_id, cursor(&app.log().await.events[8]), "it stands where the log ended");
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_before_the_stream_begins() {
    let app = spawn_app_in_one_partition().await;
    history(&app.client()).await;
    let last = cursor(app.log().await.events.last().unwrap());
    app.replace_last_event().await;
    let client = app.client();
    let cursors =
        ["", "x", "-1", "v1", "1-", "1-0000000", "10", "10-00000000", "9223372036854775808", "1-zzzzzzzz", &last];
    for wrong in cursors {
        let refused =
            client.get(&format!("/v1/events/stream?after={wrong}")).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "after", "{wrong}");
        let header = client.with_header("last-event-id", wrong);
        // The header goes before a cursor that is right.
        let refused = header.get("/v1/events/stream?after=1").await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "Last-Event-ID", "{wrong}");
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
    for wrong in
        ["type=MoneyStolen", "type=", "since=now", "since=", "limit=1", "afer=1", "after=1&after=1", "after=%FF"]
    {
        client.get(&format!("/v1/events/stream?{wrong}")).await.expect_problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn what_another_server_records_is_told_too() {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let mut subscriber = app.client().subscribe("").await;
    let account = peer.client().open_with_balance(0).await;
    for _ in 0..5 {
        app.client().deposit(account, 1).await.expect(201);
        peer.client().deposit(account, 1).await.expect(201);
    }
    let mut told = subscriber.take(11).await;
    // Nothing that this server does leads it to look.
    assert!(subscriber.is_silent_for(Duration::from_millis(100)).await);
    peer.client().deposit(account, 1).await.expect(201);
    told.extend(subscriber.take(1).await);
    assert_eq!(data(&told), all(&app).await);
}

#[tokio::test]
async fn a_stream_is_never_compressed() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(0).await;
    let mut subscriber = app.client().with_header("accept-encoding", "gzip").subscribe("").await;
    assert_eq!(subscriber.header("content-encoding"), None);
    assert_eq!(positions(&subscriber.take(1).await), [1]);
}

#[tokio::test]
async fn data_with_line_ends_arrive_whole() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(1).await;
    app.tamper("UPDATE event SET data = E'{\"owner\":\\n\"x\",\\r\\n \"initial_deposit\":1}'").await;
    let told = app.client().subscribe("").await.take(1).await;
    assert_eq!(data(&told), all(&app).await);
}

/// Reads until `done` says up to where, going away at random and coming back with the last id, now here and now there.
async fn come_and_go(clients: [ApiClient; 2], seed: u64, mut done: watch::Receiver<i64>) -> Vec<FeedEvent> {
    let mut rng = Rng::new(seed);
    let mut told: Vec<FeedEvent> = Vec::new();
    let mut subscriber = clients[0].subscribe("").await;
    loop {
        let stay = rng.below(40) as usize;
        for _ in 0..stay {
            tokio::select! {
                next = subscriber.next() => match next {
                    Some(next) => told.push(next),
                    None => break,
                },
                _ = done.changed() => {}
            }
            let end = *done.borrow();
            if end > 0 && told.last().is_some_and(|last| last.position() >= end) {
                return told;
            }
        }
        let last_id = told.last().map_or("0", |last| last.id.as_str());
        subscriber = clients[rng.below(2) as usize].resume_after(last_id).await;
    }
}

#[tokio::test]
async fn what_is_recorded_while_a_page_is_on_its_way_is_told() {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(&[]).await;
    app.client().open_with_balance(0).await;
    let mut steady = app.client().subscribe("").await;
    steady.take(1).await;
    let pages = proxy.connections_named("passbook trail");
    // From the statement on that asks for the type, which is carried out and whose response is held.
    pages.iter().for_each(|link| link.set_flow_from("AccountOpened", Flow::Pass, Flow::Hold));
    let mut subscriber = eventually("a page on its way", async || {
        let subscriber = app.client().subscribe("?type=AccountOpened").await;
        sleep(Duration::from_millis(200)).await;
        pages.iter().any(|link| !link.awaits_trigger()).then_some(subscriber)
    })
    .await;
    app.client().open_with_balance(0).await;
    assert_eq!(positions(&steady.take(1).await), [2]);
    pages.iter().for_each(|link| link.set_flow(Flow::Pass, Flow::Pass));
    assert_eq!(positions(&subscriber.take(2).await), [1, 2]);
}

/// Movements on an account of its own, with pauses for readers to catch up in.
async fn busy(client: ApiClient, seed: u64) {
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
async fn whoever_comes_and_goes_is_told_every_event_once_and_in_order() {
    let app = spawn_app_in_one_partition().await;
    let peer = app.spawn_peer().await;
    let (done, is_done) = watch::channel(0);
    let readers = (1..=8).map(|seed| come_and_go([app.client(), peer.client()], seed, is_done.clone()));
    let mut steady = app.client().subscribe("").await;
    let load = async {
        join_all((0..12).map(|seed| busy(if seed % 2 == 0 { app.client() } else { peer.client() }, seed))).await;
        let head = app.log().await.head.position;
        done.send_replace(head);
        steady.take(head as usize).await
    };
    let (steady, readers) = tokio::join!(load, join_all(readers));
    let expected = all(&app).await;
    assert_eq!(expected.len(), 12 * 52);
    for told in readers.iter().chain([&steady]) {
        assert_eq!(positions(told), (1..=expected.len() as i64).collect::<Vec<_>>());
        assert_eq!(data(told), expected);
    }
}

/// Follows without a word of HTTP more than needed, and with hardly any room for what is not read.
async fn deaf(app: &App) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(app.url().trim_start_matches("http://").parse().unwrap()).await.unwrap();
    stream.write_all(b"GET /v1/events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// The ids in what is left of a stream up to its end, and whether it was ended in order.
async fn ids(mut stream: TcpStream) -> (Vec<i64>, bool) {
    let mut bytes = Vec::new();
    let end = timeout(Duration::from_secs(WAIT_S_MAX), stream.read_to_end(&mut bytes));
    end.await.expect("it is ended").unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")?.split_once('-')?.0.parse().ok());
    (ids.filter(|id| *id > 0).collect(), bytes.ends_with(b"0\r\n\r\n"))
}

#[tokio::test]
async fn a_follower_that_does_not_keep_up_is_ended_and_holds_up_nobody() {
    let app = spawn_app_in_one_partition().await;
    app.client().open_with_balance(0).await;
    let slow = deaf(&app).await;
    let mut quick = app.client().subscribe("").await;
    quick.take(1).await;
    // More than the buffers of both sides hold, and more chunks than wait for one reader.
    for _ in 0..9 {
        app.insert_deposits(300, 40_000).await;
        let told = quick.take(300).await;
        assert!(positions(&told).is_sorted());
    }
    assert_eq!(quick.last_id, cursor(app.log().await.events.last().unwrap()));
    let (ids, ended) = ids(slow).await;
    let last = ids.last().copied().unwrap_or_default();
    assert!(ended && last < 2_701, "up to {last}");
    assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "without a gap");
    let told = app.client().resume_after(&last.to_string()).await.take(2_701 - last as usize).await;
    assert_eq!(positions(&told), (last + 1..=2_701).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_stops_ends_its_followers_at_once_and_they_go_on_with_the_next() {
    let mut app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    app.insert_deposits(200, 40_000).await;
    let not_reading = deaf(&app).await;
    let mut subscribers: Vec<FeedSubscriber> =
        join_all((0..5).map(async |_| app.client().subscribe("?after=1").await)).await;
    for subscriber in &mut subscribers {
        subscriber.take(1).await;
    }
    let mut idle = app.client().subscribe("?after=201").await;
    assert!(idle.is_silent_for(Duration::from_millis(100)).await);
    let stopping = Instant::now();
    app.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    drop(not_reading);
    assert_eq!((idle.rest().await, idle.is_broken), (vec![], false), "it is ended, and not cut off");
    let next = app.spawn_peer().await;
    next.client().deposit(account, 1).await.expect(201);
    for mut subscriber in subscribers {
        let mut told = subscriber.rest().await;
        let resumed = next.client().resume_after(&subscriber.last_id).await.take(200 - told.len()).await;
        told.extend(resumed);
        assert_eq!(positions(&told), (3..=202).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn followers_of_a_history_that_was_undone_are_ended_and_do_not_go_on() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    app.client().deposit(account, 1).await.expect(201);
    let mut subscriber = app.client().subscribe("").await;
    let mut of_type = app.client().subscribe("?type=AccountOpened").await;
    subscriber.take(2).await;
    of_type.take(1).await;
    app.replace_last_event().await;
    assert_eq!((subscriber.rest().await, of_type.rest().await), (vec![], vec![]));
    let header = app.client().with_header("last-event-id", &subscriber.last_id);
    header.get("/v1/events/stream").await.expect_problem(400, "invalid_parameter");
    let mut anew = app.client().subscribe("").await;
    assert_eq!(data(&anew.take(2).await), all(&app).await);
}

#[tokio::test]
async fn while_the_database_is_away_a_stream_pauses_and_then_goes_on() {
    let (app, proxy) = spawn_app_in_one_partition_behind_proxy(&[]).await;
    let peer = app.spawn_peer().await;
    let account = peer.client().open_with_balance(0).await;
    let mut subscriber = app.client().subscribe("").await;
    assert_eq!(positions(&subscriber.take(1).await), [1]);
    for outage in 1..=2 {
        proxy.disconnect();
        peer.client().deposit(account, 1).await.expect(201);
        peer.client().deposit(account, 1).await.expect(201);
        assert!(subscriber.is_silent_for(Duration::from_millis(600)).await);
        proxy.reconnect();
        assert_eq!(positions(&subscriber.take(2).await), [2 * outage, 2 * outage + 1]);
    }
}

#[tokio::test]
async fn an_idle_stream_lives_on_and_its_heartbeat_says_what_was_passed_over() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let mut subscriber = app.client().subscribe("?type=AccountClosed").await;
    let mut idle = app.client().subscribe("?after=1").await;
    subscriber.block().await.unwrap();
    app.client().deposit(account, 1).await.expect(201);
    idle.take(1).await;
    let second = cursor(&app.log().await.events[1]);
    let heartbeats = [subscriber.block().await.unwrap(), idle.block().await.unwrap()];
    assert_eq!(heartbeats, [format!(":\nid: {}\n\n", app.qualify(&second)), ":\n\n".to_owned()]);
    assert_eq!(subscriber.block().await.unwrap(), ":\n\n", "nothing new was passed over");
    app.client().withdraw(account, 1).await.expect(201);
    app.client().close(account).await.expect(200);
    assert_eq!(positions(&subscriber.take(1).await), [4]);
    assert_eq!(positions(&idle.take(2).await), [3, 4]);
}

#[tokio::test]
async fn as_many_as_there_are_places_follow_and_others_are_turned_away() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let mut subscribers = Vec::new();
    for _ in 0..FEED_READERS_MAX / 100 {
        subscribers.extend(join_all((0..100).map(async |_| app.client().subscribe("").await)).await);
    }
    app.client().get("/v1/events/stream").await.expect_problem(503, "overloaded");
    // Whatever those who catch up need, queries have what they need.
    app.client().get("/v1/accounts").await.expect(200);
    app.client().deposit(account, 1).await.expect(201);
    for subscriber in &mut subscribers {
        assert_eq!(positions(&subscriber.take(2).await), [1, 2]);
    }
    drop(subscribers);
    // Who has gone is noticed when there is something to tell.
    let mut back = eventually("a place", async || {
        app.client().deposit(account, 1).await.expect(201);
        sleep(Duration::from_millis(50)).await;
        let told = app.client().get("/v1/events/stream?after=x").await;
        assert_eq!(told.status, 400);
        let probe = reqwest::get(format!("{}/v1/events/stream", app.url())).await.unwrap();
        (probe.status() == 200).then(|| FeedSubscriber::new(probe, None))
    })
    .await;
    back.take(2).await;
}

#[tokio::test]
async fn nobody_reads_the_log_for_nobody() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let reads = async || -> i64 {
        query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'passbook feed'",
        )
        .fetch_one(&mut app.database().await)
        .await
        .unwrap()
    };
    assert_eq!(reads().await, 0);
    let mut subscribers = vec![app.client().subscribe("").await, app.client().subscribe("").await];
    for subscriber in &mut subscribers {
        subscriber.take(1).await;
    }
    eventually("a reader", async || (reads().await == 1).then_some(())).await;
    drop(subscribers);
    eventually("the end of reading", async || {
        app.client().deposit(account, 1).await.expect(201);
        (reads().await == 0).then_some(())
    })
    .await;
    assert_eq!(positions(&app.client().subscribe("").await.take(1).await), [1]);
}
