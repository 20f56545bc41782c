//! Checks a log and its views without any code of the service. It recomputes the hash chain, folds the events, and compares every
//! row of the views with the fold.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, query, query_as, query_scalar};
use uuid::Uuid;

use crate::{
    App,
    books_audit::check_ledger,
    eventually,
    hold_audit::check_hold_views,
    log::{Event, Log, read, read_in_snapshot},
};

/// The state of an account, folded from its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountFold {
    /// The owner of the account.
    pub owner: String,
    /// The ISO 4217 code.
    pub currency: String,
    /// `open`, `frozen` or `closed`.
    pub status: String,
    /// In minor units.
    pub balance: i64,
    /// The number of its events.
    pub version: i64,
    /// The number of its events that move money.
    pub transaction_count: i64,
}

/// Asserts every invariant of the log, waits until the views have read it, and compares them with the fold.
pub async fn audit(app: &App) -> Log {
    audit_database(&mut app.database().await).await
}

/// Like [`audit`], for the database of another test bed.
pub async fn audit_database(connection: &mut PgConnection) -> Log {
    // The service can record expiries meanwhile, so log and views are read in one snapshot.
    begin_with_complete_views(connection).await;
    let log = read_in_snapshot(connection).await;
    check_order(&log);
    assert_eq!(expected_hashes(&log.events).last(), log.events.last().map(|event| event.hash.clone()).as_ref());
    for (event, expected) in log.events.iter().zip(expected_hashes(&log.events)) {
        assert_eq!(event.hash, expected, "hash of the event at position {}", event.position);
    }
    for head in &log.heads {
        let last = log.events.iter().rfind(|event| event.partition == head.partition);
        assert_eq!(
            head.hash,
            last.map_or(vec![0; 32], |event| event.hash.clone()),
            "the hash in log_head is that of the last event"
        );
    }
    check_transfers(&log.events);

    let accounts = fold(&log.events);
    let has_limits =
        |account: &Uuid| log.events.iter().any(|event| event.stream_id == *account && event.event_type == "LimitsSet");
    for (account, fold) in &accounts {
        assert!(
            fold.balance >= 0 || has_limits(account),
            "a balance without an overdraft is negative: {account} {fold:?}"
        );
    }
    let balances: i64 = accounts.values().map(|account| account.balance).sum();
    assert_eq!(
        balances,
        money_in(&log.events) - money_out(&log.events),
        "the balances equal deposits minus withdrawals"
    );
    check_views(connection, &log, &accounts).await;
    query("COMMIT").execute(connection).await.unwrap();
    log
}

/// Begins a transaction with a snapshot in which the views have read the whole log.
async fn begin_with_complete_views(connection: &mut PgConnection) {
    let connection = tokio::sync::Mutex::new(connection);
    eventually("views that have read the whole log", async || {
        let mut connection = connection.lock().await;
        query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut **connection).await.unwrap();
        let behind = "SELECT count(*)
                      FROM (SELECT DISTINCT name FROM projection) AS view
                      CROSS JOIN log_head AS head
                      LEFT JOIN projection ON projection.partition = head.partition AND projection.name = view.name
                          AND state = 'live' AND projection.position >= head.position
                      WHERE projection.name IS NULL";
        let behind: i64 = query_scalar(behind).fetch_one(&mut **connection).await.unwrap();
        if behind > 0 {
            query("ROLLBACK").execute(&mut **connection).await.unwrap();
        }
        (behind == 0).then_some(())
    })
    .await;
}

/// Each sent transfer was received with the same amount, also in another partition, and so was each reversal of a transfer.
fn check_transfers(events: &[Event]) {
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    for event in events.iter().filter(|event| is_between_accounts(event)) {
        *open.entry(event.json()["transfer_id"].to_string()).or_default() += balance_change(event);
    }
    assert!(open.values().all(|rest| *rest == 0), "transfers whose two sides differ: {open:?}");
}

/// Whether the event is one side of a transfer, or of the reversal of one.
fn is_between_accounts(event: &Event) -> bool {
    !event.json()["transfer_id"].is_null()
}

/// Recomputes the hash of each event: SHA-256 over the hash of the previous event of its partition and the event's
/// fields, each prefixed by its length.
pub fn expected_hashes(events: &[Event]) -> Vec<Vec<u8>> {
    let mut last: BTreeMap<i16, Vec<u8>> = BTreeMap::new();
    let mut hashes = Vec::new();
    for event in events {
        let previous = last.entry(event.partition).or_insert_with(|| vec![0; 32]);
        let mut bytes = previous.clone();
        let mut field = |field: &[u8]| {
            bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend(field);
        };
        field(&event.partition.to_be_bytes());
        field(&event.position.to_be_bytes());
        field(event.id.as_bytes());
        field(event.stream_id.as_bytes());
        field(&event.version.to_be_bytes());
        field(event.event_type.as_bytes());
        field(&event.schema_version.to_be_bytes());
        field(event.data.as_bytes());
        field(event.metadata.as_bytes());
        field(&event.recorded_at.timestamp_micros().to_be_bytes());
        *previous = Sha256::digest(&bytes).to_vec();
        hashes.push(previous.clone());
    }
    hashes
}

/// Asserts dense positions, dense versions, and times that never decrease.
fn check_order(log: &Log) {
    let mut versions: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut ends: BTreeMap<i16, (i64, DateTime<Utc>)> = BTreeMap::new();
    for event in &log.events {
        let (position, recorded_at) = ends.entry(event.partition).or_insert((0, DateTime::UNIX_EPOCH));
        assert_eq!(event.position, *position + 1, "positions are dense");
        assert!(event.recorded_at >= *recorded_at, "recorded_at never decreases");
        (*position, *recorded_at) = (event.position, event.recorded_at);
        let version = versions.entry(event.stream_id).or_default();
        *version += 1;
        assert_eq!(event.version, *version, "versions are dense in {}", event.stream_id);
    }
    for head in &log.heads {
        let last = ends.get(&head.partition).map_or(0, |end| end.0);
        assert_eq!(head.position, last, "the position in log_head is that of the last event");
    }
}

/// Folds the events of each account.
pub fn fold(events: &[Event]) -> BTreeMap<Uuid, AccountFold> {
    let mut accounts: BTreeMap<Uuid, AccountFold> = BTreeMap::new();
    for event in events.iter().filter(|event| !event.event_type.starts_with("Webhook")) {
        let account = accounts.entry(event.stream_id).or_default();
        let change = balance_change(event);
        account.version += 1;
        account.balance += change;
        account.transaction_count += i64::from(change != 0);
        match event.event_type.as_str() {
            "AccountOpened" => {
                let data = event.json();
                account.owner = data["owner"].as_str().unwrap().to_owned();
                account.currency = data["currency"].as_str().unwrap().to_owned();
                account.status = "open".to_owned();
            }
            "AccountFrozen" => account.status = "frozen".to_owned(),
            "AccountUnfrozen" => account.status = "open".to_owned(),
            "AccountClosed" => account.status = "closed".to_owned(),
            _ => {}
        }
    }
    accounts
}

/// The change of the balance by an event; negative for a debit.
pub fn balance_change(event: &Event) -> i64 {
    let data = event.json();
    match event.event_type.as_str() {
        "AccountOpened" => data["initial_deposit"].as_i64().unwrap(),
        "MoneyDeposited" | "TransferReceived" => data["amount"].as_i64().unwrap(),
        "MoneyWithdrawn" | "TransferSent" | "HoldCaptured" => -data["amount"].as_i64().unwrap(),
        "MovementReversed" if data["effect"] == "credit" => data["amount"].as_i64().unwrap(),
        "MovementReversed" => -data["amount"].as_i64().unwrap(),
        "HoldPlaced" | "HoldReleased" | "LimitsSet" | "AccountFrozen" | "AccountUnfrozen" | "AccountClosed" => 0,
        other if other.starts_with("Webhook") => 0,
        unknown => panic!("unknown event type {unknown}"),
    }
}

/// What came into the bank. The types are named again, so that the sum does not follow from [`balance_change`].
fn money_in(events: &[Event]) -> i64 {
    let amount = |event: &Event| match (event.event_type.as_str(), event.json()) {
        ("AccountOpened", data) => data["initial_deposit"].as_i64().unwrap(),
        ("MoneyDeposited", data) => data["amount"].as_i64().unwrap(),
        ("MovementReversed", data) if data["effect"] == "credit" => data["amount"].as_i64().unwrap(),
        _ => 0,
    };
    events.iter().filter(|event| !is_between_accounts(event)).map(amount).sum()
}

/// What left the bank, as [`money_in`].
fn money_out(events: &[Event]) -> i64 {
    let amount = |event: &Event| match (event.event_type.as_str(), event.json()) {
        ("MoneyWithdrawn" | "HoldCaptured", data) => data["amount"].as_i64().unwrap(),
        ("MovementReversed", data) if data["effect"] == "debit" => data["amount"].as_i64().unwrap(),
        _ => 0,
    };
    events.iter().filter(|event| !is_between_accounts(event)).map(amount).sum()
}

/// Compares the views with the fold but does not check the hash chain, because the test changed the times of events.
pub async fn audit_views(app: &App) {
    let mut connection = app.database().await;
    let log = read(&mut connection).await;
    check_views(&mut connection, &log, &fold(&log.events)).await;
}

/// Waits until the views have read the log, then compares every row with the fold.
async fn check_views(connection: &mut PgConnection, log: &Log, accounts: &BTreeMap<Uuid, AccountFold>) {
    let views: Vec<(Uuid, String, String, String, i64, i64, i64)> = query_as(
        "SELECT account_id, owner, currency, status, balance, version, transaction_count
         FROM account_view JOIN projection USING (partition, generation)
         WHERE name = 'accounts' AND state = 'live'
         ORDER BY account_id",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let views: BTreeMap<Uuid, AccountFold> = views
        .into_iter()
        .map(|(id, owner, currency, status, balance, version, transaction_count)| {
            (id, AccountFold { owner, currency, status, balance, version, transaction_count })
        })
        .collect();
    assert_eq!(&views, accounts, "account_view equals the fold");

    let movements: Vec<(Uuid, i64, i64, i64, Uuid)> = query_as(
        "SELECT account_id, version, amount, balance_after, event_id
         FROM account_transaction JOIN projection USING (partition, generation)
         WHERE name = 'transactions' AND state = 'live' AND amount > 0
         ORDER BY account_id, version",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    assert_eq!(movements, expected_movements(&log.events), "account_transaction equals the fold");
    check_days(&mut *connection, &log.events).await;
    check_totals(&mut *connection, accounts).await;
    check_ledger(&mut *connection, &log.events).await;
    check_hold_views(connection, &log.events, accounts).await;
}

/// The numbers of open, frozen and closed accounts of a currency, and the sum of their balances.
type Total = (i64, i64, i64, i128);

async fn check_totals(connection: &mut PgConnection, accounts: &BTreeMap<Uuid, AccountFold>) {
    let rows: Vec<(String, i64, i64, i64, String)> = query_as(
        "SELECT currency, sum(open)::bigint, sum(frozen)::bigint, sum(closed)::bigint, sum(money)::text
         FROM bank_total JOIN projection USING (partition, generation)
         WHERE name = 'bank_totals' AND state = 'live'
         GROUP BY currency",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let totals: BTreeMap<String, Total> = rows
        .into_iter()
        .map(|(currency, open, frozen, closed, money)| (currency, (open, frozen, closed, money.parse().unwrap())))
        .collect();
    let mut expected: BTreeMap<String, Total> = BTreeMap::new();
    for account in accounts.values() {
        let (open, frozen, closed, money) = expected.entry(account.currency.clone()).or_default();
        match account.status.as_str() {
            "open" => *open += 1,
            "frozen" => *frozen += 1,
            _ => *closed += 1,
        }
        *money += i128::from(account.balance);
    }
    assert_eq!(totals, expected, "bank_total equals the fold");
}

/// Opening balance, money in, money out, closing balance and number of movements of an account's day.
type Day = (i64, i128, i128, i64, i64);

async fn check_days(connection: &mut PgConnection, events: &[Event]) {
    let rows: Vec<(Uuid, NaiveDate, i64, String, String, i64, i64)> = query_as(
        "SELECT account_id, day, opening, money_in::text, money_out::text, closing, count
         FROM daily_balance JOIN projection USING (partition, generation)
         WHERE name = 'daily_balances' AND state = 'live'",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let days: BTreeMap<(Uuid, NaiveDate), Day> = rows
        .into_iter()
        .map(|(id, day, opening, money_in, money_out, closing, count)| {
            ((id, day), (opening, money_in.parse().unwrap(), money_out.parse().unwrap(), closing, count))
        })
        .collect();
    assert_eq!(days, expected_days(events), "daily_balance equals the fold");
}

fn expected_days(events: &[Event]) -> BTreeMap<(Uuid, NaiveDate), Day> {
    let mut balances: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut days: BTreeMap<(Uuid, NaiveDate), Day> = BTreeMap::new();
    for event in events.iter().filter(|event| balance_change(event) != 0) {
        let change = balance_change(event);
        let balance = balances.entry(event.stream_id).or_default();
        let day =
            days.entry((event.stream_id, event.recorded_at.date_naive())).or_insert((*balance, 0, 0, *balance, 0));
        *balance += change;
        match change > 0 {
            true => day.1 += i128::from(change),
            false => day.2 += i128::from(change.abs()),
        }
        (day.3, day.4) = (*balance, day.4 + 1);
    }
    days
}

fn expected_movements(events: &[Event]) -> Vec<(Uuid, i64, i64, i64, Uuid)> {
    let mut balances: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut movements = Vec::new();
    for event in events {
        let change = balance_change(event);
        let balance = balances.entry(event.stream_id).or_default();
        *balance += change;
        if change != 0 {
            movements.push((event.stream_id, event.version, change.abs(), *balance, event.id));
        }
    }
    movements.sort_unstable();
    movements
}
