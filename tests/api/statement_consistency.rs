//! Statements agree with the events of their period, with adjacent statements, and with concurrent commands.

use std::fmt::Write;

use chrono::{DateTime, Days, Duration, NaiveDate, NaiveTime, Utc};
use futures_util::future::join;
use passbook_testkit::{
    App, Response,
    log::{Event, Log},
    spawn_app_in_one_partition,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::{
    random_history::{account_events, expected_statement, history},
    statement::{ALL_DAYS, as_rows, path, rows},
};

fn beginning(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

#[tokio::test]
async fn concurrent_statement_contains_exactly_its_position() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(1).await;
    let depositing = async {
        for _ in 0..60 {
            client.deposit(account, 1).await.expect(201);
        }
    };
    let reading = async {
        let mut statements = Vec::new();
        for _ in 0..60 {
            statements.push(client.get(&path(account, &format!("{ALL_DAYS}&min_position=1"))).await.expect(200));
        }
        statements
    };
    let ((), statements) = join(depositing, reading).await;
    let log = app.log().await;
    for statement in statements {
        let position: i64 = statement.text("/position").parse().unwrap();
        assert_statement(&statement, &log.events[..usize::try_from(position).unwrap()], NaiveDate::MIN, NaiveDate::MAX);
    }
}

/// Asserts that the statement equals the one expected from these events of its account.
#[track_caller]
fn assert_statement(statement: &Response, events: &[Event], from: NaiveDate, to: NaiveDate) {
    let expected = expected_statement(events, beginning(from), beginning(to));
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&statement.body[member], value, "{member} from {from} to {to}");
    }
    assert_eq!(statement.body["position"], statement.position());
}

/// The time from the previous event to an event.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The same time.
    None,
    /// This many microseconds.
    Micros(i64),
    /// Up to the midnight after so many days, plus so many microseconds.
    Midnight(u64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::None),
        4 => (1..10_000_000_000i64).prop_map(Step::Micros),
        3 => (1..4u64, -1..=1i64).prop_map(|(days, offset)| Step::Midnight(days, offset)),
    ]
}

/// Spreads the events over many days in their order, and resets the views.
async fn spread_over_days(app: &App, log: &Log, steps: &[Step]) {
    let mut time = beginning(NaiveDate::from_ymd_opt(2026, 1, 1).unwrap());
    let mut moved = String::new();
    for (event, step) in log.events.iter().zip(steps.iter().cycle()) {
        time = match *step {
            Step::None => time,
            Step::Micros(micros) => time + Duration::microseconds(micros),
            Step::Midnight(days, offset) => {
                (beginning(time.date_naive() + Days::new(days)) + Duration::microseconds(offset)).max(time)
            }
        };
        let comma = if moved.is_empty() { "" } else { ", " };
        write!(moved, "{comma}({}, '{}'::timestamptz)", event.position, time.to_rfc3339()).unwrap();
    }
    app.tamper(&format!(
        "UPDATE event SET recorded_at = moved.at FROM (VALUES {moved}) AS moved (position, at)
         WHERE event.position = moved.position;
         UPDATE projection SET position = 0;
         TRUNCATE account_view, account_transaction, reversed_movement, account_hold, held_total, daily_balance, bank_total, ledger_total"
    ))
    .await;
}

/// Asserts the statements of consecutive periods of each account.
async fn assert_consecutive_statements(app: &App, accounts: &[Uuid], log: &Log, bounds: &[NaiveDate]) {
    for account in accounts {
        let events = account_events(log, *account);
        let (mut balance, mut lines) = (json!(0), vec![]);
        for days in bounds.windows(2) {
            let query = format!("from={}&to={}&min_position={}", days[0], days[1], log.head.position);
            let statement = app.client().get(&path(*account, &query)).await.expect(200);
            assert_statement(&statement, &events, days[0], days[1]);
            assert_eq!(
                statement.body["opening_balance"], balance,
                "the opening balance equals the previous closing balance"
            );
            balance = statement.body["closing_balance"].clone();
            lines.extend(statement.body["lines"].as_array().unwrap().clone());
            let csv = app.client().with_header("accept", "text/csv").get(&path(*account, &query)).await.expect(200);
            assert_eq!(rows(&csv), as_rows(&statement.body));
        }
        let whole = expected_statement(&events, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        assert_eq!(
            (&balance, &json!(lines)),
            (&whole["closing_balance"], &whole["lines"]),
            "consecutive statements contain each movement once"
        );
    }
}

#[test]
fn consecutive_statements_equal_the_fold_of_their_events() {
    let runtime = Runtime::new().unwrap();
    let config = Config { cases: 6, max_shrink_iters: 16, failure_persistence: None, ..Config::default() };
    let strategy = (history(60), vec(step(), 40), vec((any::<Index>(), 0..2u64), 1..10));
    let result = TestRunner::new(config).run(&strategy, |(history, steps, days)| {
        runtime.block_on(async {
            let app = spawn_app_in_one_partition().await;
            let accounts = history.run(&app).await;
            app.wait_until_projected().await;
            spread_over_days(&app, &app.log().await, &steps).await;
            let log = app.log().await;
            // Period bounds: days of some events and the following days, between two days outside of the whole history.
            let mut bounds =
                vec![NaiveDate::from_ymd_opt(2025, 1, 1).unwrap(), NaiveDate::from_ymd_opt(2031, 1, 1).unwrap()];
            bounds.extend(
                days.iter().map(|(index, after)| index.get(&log.events).recorded_at.date_naive() + Days::new(*after)),
            );
            bounds.sort_unstable();
            assert_consecutive_statements(&app, &accounts, &log, &bounds).await;
        });
        Ok(())
    });
    result.unwrap();
}
