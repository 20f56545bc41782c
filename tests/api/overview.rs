//! `GET /v1/overview`: accounts by status, money by currency, and the rate and latency of commands.

use chrono::DateTime;
use passbook_testkit::{
    ApiClient, Response, audit::audit_views, eventually, response::is_time, spawn_app, spawn_app_in_one_partition,
    spawn_app_with,
};
use serde_json::{Value, json};
use sqlx::{Connection, raw_sql};
use uuid::Uuid;

/// The members `accounts` and `money` of the overview at the position of `last` or later.
async fn totals(client: &ApiClient, last: &Response) -> (Value, Value) {
    let overview = client.get(&format!("/v1/overview?min_position={}", last.position())).await.expect(200);
    assert_eq!(overview.position(), last.position());
    (overview.body["accounts"].clone(), overview.body["money"].clone())
}

fn counts(open: i64, frozen: i64, closed: i64) -> Value {
    json!({"open": open, "frozen": frozen, "closed": closed})
}

#[tokio::test]
async fn empty_log_gives_an_empty_overview() {
    let app = spawn_app_in_one_partition().await;
    let overview = app.client().get("/v1/overview").await.expect(200);
    assert_eq!((&overview.body["accounts"], &overview.body["money"]), (&counts(0, 0, 0), &json!({})));
    assert_eq!(overview.position(), "0");
    app.client().get("/v1/overview?limit=1").await.expect_problem(400, "invalid_parameter");
    app.client().get("/v1/overview?min_position=x").await.expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn overview_follows_every_command() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let euro = client.open(json!({"currency": "EUR", "initial_deposit": 100})).await.expect(201);
    assert_eq!(totals(&client, &euro).await, (counts(1, 0, 0), json!({"EUR": "100"})));
    let other = client.open_with_balance(0).await;
    let yen = client.open(json!({"currency": "JPY", "initial_deposit": 7})).await.expect(201);
    assert_eq!(totals(&client, &yen).await, (counts(3, 0, 0), json!({"EUR": "100", "JPY": "7"})));

    let (euro, yen) = (euro.account_id(), yen.account_id());
    let last = client.deposit(yen, 3).await.expect(201);
    assert_eq!(totals(&client, &last).await, (counts(3, 0, 0), json!({"EUR": "100", "JPY": "10"})));
    let last = client.transfer(euro, other, 40).await.expect(201);
    assert_eq!(totals(&client, &last).await, (counts(3, 0, 0), json!({"EUR": "100", "JPY": "10"})));
    let last = client.withdraw(other, 40).await.expect(201);
    assert_eq!(totals(&client, &last).await, (counts(3, 0, 0), json!({"EUR": "60", "JPY": "10"})));
    let last = client.freeze(euro).await.expect(200);
    assert_eq!(totals(&client, &last).await, (counts(2, 1, 0), json!({"EUR": "60", "JPY": "10"})));
    let last = client.close(other).await.expect(200);
    assert_eq!(totals(&client, &last).await, (counts(1, 1, 1), json!({"EUR": "60", "JPY": "10"})));
    let last = client.unfreeze(euro).await.expect(200);
    assert_eq!(totals(&client, &last).await, (counts(2, 0, 1), json!({"EUR": "60", "JPY": "10"})));
    // A currency stays in the list at a sum of 0.
    let last = client.withdraw(yen, 10).await.expect(201);
    assert_eq!(totals(&client, &last).await, (counts(2, 0, 1), json!({"EUR": "60", "JPY": "0"})));
    audit_views(&app).await;
}

#[tokio::test]
async fn currency_of_an_account_is_known_after_a_restart() {
    let mut app = spawn_app_in_one_partition().await;
    let yen = app.client().open(json!({"currency": "JPY", "initial_deposit": 7})).await.expect(201).account_id();
    app.client().open_with_balance(5).await;
    app.restart().await;
    let last = app.client().deposit(yen, 3).await.expect(201);
    assert_eq!(totals(&app.client(), &last).await, (counts(2, 0, 0), json!({"EUR": "5", "JPY": "10"})));
}

#[tokio::test]
async fn sums_may_exceed_the_limit_of_one_balance() {
    let mut app = spawn_app_in_one_partition().await;
    let opened = app.client().open(json!({"currency": "EUR"})).await.expect(201);
    totals(&app.client(), &opened).await;
    app.tamper(
        "INSERT INTO event
         SELECT partition, 1 + n, gen_random_uuid(), gen_random_uuid(), 1, type, 1,
                '{\"owner\": \"owner-1\", \"currency\": \"EUR\", \"initial_deposit\": 9007199254740991}', metadata, recorded_at, hash
         FROM event, generate_series(1, 1100) AS n;
         UPDATE log_head SET position = 1101",
    )
    .await;
    app.restart().await;
    let overview = app.client().get("/v1/overview?min_position=1101").await.expect(200);
    let text = String::from_utf8(overview.bytes).unwrap();
    let sum = 9_007_199_254_740_991_i128 * 1_100;
    assert!(sum > i64::MAX.into() && text.contains(&format!("\"money\":{{\"EUR\":\"{sum}\"}}")), "{text}");
    audit_views(&app).await;
}

/// The command statistics of the last ten minutes, in buckets of ten seconds.
async fn commands(client: &ApiClient) -> Vec<Value> {
    let overview = client.get("/v1/overview").await.expect(200);
    overview.body["commands"].as_array().unwrap().clone()
}

fn has_commands(bucket: &Value) -> bool {
    bucket["per_second"].as_f64().unwrap() > 0.0
}

#[tokio::test]
async fn command_stats_count_executed_and_state_refused_commands() {
    let app = spawn_app().await;
    let client = app.client();
    let unknown = Uuid::from_u128(17);
    client.command("/v1/accounts", json!({"currency": "gold"})).await.expect_problem(400, "invalid_currency");
    client.deposit(unknown, 0).await.expect_problem(400, "invalid_amount");
    client.dry_run().open(json!({"currency": "EUR"})).await.expect(200);
    let idle = commands(&client).await;
    let time = |bucket: &Value| DateTime::parse_from_rfc3339(bucket["from"].as_str().unwrap()).unwrap().timestamp();
    assert_eq!(idle.len(), 60);
    assert!(idle.windows(2).all(|pair| time(&pair[1]) - time(&pair[0]) == 10), "{idle:?}");
    for bucket in &idle {
        assert!(is_time(&bucket["from"]), "{bucket}");
        assert_eq!(
            (&bucket["per_second"], &bucket["p50_ms"], &bucket["p99_ms"]),
            (&json!(0.0), &Value::Null, &Value::Null)
        );
    }

    client.deposit(unknown, 1).await.expect_problem(404, "account_not_found");
    assert!(commands(&client).await.iter().any(has_commands), "a refusal by the state counts as a command");
    let other_app = spawn_app().await;
    other_app.client().open_with_balance(5).await;
    let after = commands(&other_app.client()).await;
    let bucket = after.iter().find(|bucket| has_commands(bucket)).expect("a bucket with a command");
    let (p50, p99) = (bucket["p50_ms"].as_f64().unwrap(), bucket["p99_ms"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99, "{bucket}");
}

#[tokio::test]
async fn transfer_between_partitions_never_changes_the_money() {
    let app = spawn_app_with(&["--partitions=2"]).await;
    let client = app.client();
    let in_partition = |partition| {
        let (partitions, mut n) = (app.partitions(), 0..);
        n.find_map(|n| Some(Uuid::from_u128(n)).filter(|id| partitions.partition_of(*id) == partition)).unwrap()
    };
    let accounts = [in_partition(0), in_partition(1)];
    for account_id in accounts {
        client.open(json!({"currency": "EUR", "account_id": account_id, "initial_deposit": 100})).await.expect(201);
    }
    app.wait_until_projected().await;
    // The views of one partition stay behind those of the other.
    let mut lock = app.database().await;
    raw_sql("BEGIN; SELECT FROM projection WHERE partition = 1 FOR UPDATE").execute(&mut lock).await.unwrap();
    client.transfer(accounts[0], accounts[1], 30).await.expect(201);
    let overview = eventually("the view of one partition", async || {
        let overview = client.get("/v1/overview").await.expect(200);
        (overview.position() == "0:2,1:1").then_some(overview)
    })
    .await;
    assert_eq!(overview.body["money"], json!({"EUR": "200"}));
    lock.close().await.unwrap();
    app.wait_until_projected().await;
    assert_eq!(client.get("/v1/overview").await.expect(200).body["money"], json!({"EUR": "200"}));
    audit_views(&app).await;
}
