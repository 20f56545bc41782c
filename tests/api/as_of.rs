//! `as_of` and `as_of_version`: an account's view at an earlier time or version.

use chrono::{DateTime, Duration, FixedOffset, SubsecRound, Utc};
use passbook_testkit::{ApiClient, App, Response, audit::audit, log::Event, spawn_app, spawn_app_in_one_partition};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::random_history::{account_events, expected_view, format_time, history};

/// An account with six versions, each at its own time: opened with 0, deposit of 100, frozen, unfrozen, withdrawal of
/// 100, closed.
struct Fixture {
    app: App,
    client: ApiClient,
    account: Uuid,
    events: Vec<Event>,
}

async fn fixture() -> Fixture {
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
    Fixture { app, client, account, events }
}

impl Fixture {
    async fn get(&self, query: &str) -> Response {
        self.client.get(&format!("/v1/accounts/{}?min_position=6&{query}", self.account)).await
    }

    async fn get_at(&self, time: DateTime<Utc>) -> Response {
        self.get(&format!("as_of={}", format_time(time))).await
    }

    /// The time at which this version was recorded.
    fn time(&self, version: usize) -> DateTime<Utc> {
        self.events[version - 1].recorded_at
    }

    fn view(&self, version: usize) -> Value {
        expected_view(&self.events[..version]).unwrap()
    }
}

#[tokio::test]
async fn as_of_includes_events_recorded_at_that_microsecond() {
    let fixture = fixture().await;
    for version in 1..=6 {
        let seen = fixture.get_at(fixture.time(version)).await.expect(200);
        assert_eq!((&seen.body, seen.position()), (&fixture.view(version), "6"), "at version {version}");
    }
    for version in 2..=6 {
        let seen = fixture.get_at(fixture.time(version) - Duration::microseconds(1)).await.expect(200);
        assert_eq!(seen.body, fixture.view(version - 1), "before version {version}");
    }
    drop(fixture.app);
}

#[tokio::test]
async fn as_of_before_the_opening_gives_404() {
    let fixture = fixture().await;
    let seen =
        fixture.get_at(fixture.time(1) - Duration::microseconds(1)).await.expect_problem(404, "account_not_found");
    assert_eq!(seen.position(), "6");
    for long_ago in ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00%2B23:59"] {
        fixture.get(&format!("as_of={long_ago}")).await.expect_problem(404, "account_not_found");
    }
    let unknown = format!("/v1/accounts/{}?as_of={}", Uuid::from_u128(1), format_time(fixture.time(6)));
    fixture.client.get(&unknown).await.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn as_of_in_the_future_is_refused() {
    let fixture = fixture().await;
    for future in ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-23:59"] {
        let refused = fixture.get(&format!("as_of={future}")).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "as_of", "{future}");
    }
}

/// Stops the projectors after they have read the log.
async fn hold_views_back(app: &App) -> PgConnection {
    app.wait_until_projected().await;
    app.lock_checkpoints().await
}

#[tokio::test]
async fn moments_are_not_answered_before_the_view_has_read_them() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.get_account(account, "1").await.expect(200);
    let lock = hold_views_back(&app).await;
    let deposited = client.deposit(account, 1).await.expect(201);
    let at = deposited.text("/events/0/recorded_at").to_owned();
    let moment = at.parse::<DateTime<Utc>>().unwrap() + Duration::microseconds(1);
    let path = format!("/v1/accounts/{account}");
    let moments = [
        format!("{path}?as_of_version=2"),
        format!("{path}?as_of={at}"),
        format!("{path}/transactions?to={}", format_time(moment)),
    ];
    for moment in &moments {
        let behind = client.get(moment).await.expect_problem(503, "projection_behind");
        assert_eq!(behind.position(), "1", "{moment}");
    }
    // The moment before the deposit needs no later event, and is final although the view is behind.
    let before = format_time(at.parse::<DateTime<Utc>>().unwrap() - Duration::microseconds(1));
    assert_eq!(client.get(&format!("{path}?as_of={before}")).await.expect(200).body["balance"], 100);
    lock.close().await.unwrap();
    for (moment, pointer) in moments.iter().zip(["/balance", "/balance", "/data/0/balance_after"]) {
        assert_eq!(client.get(moment).await.expect(200).body.pointer(pointer), Some(&json!(101)), "{moment}");
    }
}

#[tokio::test]
async fn statements_and_days_of_a_past_period_wait_for_the_view() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 1).await.expect(201);
    let lock = hold_views_back(&app).await;
    // The views have read the opening alone, and both events are of a day that is over.
    app.tamper("UPDATE event SET recorded_at = '2026-01-01T12:00:00Z'; UPDATE log_head SET recorded_at = '2026-01-01T12:00:00Z'")
        .await;
    app.tamper(
        "INSERT INTO event SELECT partition, 3, gen_random_uuid(), stream_id, 3, type, schema_version, data, metadata,
                recorded_at, hash FROM event WHERE position = 2; UPDATE log_head SET position = 3",
    )
    .await;
    for query in ["statement?from=2026-01-01&to=2026-01-02", "daily-balances?to=2026-01-02"] {
        let path = format!("/v1/accounts/{account}/{query}");
        client.get(&path).await.expect_problem(503, "projection_behind");
    }
    lock.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_recorded_at_or_before_a_moment_that_was_read() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let recorded_at = |response: &Response| response.text("/events/0/recorded_at").parse::<DateTime<Utc>>().unwrap();
    for _ in 0..5 {
        let now = Utc::now();
        client.get(&format!("/v1/accounts/{account}?as_of={}", format_time(now))).await.expect(200);
        assert!(app.log().await.head.recorded_at >= now.trunc_subsecs(6), "the read raises the head's time");
        let deposited = client.deposit(account, 1).await.expect(201);
        assert!(recorded_at(&deposited) > now);
    }
    // A batch that was decided before the head's time was raised is decided again.
    app.sabotage("UPDATE log_head SET recorded_at = clock_timestamp() + interval '3 seconds'").await;
    let raised = app.log().await.head.recorded_at;
    assert!(recorded_at(&client.deposit(account, 1).await.expect(201)) > raised);
    audit(&app).await;
}

#[tokio::test]
async fn as_of_accepts_any_time_zone() {
    let fixture = fixture().await;
    for hours in [-11, 2, 14] {
        let zone = FixedOffset::east_opt(hours * 3_600).unwrap();
        let local = fixture.time(2).with_timezone(&zone).to_rfc3339().replace('+', "%2B");
        assert_eq!(fixture.get(&format!("as_of={local}")).await.expect(200).body["version"], 2, "{local}");
    }
}

#[tokio::test]
async fn as_of_gives_the_earlier_status_and_balance() {
    let fixture = fixture().await;
    let members =
        |seen: &Response| ["status", "balance", "transaction_count", "closed_at"].map(|key| seen.body[key].clone());
    let frozen = fixture.get_at(fixture.time(3)).await.expect(200);
    assert_eq!(members(&frozen), [json!("frozen"), json!(100), json!(1), Value::Null]);
    let closed = fixture.get_at(fixture.time(6)).await.expect(200);
    assert_eq!(members(&closed), [json!("closed"), json!(0), json!(2), json!(format_time(fixture.time(6)))]);
}

#[tokio::test]
async fn as_of_version_gives_each_version_up_to_the_last() {
    let fixture = fixture().await;
    fixture.get("as_of_version=0").await.expect_problem(404, "account_not_found");
    for version in 1..=6 {
        let seen = fixture.get(&format!("as_of_version={version}")).await.expect(200);
        assert_eq!((&seen.body, seen.header("etag")), (&fixture.view(version), Some(&*format!("\"{version}\""))));
    }
    for beyond in ["7", "9223372036854775807"] {
        let refused = fixture.get(&format!("as_of_version={beyond}")).await.expect_problem(404, "version_not_found");
        assert_eq!(refused.position(), "6");
    }
}

#[tokio::test]
async fn invalid_as_of_is_refused() {
    let fixture = fixture().await;
    let invalid = [
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
    for query in invalid {
        let refused = fixture.get(query).await.expect_problem(400, "invalid_parameter");
        assert!(refused.text("/detail").contains("as_of"), "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn as_of_etag_is_the_version_at_that_time() {
    let fixture = fixture().await;
    let query = format!("as_of={}", format_time(fixture.time(2)));
    assert_eq!(fixture.get(&query).await.expect(200).header("etag"), Some("\"2\""));
    let path = format!("/v1/accounts/{}?{query}", fixture.account);
    let same = fixture.client.with_header("if-none-match", "\"2\"").get(&path).await.expect(304);
    assert_eq!((same.position(), same.bytes.len()), ("6", 0));
    fixture.client.with_header("if-none-match", "\"6\"").get(&path).await.expect(200);
}

#[tokio::test]
async fn as_of_waits_for_min_position() {
    let fixture = fixture().await;
    let path = format!("/v1/accounts/{}?as_of_version=1&min_position=7", fixture.account);
    fixture.client.get(&path).await.expect_problem(503, "projection_behind");
    let another = fixture.client.open_with_balance(5).await;
    let seen = fixture.client.get(&format!("/v1/accounts/{another}?as_of_version=1&min_position=7")).await.expect(200);
    assert_eq!((&seen.body["balance"], seen.position()), (&json!(5), "7"));
}

#[test]
fn as_of_equals_fold_of_events_up_to_any_time_or_version() {
    let runtime = Runtime::new().unwrap();
    let app = runtime.block_on(spawn_app());
    let moments = prop::collection::vec((any::<prop::sample::Index>(), -1..=1i64, 0.0..1.0f64), 12);
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(history(40), moments), |(history, moments)| {
        runtime.block_on(async {
            let accounts = history.run(&app).await;
            let log = app.log().await;
            let position = log.head.position;
            for account in accounts {
                let events = account_events(&log, account);
                for (index, offset, fraction) in &moments {
                    // A time next to an event, and a random time between the first and the last event.
                    let event = index.get(&log.events);
                    let span = (log.head.recorded_at - events[0].recorded_at).num_microseconds().unwrap();
                    let anywhere = Duration::microseconds((span as f64 * fraction) as i64);
                    for time in [event.recorded_at + Duration::microseconds(*offset), events[0].recorded_at + anywhere]
                    {
                        let until: Vec<Event> =
                            events.iter().filter(|event| event.recorded_at <= time).cloned().collect();
                        check(&app, account, position, &format!("as_of={}", format_time(time)), &until).await;
                    }
                    let version = index.index(events.len() + 2);
                    let query = format!("as_of_version={version}");
                    match events.get(..version) {
                        Some(until) => check(&app, account, position, &query, until).await,
                        None => {
                            let beyond = app.client().get(&format!("/v1/accounts/{account}?{query}")).await;
                            beyond.expect_problem(404, "version_not_found");
                        }
                    }
                }
            }
        });
        Ok(())
    });
    result.unwrap();
    runtime.block_on(async move { drop(app) });
}

/// Asserts that the view equals the fold of these events.
async fn check(app: &App, account: Uuid, position: i64, query: &str, events: &[Event]) {
    let seen = app.client().get(&format!("/v1/accounts/{account}?min_position={position}&{query}")).await;
    match expected_view(events) {
        Some(view) => assert_eq!(seen.expect(200).body, view, "{query}"),
        None => drop(seen.expect_problem(404, "account_not_found")),
    }
}
