//! An account as it was: at any time since its opening, and at any of its versions.

use chrono::{DateTime, Duration, FixedOffset, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::{
    Response, App, ApiClient,
    random_history::{account_events, history, expected_view, format_time},
    log::Event,
    spawn_app, spawn_app_in_one_partition,
};

/// Opened with nothing, 100 paid in, frozen, unfrozen, 100 paid out, closed: six versions, each at its own time.
struct Life {
    app: App,
    client: ApiClient,
    account: Uuid,
    events: Vec<Event>,
}

async fn life() -> Life {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    client.deposit(account, 100).await.expect(201);
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    client.withdraw(account, 100).await.expect(201);
    client.close(account).await.expect(200);
    let events = app.log().await.events;
    assert!(events.windows(2).all(|pair| pair[0].recorded_at < pair[1].recorded_at));
    Life { app, client, account, events }
}

impl Life {
    async fn seen(&self, query: &str) -> Response {
        self.client.get(&format!("/v1/accounts/{}?min_position=6&{query}", self.account)).await
    }

    async fn seen_at(&self, time: DateTime<Utc>) -> Response {
        self.seen(&format!("as_of={}", format_time(time))).await
    }

    /// When it came to this version.
    fn time(&self, version: usize) -> DateTime<Utc> {
        self.events[version - 1].recorded_at
    }

    fn view(&self, version: usize) -> Value {
        expected_view(&self.events[..version]).unwrap()
    }
}

#[tokio::test]
async fn what_was_recorded_at_the_very_microsecond_is_included_and_nothing_later() {
    let life = life().await;
    for version in 1..=6 {
        let seen = life.seen_at(life.time(version)).await.expect(200);
        assert_eq!((&seen.body, seen.position()), (&life.view(version), "6"), "at version {version}");
    }
    for version in 2..=6 {
        let seen = life.seen_at(life.time(version) - Duration::microseconds(1)).await.expect(200);
        assert_eq!(seen.body, life.view(version - 1), "before version {version}");
    }
    drop(life.app);
}

#[tokio::test]
async fn before_its_opening_there_is_no_account() {
    let life = life().await;
    let seen = life.seen_at(life.time(1) - Duration::microseconds(1)).await.expect_problem(404, "account_not_found");
    assert_eq!(seen.position(), "6");
    for long_ago in ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00%2B23:59"] {
        life.seen(&format!("as_of={long_ago}")).await.expect_problem(404, "account_not_found");
    }
    let nobody = format!("/v1/accounts/{}?as_of=9999-12-31T23:59:59Z", Uuid::from_u128(1));
    life.client.get(&nobody).await.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn in_the_future_it_is_as_it_is_now() {
    let life = life().await;
    let now = life.client.get_account(life.account, "6").await.expect(200);
    for future in ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-23:59"] {
        assert_eq!(life.seen(&format!("as_of={future}")).await.expect(200).body, now.body, "{future}");
    }
}

#[tokio::test]
async fn the_time_may_be_told_in_any_zone() {
    let life = life().await;
    for hours in [-11, 2, 14] {
        let zone = FixedOffset::east_opt(hours * 3_600).unwrap();
        let local = life.time(2).with_timezone(&zone).to_rfc3339().replace('+', "%2B");
        assert_eq!(life.seen(&format!("as_of={local}")).await.expect(200).body["version"], 2, "{local}");
    }
}

#[tokio::test]
async fn it_was_frozen_then_and_is_closed_since() {
    let life = life().await;
    let told =
        |seen: &Response| ["status", "balance", "transaction_count", "closed_at"].map(|key| seen.body[key].clone());
    let frozen = life.seen_at(life.time(3)).await.expect(200);
    assert_eq!(told(&frozen), [json!("frozen"), json!(100), json!(1), Value::Null]);
    let closed = life.seen_at(life.time(6)).await.expect(200);
    assert_eq!(told(&closed), [json!("closed"), json!(0), json!(2), json!(format_time(life.time(6)))]);
}

#[tokio::test]
async fn each_version_can_be_seen_and_one_that_has_not_come_yet_is_the_last() {
    let life = life().await;
    life.seen("as_of_version=0").await.expect_problem(404, "account_not_found");
    for version in 1..=6 {
        let seen = life.seen(&format!("as_of_version={version}")).await.expect(200);
        assert_eq!((&seen.body, seen.header("etag")), (&life.view(version), Some(&*format!("\"{version}\""))));
    }
    for beyond in ["7", "9223372036854775807"] {
        assert_eq!(life.seen(&format!("as_of_version={beyond}")).await.expect(200).body, life.view(6));
    }
}

#[tokio::test]
async fn a_moment_that_is_none_is_refused() {
    let life = life().await;
    let wrong = [
        "as_of=",
        "as_of=yesterday",
        "as_of=2026-01-31",
        "as_of=2026-01-31T12:00:00",
        "as_of=2026-02-30T12:00:00Z",
        "as_of=2026-01-31T12:00:00+02:00",
        "as_of=%2B12345-01-01T00:00:00Z",
        "as_of=9999-12-31T23:59:61Z",
        "as_of_version=",
        "as_of_version=-1",
        "as_of_version=two",
        "as_of_version=1.5",
        "as_of_version=9223372036854775808",
        "as_of=2026-01-31T12:00:00Z&as_of_version=1",
        "as_of_version=1&as_of_version=2",
    ];
    for query in wrong {
        let refused = life.seen(query).await.expect_problem(400, "invalid_parameter");
        assert!(refused.text("/detail").contains("as_of"), "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn its_etag_is_the_version_that_it_had() {
    let life = life().await;
    let query = format!("as_of={}", format_time(life.time(2)));
    assert_eq!(life.seen(&query).await.expect(200).header("etag"), Some("\"2\""));
    let path = format!("/v1/accounts/{}?{query}", life.account);
    let same = life.client.with_header("if-none-match", "\"2\"").get(&path).await.expect(304);
    assert_eq!((same.position(), same.bytes.len()), ("6", 0));
    life.client.with_header("if-none-match", "\"6\"").get(&path).await.expect(200);
}

#[tokio::test]
async fn it_waits_for_the_position_that_is_asked_for() {
    let life = life().await;
    let path = format!("/v1/accounts/{}?as_of_version=1&min_position=7", life.account);
    life.client.get(&path).await.expect_problem(503, "projection_behind");
    let another = life.client.open_with_balance(5).await;
    let seen = life.client.get(&format!("/v1/accounts/{another}?as_of_version=1&min_position=7")).await.expect(200);
    assert_eq!((&seen.body["balance"], seen.position()), (&json!(5), "7"));
}

#[test]
fn at_any_time_and_version_it_is_what_the_events_until_then_make_of_it() {
    let runtime = Runtime::new().unwrap();
    let app = runtime.block_on(spawn_app());
    let moments = prop::collection::vec((any::<prop::sample::Index>(), -1..=1i64, 0.0..1.0f64), 12);
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&(history(40), moments), |(history, moments)| {
        runtime.block_on(async {
            let accounts = history.run(&app).await;
            let log = app.log().await;
            let position = log.head.position;
            for account in accounts {
                let events = account_events(&log, account);
                for (index, beside, within) in &moments {
                    // About one of the events, or anywhere between the first and the last.
                    let event = index.get(&log.events);
                    let span = (log.head.recorded_at - events[0].recorded_at).num_microseconds().unwrap();
                    let anywhere = Duration::microseconds((span as f64 * within) as i64);
                    for time in [event.recorded_at + Duration::microseconds(*beside), events[0].recorded_at + anywhere]
                    {
                        let until: Vec<Event> =
                            events.iter().filter(|event| event.recorded_at <= time).cloned().collect();
                        check(&app, account, position, &format!("as_of={}", format_time(time)), &until).await;
                    }
                    let version = index.index(events.len() + 2);
                    let until = &events[..version.min(events.len())];
                    check(&app, account, position, &format!("as_of_version={version}"), until).await;
                }
            }
        });
        Ok(())
    });
    tried.unwrap();
    runtime.block_on(async move { drop(app) });
}

/// What is seen is what these events make.
async fn check(app: &App, account: Uuid, position: i64, query: &str, events: &[Event]) {
    let seen = app.client().get(&format!("/v1/accounts/{account}?min_position={position}&{query}")).await;
    match expected_view(events) {
        Some(view) => assert_eq!(seen.expect(200).body, view, "{query}"),
        None => drop(seen.expect_problem(404, "account_not_found")),
    }
}
