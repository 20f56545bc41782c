//! The feed: every event exactly once and in order, whoever comes and goes, and nobody holds up anybody else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use passbook::audit::feed::FEED_READERS_MAX;
use serde_json::Value;
use sqlx::query_scalar;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    events::{cursor, history, shown},
    support::{
        App, Dice, Follower, PATIENCE_S_MAX, Teller, Told, eventually, proxy::Flow, spawn_app_at_home,
        spawn_app_at_home_behind_proxy,
    },
};

fn data(told: &[Told]) -> Vec<Value> {
    told.iter().map(|told| told.data.clone()).collect()
}

fn positions(told: &[Told]) -> Vec<i64> {
    told.iter().map(Told::position).collect()
}

async fn all(app: &App) -> Vec<Value> {
    app.log().await.events.iter().map(shown).collect()
}

#[tokio::test]
async fn a_follower_is_told_what_is_there_and_what_comes() {
    let app = spawn_app_at_home().await;
    let (_, other) = history(&app.teller()).await;
    let mut follower = app.teller().follow("").await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(follower.header(name), Some(value));
    }
    let mut told = follower.take(9).await;
    for amount in 1..=20 {
        app.teller().deposit(other, amount).await.expect(201);
        told.extend(follower.take(1).await);
    }
    let log = app.log().await;
    assert_eq!(data(&told), all(&app).await);
    for (told, event) in told.iter().zip(&log.events) {
        assert_eq!((&told.id, &told.event_type), (&cursor(event), &event.event_type));
        assert!(!told.text.contains('\n'), "an event is one line");
    }
    // To the letter what the list says.
    let page = String::from_utf8(app.teller().get("/v1/events").await.bytes).unwrap();
    assert!(told.iter().all(|told| page.contains(&told.text)));
}

#[tokio::test]
async fn a_follower_goes_on_behind_the_last_event_that_it_has() {
    let app = spawn_app_at_home().await;
    history(&app.teller()).await;
    let events = app.log().await.events;
    let teller = app.teller();
    for event in &events[..8] {
        let (cursor, next) = (cursor(event), event.position + 1);
        let resumed = teller.resume(&cursor).await.take(1).await;
        let asked = teller.follow(&format!("?after={cursor}")).await.take(1).await;
        let bare = teller.follow(&format!("?after={}", event.position)).await.take(1).await;
        // As an EventSource comes back, which repeats the address.
        let both = teller.with("last-event-id", &app.place(&cursor)).follow("?after=5").await.take(1).await;
        for told in [resumed, asked, bare, both] {
            assert_eq!(positions(&told), [next]);
        }
    }
    let mut at_head = teller.resume(&cursor(events.last().unwrap())).await;
    assert!(at_head.is_silent_for(Duration::from_millis(300)).await);
    teller.account_with(0).await;
    assert_eq!(positions(&at_head.take(1).await), [10]);
}

#[tokio::test]
async fn a_follower_is_told_what_it_wants() {
    let app = spawn_app_at_home().await;
    let (_, other) = history(&app.teller()).await;
    let teller = app.teller();
    let since = passbook::timestamp::format(&app.log().await.events[4].recorded_at);
    let mut opened = teller.follow("?type=AccountOpened").await;
    let mut deposited = teller.follow("?type=MoneyDeposited").await;
    let mut late = teller.follow(&format!("?since={since}")).await;
    let mut late_frozen = teller.follow(&format!("?after=1&since={since}&type=AccountFrozen")).await;
    let mut next_century = teller.follow("?since=2100-01-01T00:00:00Z").await;
    for _ in 0..3 {
        teller.deposit(other, 1).await.expect(201);
        teller.freeze(other).await.expect(200);
        teller.unfreeze(other).await.expect(200);
        teller.account_with(0).await;
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
    let app = spawn_app_at_home().await;
    history(&app.teller()).await;
    let last = cursor(app.log().await.events.last().unwrap());
    app.replace_last_event().await;
    let teller = app.teller();
    let cursors =
        ["", "x", "-1", "v1", "1-", "1-0000000", "10", "10-00000000", "9223372036854775808", "1-zzzzzzzz", &last];
    for wrong in cursors {
        let refused = teller.get(&format!("/v1/events/stream?after={wrong}")).await.refused(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "after", "{wrong}");
        let header = teller.with("last-event-id", wrong);
        // The header goes before a cursor that is right.
        let refused = header.get("/v1/events/stream?after=1").await.refused(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "Last-Event-ID", "{wrong}");
    }
    teller.with("last-event-id", "1").with("last-event-id", "1").get("/v1/events/stream").await.expect(400);
    teller.with("last-event-id", "1").get("/v1/events/stream?after=x").await.refused(400, "invalid_parameter");
    for wrong in
        ["type=MoneyStolen", "type=", "since=now", "since=", "limit=1", "afer=1", "after=1&after=1", "after=%FF"]
    {
        teller.get(&format!("/v1/events/stream?{wrong}")).await.refused(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn what_another_server_records_is_told_too() {
    let app = spawn_app_at_home().await;
    let another = app.another().await;
    let mut follower = app.teller().follow("").await;
    let account = another.teller().account_with(0).await;
    for _ in 0..5 {
        app.teller().deposit(account, 1).await.expect(201);
        another.teller().deposit(account, 1).await.expect(201);
    }
    let mut told = follower.take(11).await;
    // Nothing that this server does leads it to look.
    assert!(follower.is_silent_for(Duration::from_millis(100)).await);
    another.teller().deposit(account, 1).await.expect(201);
    told.extend(follower.take(1).await);
    assert_eq!(data(&told), all(&app).await);
}

#[tokio::test]
async fn a_stream_is_never_compressed() {
    let app = spawn_app_at_home().await;
    app.teller().account_with(0).await;
    let mut follower = app.teller().with("accept-encoding", "gzip").follow("").await;
    assert_eq!(follower.header("content-encoding"), None);
    assert_eq!(positions(&follower.take(1).await), [1]);
}

#[tokio::test]
async fn data_with_line_ends_arrive_whole() {
    let app = spawn_app_at_home().await;
    app.teller().account_with(1).await;
    app.tamper("UPDATE event SET data = E'{\"owner\":\\n\"x\",\\r\\n \"initial_deposit\":1}'").await;
    let told = app.teller().follow("").await.take(1).await;
    assert_eq!(data(&told), all(&app).await);
}

/// Reads until `done` says up to where, going away at random and coming back with the last id, now here and now there.
async fn come_and_go(tellers: [Teller; 2], seed: u64, mut done: watch::Receiver<i64>) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    let mut told: Vec<Told> = Vec::new();
    let mut follower = tellers[0].follow("").await;
    loop {
        let stay = dice.throw(40) as usize;
        for _ in 0..stay {
            tokio::select! {
                next = follower.next() => match next {
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
        follower = tellers[dice.throw(2) as usize].resume(last_id).await;
    }
}

#[tokio::test]
async fn what_is_recorded_while_a_page_is_on_its_way_is_told() {
    let (app, proxy) = spawn_app_at_home_behind_proxy(&[]).await;
    app.teller().account_with(0).await;
    let mut steady = app.teller().follow("").await;
    steady.take(1).await;
    let pages = proxy.links_of("passbook trail");
    // From the statement on that asks for the type, which is carried out and whose answer is held.
    pages.iter().for_each(|link| link.flow_from("AccountOpened", Flow::Pass, Flow::Hold));
    let mut follower = eventually("a page on its way", async || {
        let follower = app.teller().follow("?type=AccountOpened").await;
        sleep(Duration::from_millis(200)).await;
        pages.iter().any(|link| !link.awaits_turn()).then_some(follower)
    })
    .await;
    app.teller().account_with(0).await;
    assert_eq!(positions(&steady.take(1).await), [2]);
    pages.iter().for_each(|link| link.flow(Flow::Pass, Flow::Pass));
    assert_eq!(positions(&follower.take(2).await), [1, 2]);
}

/// Movements on an account of its own, with pauses for readers to catch up in.
async fn busy(teller: Teller, seed: u64) {
    let mut dice = Dice::new(seed + 100);
    let account = teller.account_with(1_000).await;
    for _ in 0..51 {
        let moved = match dice.throw(2) {
            0 => teller.deposit(account, 1).await,
            _ => teller.withdraw(account, 1).await,
        };
        moved.expect(201);
        sleep(Duration::from_millis(dice.throw(20))).await;
    }
}

#[tokio::test]
async fn whoever_comes_and_goes_is_told_every_event_once_and_in_order() {
    let app = spawn_app_at_home().await;
    let another = app.another().await;
    let (done, is_done) = watch::channel(0);
    let readers = (1..=8).map(|seed| come_and_go([app.teller(), another.teller()], seed, is_done.clone()));
    let mut steady = app.teller().follow("").await;
    let load = async {
        join_all((0..12).map(|seed| busy(if seed % 2 == 0 { app.teller() } else { another.teller() }, seed))).await;
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
    let end = timeout(Duration::from_secs(PATIENCE_S_MAX), stream.read_to_end(&mut bytes));
    end.await.expect("it is ended").unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")?.split_once('-')?.0.parse().ok());
    (ids.filter(|id| *id > 0).collect(), bytes.ends_with(b"0\r\n\r\n"))
}

#[tokio::test]
async fn a_follower_that_does_not_keep_up_is_ended_and_holds_up_nobody() {
    let app = spawn_app_at_home().await;
    app.teller().account_with(0).await;
    let slow = deaf(&app).await;
    let mut quick = app.teller().follow("").await;
    quick.take(1).await;
    // More than the buffers of both sides hold, and more chunks than wait for one reader.
    for _ in 0..9 {
        app.record_deposits(300, 40_000).await;
        let told = quick.take(300).await;
        assert!(positions(&told).is_sorted());
    }
    assert_eq!(quick.last_id, cursor(app.log().await.events.last().unwrap()));
    let (ids, ended) = ids(slow).await;
    let last = ids.last().copied().unwrap_or_default();
    assert!(ended && last < 2_701, "up to {last}");
    assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "without a gap");
    let told = app.teller().resume(&last.to_string()).await.take(2_701 - last as usize).await;
    assert_eq!(positions(&told), (last + 1..=2_701).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_stops_ends_its_followers_at_once_and_they_go_on_with_the_next() {
    let mut app = spawn_app_at_home().await;
    let account = app.teller().account_with(0).await;
    app.record_deposits(200, 40_000).await;
    let not_reading = deaf(&app).await;
    let mut followers: Vec<Follower> = join_all((0..5).map(async |_| app.teller().follow("?after=1").await)).await;
    for follower in &mut followers {
        follower.take(1).await;
    }
    let mut idle = app.teller().follow("?after=201").await;
    assert!(idle.is_silent_for(Duration::from_millis(100)).await);
    let stopping = Instant::now();
    app.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    drop(not_reading);
    assert_eq!((idle.rest().await, idle.is_broken), (vec![], false), "it is ended, and not cut off");
    let next = app.another().await;
    next.teller().deposit(account, 1).await.expect(201);
    for mut follower in followers {
        let mut told = follower.rest().await;
        let resumed = next.teller().resume(&follower.last_id).await.take(200 - told.len()).await;
        told.extend(resumed);
        assert_eq!(positions(&told), (3..=202).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn followers_of_a_history_that_was_undone_are_ended_and_do_not_go_on() {
    let app = spawn_app_at_home().await;
    let account = app.teller().account_with(0).await;
    app.teller().deposit(account, 1).await.expect(201);
    let mut follower = app.teller().follow("").await;
    let mut of_type = app.teller().follow("?type=AccountOpened").await;
    follower.take(2).await;
    of_type.take(1).await;
    app.replace_last_event().await;
    assert_eq!((follower.rest().await, of_type.rest().await), (vec![], vec![]));
    let header = app.teller().with("last-event-id", &follower.last_id);
    header.get("/v1/events/stream").await.refused(400, "invalid_parameter");
    let mut anew = app.teller().follow("").await;
    assert_eq!(data(&anew.take(2).await), all(&app).await);
}

#[tokio::test]
async fn while_the_database_is_away_a_stream_pauses_and_then_goes_on() {
    let (app, proxy) = spawn_app_at_home_behind_proxy(&[]).await;
    let another = app.another().await;
    let account = another.teller().account_with(0).await;
    let mut follower = app.teller().follow("").await;
    assert_eq!(positions(&follower.take(1).await), [1]);
    for outage in 1..=2 {
        proxy.go_away();
        another.teller().deposit(account, 1).await.expect(201);
        another.teller().deposit(account, 1).await.expect(201);
        assert!(follower.is_silent_for(Duration::from_millis(600)).await);
        proxy.come_back();
        assert_eq!(positions(&follower.take(2).await), [2 * outage, 2 * outage + 1]);
    }
}

#[tokio::test]
async fn an_idle_stream_lives_on_and_its_heartbeat_says_what_was_passed_over() {
    let app = spawn_app_at_home().await;
    let account = app.teller().account_with(0).await;
    let mut follower = app.teller().follow("?type=AccountClosed").await;
    let mut idle = app.teller().follow("?after=1").await;
    follower.block().await.unwrap();
    app.teller().deposit(account, 1).await.expect(201);
    idle.take(1).await;
    let second = cursor(&app.log().await.events[1]);
    let heartbeats = [follower.block().await.unwrap(), idle.block().await.unwrap()];
    assert_eq!(heartbeats, [format!(":\nid: {}\n\n", app.place(&second)), ":\n\n".to_owned()]);
    assert_eq!(follower.block().await.unwrap(), ":\n\n", "nothing new was passed over");
    app.teller().withdraw(account, 1).await.expect(201);
    app.teller().close(account).await.expect(200);
    assert_eq!(positions(&follower.take(1).await), [4]);
    assert_eq!(positions(&idle.take(2).await), [3, 4]);
}

#[tokio::test]
async fn as_many_as_there_are_places_follow_and_others_are_turned_away() {
    let app = spawn_app_at_home().await;
    let account = app.teller().account_with(0).await;
    let mut followers = Vec::new();
    for _ in 0..FEED_READERS_MAX / 100 {
        followers.extend(join_all((0..100).map(async |_| app.teller().follow("").await)).await);
    }
    app.teller().get("/v1/events/stream").await.refused(503, "overloaded");
    // Whatever those who catch up need, queries have what they need.
    app.teller().get("/v1/accounts").await.expect(200);
    app.teller().deposit(account, 1).await.expect(201);
    for follower in &mut followers {
        assert_eq!(positions(&follower.take(2).await), [1, 2]);
    }
    drop(followers);
    // Who has gone is noticed when there is something to tell.
    let mut back = eventually("a place", async || {
        app.teller().deposit(account, 1).await.expect(201);
        sleep(Duration::from_millis(50)).await;
        let told = app.teller().get("/v1/events/stream?after=x").await;
        assert_eq!(told.status, 400);
        let probe = reqwest::get(format!("{}/v1/events/stream", app.url())).await.unwrap();
        (probe.status() == 200).then(|| Follower::new(probe, None))
    })
    .await;
    back.take(2).await;
}

#[tokio::test]
async fn nobody_reads_the_log_for_nobody() {
    let app = spawn_app_at_home().await;
    let account = app.teller().account_with(0).await;
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
    let mut followers = vec![app.teller().follow("").await, app.teller().follow("").await];
    for follower in &mut followers {
        follower.take(1).await;
    }
    eventually("a reader", async || (reads().await == 1).then_some(())).await;
    drop(followers);
    eventually("the end of reading", async || {
        app.teller().deposit(account, 1).await.expect(201);
        (reads().await == 0).then_some(())
    })
    .await;
    assert_eq!(positions(&app.teller().follow("").await.take(1).await), [1]);
}
