//! Statements, transactions and daily balances of histories with holds, reversals and overdrafts equal the fold of their events.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use passbook_testkit::{
    audit::{audit, balance_change},
    log::Event,
    spawn_app_in_one_partition,
};
use serde_json::{Value, json};

use crate::{
    domain_history::DomainHistory,
    random_history::{account_events, expected_statement},
    statement::{ALL_DAYS, path},
};

const COMMANDS: usize = 60;

/// The days of an account expected from its events.
fn expected_days(events: &[Event]) -> Vec<Value> {
    let mut days: Vec<(NaiveDate, [i64; 5])> = vec![];
    let mut balance = 0;
    for event in events.iter().filter(|event| balance_change(event) != 0) {
        let (date, change) = (event.recorded_at.date_naive(), balance_change(event));
        if days.last().is_none_or(|(last, _)| *last < date) {
            days.push((date, [balance, 0, 0, balance, 0]));
        }
        balance += change;
        let (_, [_, money_in, money_out, closing, count]) = days.last_mut().unwrap();
        *money_in += change.max(0);
        *money_out -= change.min(0);
        (*closing, *count) = (balance, *count + 1);
    }
    let day = |(date, [opening, money_in, money_out, closing, count]): (NaiveDate, [i64; 5])| {
        json!({
            "date": date, "opening": opening, "in": money_in.to_string(), "out": money_out.to_string(),
            "closing": closing, "count": count,
        })
    };
    days.into_iter().map(day).collect()
}

#[tokio::test]
async fn statements_and_days_below_zero_equal_the_fold() {
    let mut kinds = BTreeSet::new();
    let mut counterparties_of_reversals = 0;
    let (mut lowest_line, mut lowest_day) = (0, 0);
    for seed in [7, 8, 9] {
        let app = spawn_app_in_one_partition().await;
        let mut history = DomainHistory::new(&app, seed, COMMANDS);
        history.overdraw(COMMANDS);
        history.append_to(&app).await;
        let (client, log) = (app.client(), app.log().await);
        for account_id in history.accounts.keys() {
            let events = account_events(&log, *account_id);
            let expected = expected_statement(&events, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
            let statement = client.get(&path(*account_id, ALL_DAYS)).await.expect(200);
            for (member, value) in expected.as_object().unwrap() {
                assert_eq!(&statement.body[member], value, "seed {seed}: {member} of {account_id}");
            }
            let list = client.get(&format!("/v1/accounts/{account_id}/transactions?limit=200")).await.expect(200);
            let mut listed = list.data().to_vec();
            listed.reverse();
            for line in &mut listed {
                line.as_object_mut().unwrap().remove("reversed").unwrap();
            }
            assert_eq!(json!(listed), expected["lines"], "seed {seed}: the list has the lines of {account_id}");
            let days = client.get(&format!("/v1/accounts/{account_id}/daily-balances?limit=200")).await.expect(200);
            assert_eq!(days.data(), expected_days(&events), "seed {seed}: days of {account_id}");
            for line in &listed {
                let (kind, counterparty) = (line["kind"].as_str().unwrap(), &line["counterparty_account_id"]);
                kinds.insert(kind.to_owned());
                counterparties_of_reversals += i32::from(kind.starts_with("reversal") && !counterparty.is_null());
                lowest_line = lowest_line.min(line["balance_after"].as_i64().unwrap());
            }
            let closings = days.data().iter().map(|day| day["closing"].as_i64().unwrap());
            lowest_day = closings.fold(lowest_day, i64::min);
        }
        audit(&app).await;
    }
    let all = ["capture", "deposit", "opening_deposit", "reversal_in", "reversal_out", "transfer_in", "transfer_out"];
    assert!(all.iter().chain(&["withdrawal"]).all(|kind| kinds.contains(*kind)), "{kinds:?}");
    assert!(lowest_line < 0 && lowest_day < 0, "an overdraft is used: {lowest_line}, {lowest_day}");
    assert!(counterparties_of_reversals > 0, "a transfer is reversed");
}
