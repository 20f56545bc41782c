//! The daily balances view: opening and closing balance of an account for each day with movements.

use std::collections::BTreeMap;

use passbook_testkit::{
    ApiClient, App, Response,
    audit::{audit, audit_views},
    eventually, spawn_app_in_one_partition,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// An account with movements on four days of January 2026, and another one with a movement on January 3 only.
struct January {
    app: App,
    client: ApiClient,
    account: Uuid,
    other: Uuid,
}

async fn january() -> January {
    let mut app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 20).await.expect(201);
    client.withdraw(account, 70).await.expect(201);
    let other = client.open_with_balance(0).await;
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    client.transfer(account, other, 50).await.expect(201);
    client.deposit(account, 5).await.expect(201);
    // Days by position: 1-2, 3-4, 5-8, 9. The events of the second day are a microsecond before midnight.
    app.tamper(
        "BEGIN;
         UPDATE event SET recorded_at = (CASE
             WHEN position <= 2 THEN '2026-01-01T12:00:00Z'
             WHEN position <= 4 THEN '2026-01-02T23:59:59.999999Z'
             WHEN position <= 8 THEN '2026-01-03T00:00:00Z'
             ELSE '2026-01-31T12:00:00Z' END)::timestamptz;
         TRUNCATE projection, account_view, account_transaction, reversed_movement, account_hold, held_total, daily_balance, bank_total, ledger_total;
         COMMIT",
    )
    .await;
    // The projector reads the log again, with the changed times.
    app.restart().await;
    eventually("views that have read the whole log", async || {
        let views = app.client().get("/v1/projections").await;
        let live = |view: &Value| view["state"] == "live" && view["position"] == "9";
        (views.status == 200 && views.data().iter().all(live)).then_some(())
    })
    .await;
    let client = app.client();
    January { app, client, account, other }
}

impl January {
    async fn days(&self, account: Uuid, query: &str) -> Response {
        self.client.get(&format!("/v1/accounts/{account}/daily-balances?min_position=9{query}")).await
    }

    async fn dates(&self, query: &str) -> Vec<u32> {
        let days = self.days(self.account, query).await.expect(200);
        let day = |row: &Value| row["date"].as_str().unwrap().strip_prefix("2026-01-").unwrap().parse().unwrap();
        days.data().iter().map(day).collect()
    }
}

#[tokio::test]
async fn days_with_movements_are_listed_oldest_first() {
    let january = january().await;
    let days = january.days(january.account, "").await.expect(200);
    let expected = json!({"data": [
        {"date": "2026-01-01", "opening": 0, "in": "120", "out": "0", "closing": 120, "count": 2},
        {"date": "2026-01-02", "opening": 120, "in": "0", "out": "70", "closing": 50, "count": 1},
        {"date": "2026-01-03", "opening": 50, "in": "0", "out": "50", "closing": 0, "count": 1},
        {"date": "2026-01-31", "opening": 0, "in": "5", "out": "0", "closing": 5, "count": 1},
    ], "next": null});
    assert_eq!((&days.body, days.position()), (&expected, "9"));
    let other = january.days(january.other, "").await.expect(200);
    let day = json!({"date": "2026-01-03", "opening": 0, "in": "50", "out": "0", "closing": 50, "count": 1});
    assert_eq!(other.body, json!({"data": [day], "next": null}));
    audit_views(&january.app).await;
}

#[tokio::test]
async fn daily_balances_agree_with_the_transactions() {
    let january = january().await;
    // These movements add the current day to the view.
    january.client.withdraw(january.account, 2).await.expect(201);
    january.client.deposit(january.other, 7).await.expect(201);
    for account in [january.account, january.other] {
        let path = format!("/v1/accounts/{account}/transactions?min_position=11");
        let movements = january.client.get(&path).await.expect(200);
        let mut by_day: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for movement in movements.data().iter().rev() {
            by_day.entry(movement["recorded_at"].as_str().unwrap()[..10].to_owned()).or_default().push(movement);
        }
        let days =
            january.client.get(&format!("/v1/accounts/{account}/daily-balances?min_position=11")).await.expect(200);
        let summary =
            |day: &Value| (day["date"].as_str().unwrap().to_owned(), day["closing"].clone(), day["count"].clone());
        let expected: Vec<_> = by_day
            .into_iter()
            .map(|(day, movements)| (day, movements.last().unwrap()["balance_after"].clone(), json!(movements.len())))
            .collect();
        assert_eq!(days.data().iter().map(summary).collect::<Vec<_>>(), expected);
    }
    audit_views(&january.app).await;
}

#[tokio::test]
async fn from_is_inclusive_and_to_is_exclusive() {
    let january = january().await;
    assert_eq!(january.dates("&from=2026-01-02").await, [2, 3, 31]);
    assert_eq!(january.dates("&to=2026-01-03").await, [1, 2]);
    assert_eq!(january.dates("&from=2026-01-02&to=2026-01-04").await, [2, 3]);
    assert_eq!(january.dates("&from=2026-01-02&to=2026-01-02").await, [] as [u32; 0]);
    assert_eq!(january.dates("&from=2026-01-04&to=2026-01-31").await, [] as [u32; 0]);
    assert_eq!(january.dates("&from=0001-01-01&to=9999-12-31").await, [1, 2, 3, 31]);
}

#[tokio::test]
async fn pages_contain_each_day_once() {
    let january = january().await;
    let mut read = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = january.days(january.account, &format!("&limit=1&from=2026-01-01{cursor}")).await.expect(200);
        read.extend(page.data().to_vec());
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(read, january.days(january.account, "").await.expect(200).data());
    assert_eq!(january.days(january.account, "&limit=4").await.expect(200).body["next"], Value::Null);
}

#[tokio::test]
async fn account_without_movements_has_no_days() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let path = |account: Uuid| format!("/v1/accounts/{account}/daily-balances?min_position=1");
    let days = app.client().get(&path(account)).await.expect(200);
    assert_eq!((&days.body, days.position()), (&json!({"data": [], "next": null}), "1"));
    app.client().get(&path(Uuid::from_u128(17))).await.expect_problem(404, "account_not_found");
    // Status changes before the first movement add no day.
    app.client().freeze(account).await.expect(200);
    app.client().unfreeze(account).await.expect(200);
    app.client().deposit(account, 3).await.expect(201);
    audit(&app).await;
}

#[tokio::test]
async fn daily_sums_may_exceed_the_balance_limit() {
    let mut app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    app.client().get_account(account, "1").await.expect(200);
    app.tamper(
        "INSERT INTO event
         SELECT partition, 1 + n, gen_random_uuid(), stream_id, 1 + n,
                CASE n % 2 WHEN 1 THEN 'MoneyDeposited' ELSE 'MoneyWithdrawn' END, 1, '{\"amount\": 9007199254740991}',
                metadata, recorded_at, hash
         FROM event, generate_series(1, 2200) AS n;
         UPDATE log_head SET position = 2201",
    )
    .await;
    app.restart().await;
    let days = app.client().get(&format!("/v1/accounts/{account}/daily-balances?min_position=2201")).await.expect(200);
    let text = String::from_utf8(days.bytes).unwrap();
    let sum = 9_007_199_254_740_991_i128 * 1_100;
    assert!(
        sum > i64::MAX.into() && text.contains(&format!("\"in\":\"{sum}\",\"out\":\"{sum}\",\"closing\":0")),
        "{text}"
    );
    audit_views(&app).await;
}
