//! Databases of earlier releases with events, views, keys and snapshots: this release reads, projects and verifies them and appends
//! to them. `scripts/record-log` wrote the dumps, which never change.

use futures_util::future::join_all;
use passbook_audit::verification::verify;
use passbook_testkit::{ApiClient, App, audit::audit, eventually, spawn_app_from_dump};
use serde_json::{Value, json};
use uuid::{Uuid, uuid};

/// A release whose database was recorded.
pub struct Release {
    pub dump: &'static str,
    pub flags: &'static [&'static str],
    /// The schema version of deposits and withdrawals.
    movement_version: i16,
}

pub const RELEASE_0_1: Release =
    Release { dump: include_str!("../fixtures/log_0_1.sql"), flags: &[KEEP_KEYS], movement_version: 1 };
/// The last release before holds, reversals and limits.
pub const RELEASE_0_2: Release = Release {
    dump: include_str!("../fixtures/log_0_2.sql"),
    flags: &[KEEP_KEYS, "--partitions=4"],
    movement_version: 2,
};
/// The keys of a dump become older than the default retention.
const KEEP_KEYS: &str = "--idempotency-retention-days=0";
const EVENTS: i64 = 15;
/// The receipts that are recorded under keys.
const RECEIPTS: u64 = 4;

pub const OPEN: Uuid = uuid!("01900000-0000-7000-8000-000000000001");
const FROZEN: Uuid = uuid!("01900000-0000-7000-8000-000000000002");
const CLOSED: Uuid = uuid!("01900000-0000-7000-8000-000000000003");
const MISSING: Uuid = uuid!("01900000-0000-7000-8000-000000000004");
/// The days of both dumps.
const PERIOD: &str = "from=2026-11-01&to=2026-12-01";

/// The members of an object, as a list.
pub fn members<const N: usize>(object: &Value, names: [&str; N]) -> Value {
    names.iter().map(|name| object[*name].clone()).collect()
}

pub fn view(account: &Value) -> Value {
    members(account, ["owner", "currency", "status", "balance", "held", "available", "version", "transaction_count"])
}

pub fn transactions(page: &Value) -> Value {
    let row = |row: &Value| members(row, ["kind", "amount", "balance_after", "reference"]);
    page["data"].as_array().unwrap().iter().map(row).collect()
}

/// A query and the part of its result that the dumps determine.
pub type Read = (String, fn(&Value) -> Value, Value);

/// What each query shows of the recorded log.
pub fn reads() -> Vec<Read> {
    let account = |id: Uuid, query: &str| format!("/v1/accounts/{id}{query}");
    vec![
        (account(OPEN, ""), view, json!(["customer-17", "EUR", "open", 9_003, 0, 9_003, 6, 6])),
        (account(FROZEN, ""), view, json!(["customer-18", "EUR", "frozen", 1_200, 0, 1_200, 6, 2])),
        (account(CLOSED, ""), view, json!(["customer-19", "JPY", "closed", 0, 0, 0, 3, 2])),
        (account(OPEN, "?as_of_version=4"), view, json!(["customer-17", "EUR", "open", 9_000, 0, 9_000, 4, 4])),
        (account(FROZEN, "?as_of_version=4"), view, json!(["customer-18", "EUR", "open", 1_250, 0, 1_250, 4, 1])),
        (
            "/v1/accounts?currency=EUR".to_owned(),
            |page| page["data"].as_array().unwrap().iter().map(|row| members(row, ["owner", "available"])).collect(),
            json!([["customer-18", 1_200], ["customer-17", 9_003]]),
        ),
        (
            account(OPEN, "/transactions"),
            transactions,
            json!([
                ["deposit", 2, 9_003, null],
                ["deposit", 1, 9_001, null],
                ["transfer_out", 1_250, 9_000, "rent"],
                ["withdrawal", 250, 10_250, "cash"],
                ["deposit", 500, 10_500, "salary"],
                ["opening_deposit", 10_000, 10_000, null],
            ]),
        ),
        (
            account(OPEN, &format!("/statement?{PERIOD}")),
            |statement| members(statement, ["opening_balance", "total_in", "total_out", "closing_balance"]),
            json!([0, "10503", "1500", 9_003]),
        ),
        (
            account(OPEN, &format!("/daily-balances?{PERIOD}")),
            |page| members(&page["data"][0], ["opening", "in", "out", "closing", "count"]),
            json!([0, "10503", "1500", 9_003, 6]),
        ),
        (
            "/v1/books/trial-balance".to_owned(),
            |books| {
                let lines = books["data"].as_array().unwrap().iter();
                let lines = lines.filter(|line| line["ledger_account"].as_str().unwrap().starts_with("liabilities"));
                lines.map(|line| members(line, ["currency", "balance"])).collect()
            },
            json!([["EUR", "-10203"], ["EUR", "0"], ["JPY", "0"]]),
        ),
        (
            "/v1/accounts?q=CUSTOMER-1&currency=EUR&sort=-balance".to_owned(),
            |page| page["data"].as_array().unwrap().iter().map(|row| members(row, ["owner", "available"])).collect(),
            json!([["customer-17", 9_003], ["customer-18", 1_200]]),
        ),
        ("/v1/transactions?reference=SAL".to_owned(), transactions, json!([["deposit", 500, 10_500, "salary"]])),
        (account(OPEN, "/holds"), |page| page["data"].clone(), json!([])),
        (
            account(OPEN, "/limits"),
            Value::clone,
            json!({"overdraft": null, "per_movement": null, "out_per_day": null, "out_per_month": null}),
        ),
        (
            "/v1/overview".to_owned(),
            |overview| members(overview, ["accounts", "money", "held"]),
            json!([{"open": 1, "frozen": 1, "closed": 1}, {"EUR": "10203", "JPY": "0"}, {"EUR": "0", "JPY": "0"}]),
        ),
    ]
}

/// Asserts that each query has the expected result. With `can_lag` its response may also be that the view is not built yet. Returns
/// the queries that have a result.
pub async fn check_reads(client: &ApiClient, reads: Vec<Read>, can_lag: bool) -> Vec<String> {
    let responses = join_all(reads.iter().map(|(path, ..)| client.get(path))).await;
    let mut served = Vec::new();
    for ((path, part, expected), response) in reads.into_iter().zip(responses) {
        if can_lag && response.status == 503 {
            response.expect_problem(503, "projection_behind");
        } else {
            assert_eq!(part(&response.expect(200).body), expected, "{path}");
            served.push(path);
        }
    }
    served
}

/// Waits until every view has the shape of this release and has read the whole log.
pub async fn wait_until_rebuilt(app: &App) {
    eventually("live views that have read the whole log", async || {
        let views = app.client().get("/v1/projections").await.expect(200);
        let is_current = |view: &Value| view["state"] == "live" && view["lag_events"] == 0;
        views.data().iter().all(is_current).then_some(())
    })
    .await;
}

async fn assert_reads(app: &App) {
    wait_until_rebuilt(app).await;
    check_reads(&app.client(), reads(), false).await;
}

/// Asserts that this release appends to the recorded accounts, and that what it appends is verified.
async fn assert_appends(app: &App) {
    let client = app.client();
    let deposits = format!("/v1/accounts/{OPEN}/deposits");
    let body = json!({"amount": 500, "currency": "EUR", "reference": "salary", "channel": "atm"});
    let deposited = client.command(&deposits, body).await.expect(201);
    let position = if app.partitions().is_partitioned() { 7 } else { 1 + EVENTS };
    assert_eq!((&deposited.body["balance"], &deposited.body["version"]), (&json!(9_503), &json!(7)));
    assert_eq!(deposited.position(), app.partition_position(OPEN, position));
    client.deposit(FROZEN, 1).await.expect_problem(422, "account_frozen");
    client.deposit(CLOSED, 1).await.expect_problem(422, "account_closed");
}

/// Asserts that the commands of this release work on the recorded accounts and on their movements.
async fn assert_new_commands(client: &ApiClient) {
    let hold = client.place_hold(OPEN, json!({"amount": 9_003})).await.expect(201);
    assert_eq!(members(&hold.body, ["balance", "available"]), json!([9_003, 0]));
    client.withdraw(OPEN, 1).await.expect_problem(422, "insufficient_funds");
    let captured = client.capture_hold(OPEN, hold.uuid("/hold/hold_id"), json!({"amount": 3})).await.expect(201);
    assert_eq!(members(&captured.body, ["balance", "available"]), json!([9_000, 9_000]));
    // The transfer to the frozen account, the withdrawal, and the opening deposit.
    client.reverse(OPEN, 4, json!({})).await.expect_problem(422, "account_frozen");
    client.unfreeze(FROZEN).await.expect(200);
    client.reverse(OPEN, 4, json!({"amount": 1_000})).await.expect(201);
    client.reverse(FROZEN, 2, json!({"amount": 251})).await.expect_problem(422, "exceeds_reversible");
    client.freeze(FROZEN).await.expect(200);
    client.reverse(OPEN, 3, json!({})).await.expect(201);
    client.reverse(OPEN, 1, json!({"amount": 10_000})).await.expect(201);
    client.set_limits(OPEN, json!({"overdraft": 100})).await.expect(200);
    let last = client.withdraw(OPEN, 350).await.expect(201);
    assert_eq!(members(&last.body, ["balance", "available"]), json!([-100, 0]));
}

async fn database_is_read_verified_and_appended_to(release: &Release) {
    let app = spawn_app_from_dump(release.dump, release.flags).await;
    assert_reads(&app).await;

    let as_before = json!({"amount": 500, "currency": "EUR", "reference": "salary"});
    let deposits = format!("/v1/accounts/{OPEN}/deposits");
    let replay = app.client().with_key("deposit-1").command(&deposits, as_before).await.expect(201);
    assert!(replay.is_replay());
    assert_eq!(members(&replay.body, ["balance", "version", "available"]), json!([10_500, 2, null]));
    let other = json!({"amount": 500, "currency": "EUR", "reference": "salary", "channel": "atm"});
    let reused = app.client().with_key("deposit-1").command(&deposits, other).await;
    reused.expect_problem(422, "idempotency_key_reused");

    assert_appends(&app).await;
    app.client().withdraw(OPEN, 500).await.expect(201);
    assert_new_commands(&app.client()).await;

    let log = audit(&app).await;
    let movements = log.events.iter().filter(|event| matches!(&*event.event_type, "MoneyDeposited" | "MoneyWithdrawn"));
    let versions: Vec<i16> = movements.map(|event| event.schema_version).collect();
    let expected = [vec![release.movement_version; 6], vec![2; 3]].concat();
    assert_eq!(versions, expected, "recorded events keep their schema version");
    let report = verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
    // The snapshots of those releases have an older version of the state, and are not used.
    let counts = (report.events, report.accounts, report.receipts, report.snapshots);
    assert_eq!(counts, (log.events.len() as i64, 3, RECEIPTS, 0));
}

async fn views_are_rebuilt(release: &Release) {
    let mut app = spawn_app_from_dump(release.dump, release.flags).await;
    app.stop().await;
    app.sabotage(
        "TRUNCATE account_view, account_transaction, reversed_movement, account_hold, held_total, daily_balance, bank_total, ledger_total;
         DELETE FROM projection",
    )
    .await;
    app.start_again().await;
    assert_reads(&app).await;
    audit(&app).await;
    verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn database_of_release_0_1_is_read_verified_and_appended_to() {
    database_is_read_verified_and_appended_to(&RELEASE_0_1).await;
}

#[tokio::test]
async fn database_of_release_0_2_is_read_verified_and_appended_to() {
    database_is_read_verified_and_appended_to(&RELEASE_0_2).await;
}

#[tokio::test]
async fn views_are_rebuilt_from_the_log_of_release_0_1() {
    views_are_rebuilt(&RELEASE_0_1).await;
}

#[tokio::test]
async fn views_are_rebuilt_from_the_log_of_release_0_2() {
    views_are_rebuilt(&RELEASE_0_2).await;
}

#[tokio::test]
async fn refusals_that_release_0_2_recorded_are_replayed() {
    let app = spawn_app_from_dump(RELEASE_0_2.dump, RELEASE_0_2.flags).await;
    // Everything that was refused would succeed now.
    let client = app.client();
    client.deposit(OPEN, 1).await.expect(201);
    client.unfreeze(FROZEN).await.expect(200);
    client.open(json!({"account_id": MISSING, "currency": "EUR"})).await.expect(201);

    let keyed = |key: &str| client.with_key(&format!("refused-{key}"));
    for (response, status, code) in [
        (keyed("funds").withdraw(OPEN, 9_004).await, 422, "insufficient_funds"),
        (keyed("frozen").deposit(FROZEN, 1).await, 422, "account_frozen"),
        (keyed("closed").deposit(CLOSED, 1).await, 422, "account_closed"),
        (keyed("missing").deposit(MISSING, 1).await, 404, "account_not_found"),
        (keyed("version").if_match("\"5\"").deposit(OPEN, 1).await, 412, "version_mismatch"),
        (keyed("transfer").transfer(OPEN, FROZEN, 1).await, 422, "account_frozen"),
    ] {
        let problem = response.expect_problem(status, code);
        assert!(problem.is_replay(), "{code}");
        let facts = members(&problem.body, ["balance", "available", "current_version"]);
        let expected = match code {
            "insufficient_funds" => json!([9_003, null, null]),
            "version_mismatch" => json!([null, null, 6]),
            _ => json!([null, null, null]),
        };
        assert_eq!(facts, expected, "{code}");
    }
}
