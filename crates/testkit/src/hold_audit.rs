//! Folds holds, overdrafts and reversals without any code of the service, and compares every row of the views with the fold.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, query_as};
use uuid::Uuid;

use crate::{
    audit::{AccountFold, balance_change},
    log::Event,
};

/// The state of a hold, folded from its events. `status` is as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldFold {
    /// The account of the hold.
    pub account_id: Uuid,
    /// The version of the account at the placement.
    pub version: i64,
    /// `active`, `captured`, `voided` or `expired`.
    pub status: String,
    /// In minor units.
    pub amount: i64,
    /// The sum of its captures.
    pub captured: i64,
    /// When it is over.
    pub expires_at: DateTime<Utc>,
    /// The client's text.
    pub reference: Option<String>,
}

impl HoldFold {
    /// What can still be captured, until the end of the hold is recorded.
    fn remaining(&self) -> i64 {
        if self.status == "active" { self.amount - self.captured } else { 0 }
    }
}

/// Folds the events of each hold and asserts that captures and releases add up to its amount.
pub fn fold_holds(events: &[Event]) -> BTreeMap<Uuid, HoldFold> {
    let mut holds: BTreeMap<Uuid, HoldFold> = BTreeMap::new();
    for event in events {
        let data = event.json();
        let Some(id) = data["hold_id"].as_str().map(|id| id.parse::<Uuid>().unwrap()) else { continue };
        let amount = data["amount"].as_i64().unwrap();
        match event.event_type.as_str() {
            "HoldPlaced" => {
                let placed = HoldFold {
                    account_id: event.stream_id,
                    version: event.version,
                    status: "active".to_owned(),
                    amount,
                    captured: 0,
                    expires_at: data["expires_at"].as_str().unwrap().parse().unwrap(),
                    reference: data["reference"].as_str().map(str::to_owned),
                };
                assert!(holds.insert(id, placed).is_none(), "hold {id} is placed once");
            }
            "HoldCaptured" | "TransferSent" => {
                let hold = holds.get_mut(&id).unwrap();
                assert_eq!((hold.account_id, hold.status.as_str()), (event.stream_id, "active"), "{hold:?}");
                assert!(event.recorded_at < hold.expires_at, "a hold is captured before it is over");
                hold.captured += amount;
                assert!(hold.captured <= hold.amount, "captures exceed the hold: {hold:?}");
                if data["final"] == true {
                    hold.status = "captured".to_owned();
                }
            }
            "HoldReleased" => {
                let hold = holds.get_mut(&id).unwrap();
                assert_eq!(hold.remaining(), amount, "a release is what remains: {hold:?}");
                hold.status = data["cause"].as_str().unwrap().to_owned();
            }
            _ => {}
        }
    }
    holds
}

/// Compares the rows of holds, their totals, the holds and overdrafts of accounts, and the sums of reversals with the fold.
pub(crate) async fn check_hold_views(
    connection: &mut PgConnection,
    events: &[Event],
    accounts: &BTreeMap<Uuid, AccountFold>,
) {
    let expected = fold_holds(events);
    type Row = (Uuid, Uuid, i64, String, i64, i64, DateTime<Utc>, Option<String>);
    let rows: Vec<Row> = query_as(
        "SELECT hold_id, account_id, version, status, amount, captured, expires_at, reference
         FROM account_hold JOIN projection USING (partition, generation)
         WHERE name = 'holds' AND state = 'live'",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let holds: BTreeMap<Uuid, HoldFold> = rows
        .into_iter()
        .map(|(id, account_id, version, status, amount, captured, expires_at, reference)| {
            (id, HoldFold { account_id, version, status, amount, captured, expires_at, reference })
        })
        .collect();
    assert_eq!(holds, expected, "account_hold equals the fold");
    check_totals(connection, &expected, accounts).await;
    check_accounts(connection, &expected, events, accounts).await;
    check_reversals(connection, events).await;
}

async fn check_totals(
    connection: &mut PgConnection,
    holds: &BTreeMap<Uuid, HoldFold>,
    accounts: &BTreeMap<Uuid, AccountFold>,
) {
    let totals: Vec<(String, String)> = query_as(
        "SELECT currency, sum(held)::text
         FROM held_total JOIN projection USING (partition, generation)
         WHERE name = 'holds' AND state = 'live'
         GROUP BY currency",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let totals: BTreeMap<String, i128> =
        totals.into_iter().map(|(currency, held)| (currency, held.parse().unwrap())).collect();
    let mut expected: BTreeMap<String, i128> = BTreeMap::new();
    for hold in holds.values() {
        *expected.entry(accounts[&hold.account_id].currency.clone()).or_default() += i128::from(hold.remaining());
    }
    assert_eq!(totals, expected, "held_total equals the fold");
}

/// What is held, the number of holds and the overdraft of each account.
async fn check_accounts(
    connection: &mut PgConnection,
    holds: &BTreeMap<Uuid, HoldFold>,
    events: &[Event],
    accounts: &BTreeMap<Uuid, AccountFold>,
) {
    let rows: Vec<(Uuid, i64, i64, i64)> = query_as(
        "SELECT account_id,
                (SELECT coalesce(sum((hold->>'amount')::bigint - (hold->>'captured')::bigint), 0)::bigint
                 FROM json_array_elements(coalesce(holds, '[]')) AS hold),
                json_array_length(coalesce(holds, '[]'))::bigint,
                coalesce((limits->>'overdraft')::bigint, 0)
         FROM account_view JOIN projection USING (partition, generation)
         WHERE name = 'accounts' AND state = 'live'",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let rows: BTreeMap<Uuid, (i64, i64, i64)> =
        rows.into_iter().map(|(id, held, count, overdraft)| (id, (held, count, overdraft))).collect();
    let mut expected: BTreeMap<Uuid, (i64, i64, i64)> = accounts.keys().map(|id| (*id, (0, 0, 0))).collect();
    for hold in holds.values().filter(|hold| hold.status == "active") {
        let account = expected.get_mut(&hold.account_id).unwrap();
        (account.0, account.1) = (account.0 + hold.remaining(), account.1 + 1);
    }
    for event in events.iter().filter(|event| event.event_type == "LimitsSet") {
        expected.get_mut(&event.stream_id).unwrap().2 = event.json()["overdraft"].as_i64().unwrap();
    }
    assert_eq!(rows, expected, "the holds and overdrafts of account_view equal the fold");
}

async fn check_reversals(connection: &mut PgConnection, events: &[Event]) {
    let rows: Vec<(Uuid, i64, i64)> = query_as(
        "SELECT account_id, version, reversed
         FROM reversed_movement JOIN projection USING (partition, generation)
         WHERE name = 'transactions' AND state = 'live'",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let rows: BTreeMap<(Uuid, i64), i64> =
        rows.into_iter().map(|(id, version, reversed)| ((id, version), reversed)).collect();
    let mut expected: BTreeMap<(Uuid, i64), i64> = BTreeMap::new();
    for event in events.iter().filter(|event| event.event_type == "MovementReversed") {
        let version = event.json()["reverses_version"].as_i64().unwrap();
        *expected.entry((event.stream_id, version)).or_default() += balance_change(event).abs();
    }
    for ((account, version), reversed) in &expected {
        let original = events.iter().find(|event| event.stream_id == *account && event.version == *version).unwrap();
        assert!(*reversed <= balance_change(original).abs(), "more was reversed than moved: {original:?}");
    }
    assert_eq!(rows, expected, "reversed_movement equals the fold");
}
