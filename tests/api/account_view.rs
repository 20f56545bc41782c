//! The account view: single accounts with their ETags, and lists.

use std::collections::HashSet;

use passbook_testkit::{App, response::is_time, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn account_view_equals_fold_of_its_events() {
    let app = spawn_app().await;
    let client = app.client();
    let body = json!({"currency": "EUR", "owner": "customer-17", "initial_deposit": 100});
    let opened = client.open(body).await.expect(201);
    let account = opened.account_id();
    client.withdraw(account, 100).await.expect(201);
    let closed = client.close(account).await.expect(200);
    let seen = client.get_account(account, closed.position()).await.expect(200);
    let expected = json!({
        "account_id": account, "owner": "customer-17", "currency": "EUR", "status": "closed", "balance": 0,
        "held": 0, "available": 0, "overdraft": 0, "metadata": {}, "version": 3, "transaction_count": 2, "opened_at": opened.body["events"][0]["recorded_at"],
        "last_activity_at": closed.body["events"][0]["recorded_at"],
        "closed_at": closed.body["events"][0]["recorded_at"],
    });
    assert_eq!(seen.body, expected);
    assert!(is_time(&seen.body["opened_at"]));
    assert_eq!((seen.header("etag"), seen.position()), (Some("\"3\""), &*app.partition_position(account, 3)));
}

#[tokio::test]
async fn transaction_count_counts_only_movements_of_money() {
    let app = spawn_app().await;
    let client = app.client();
    let (empty, full) = (client.open_with_balance(0).await, client.open_with_balance(10).await);
    client.freeze(empty).await.expect(200);
    client.unfreeze(empty).await.expect(200);
    let moved = client.transfer(full, empty, 10).await.expect(201);
    for (account, version, count, balance) in [(empty, 4, 1, 10), (full, 2, 2, 0)] {
        let seen = client.get_account(account, moved.position()).await.expect(200).body;
        assert_eq!(
            (&seen["version"], &seen["transaction_count"], &seen["balance"], &seen["closed_at"]),
            (&json!(version), &json!(count), &json!(balance), &Value::Null)
        );
    }
}

#[tokio::test]
async fn if_none_match_with_current_etag_gives_304() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(5).await;
    let seen = client.get_account(account, "1").await.expect(200);
    let etag = seen.header("etag").unwrap();
    for matching in [etag, "*", "\"17\", \"1\"", "W/\"1\""] {
        let same = client.with_header("if-none-match", matching).get_account(account, "1").await.expect(304);
        assert_eq!(
            (same.header("etag"), same.position(), same.bytes.len()),
            (Some(etag), &*app.partition_position(account, 1), 0),
            "{matching}"
        );
    }
    let changed = client.deposit(account, 1).await.expect(201);
    let seen = client.with_header("if-none-match", etag).get_account(account, changed.position()).await.expect(200);
    assert_eq!((seen.header("etag"), &seen.body["balance"]), (changed.header("etag"), &json!(6)));
    client.with_header("if-none-match", "1").get_account(account, "1").await.expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn unknown_account_gives_404() {
    let app = spawn_app().await;
    let unknown = Uuid::from_u128(404);
    app.client().get(&format!("/v1/accounts/{unknown}")).await.expect_problem(404, "account_not_found");
    app.client().get(&format!("/v1/accounts/{unknown}/transactions")).await.expect_problem(404, "account_not_found");
}

/// Opens seven accounts in three currencies for two owners, freezes the first and closes the second.
async fn seven_accounts(app: &App) -> Vec<Uuid> {
    let client = app.client();
    let mut accounts = Vec::new();
    for n in 0..7 {
        let body = json!({"currency": (["EUR", "USD", "JPY"][n % 3]), "owner": (["anna", "bert"][n % 2])});
        accounts.push(client.open(body).await.expect(201).account_id());
    }
    client.freeze(accounts[0]).await.expect(200);
    client.close(accounts[1]).await.expect(200);
    accounts
}

/// Reads all pages of a list and returns the account ids.
async fn walk(app: &App, query: &str) -> Vec<Uuid> {
    let mut after = String::new();
    let mut ids = Vec::new();
    loop {
        let page = app.client().get(&format!("/v1/accounts?{query}&limit=2&min_position=9{after}")).await.expect(200);
        assert_eq!(page.position(), app.latest_position());
        let rows = page.data();
        ids.extend(rows.iter().map(|account| account["account_id"].as_str().unwrap().parse::<Uuid>().unwrap()));
        match &page.body["next"] {
            Value::String(next) => {
                assert_eq!(rows.len(), 2, "only the last page is short");
                after = format!("&after={next}");
            }
            end => {
                assert!(end.is_null() && !rows.is_empty(), "{}", page.body);
                return ids;
            }
        }
    }
}

#[tokio::test]
async fn pages_of_the_account_list_are_complete_and_newest_first() {
    let app = spawn_app().await;
    let mut accounts = seven_accounts(&app).await;
    accounts.reverse();
    assert_eq!(walk(&app, "").await, accounts);
    assert_eq!(walk(&app, "owner=anna").await, [accounts[0], accounts[2], accounts[4], accounts[6]]);
    assert_eq!(walk(&app, "currency=USD").await, [accounts[2], accounts[5]]);
    assert_eq!(walk(&app, "status=frozen").await, [accounts[6]]);
    assert_eq!(walk(&app, "status=closed&owner=bert&currency=USD").await, [accounts[5]]);
    assert_eq!(walk(&app, "status=open&owner=anna").await, [accounts[0], accounts[2], accounts[4]]);
}

#[tokio::test]
async fn accounts_opened_at_the_same_time_are_each_listed_once() {
    let app = spawn_app().await;
    let client = app.client();
    // Openings of one batch have the same time.
    let opened: HashSet<Uuid> =
        futures_util::future::join_all((0..9).map(|_| client.open_with_balance(1))).await.into_iter().collect();
    let walked = walk(&app, "").await;
    assert_eq!(walked.len(), 9);
    assert_eq!(walked.into_iter().collect::<HashSet<_>>(), opened);
}

#[tokio::test]
async fn account_opened_between_pages_does_not_shift_them() {
    let app = spawn_app().await;
    let accounts = seven_accounts(&app).await;
    let first = app.client().get("/v1/accounts?limit=3&min_position=9").await.expect(200);
    let new = app.client().open(json!({"currency": "EUR"})).await.expect(201);
    let path = format!("/v1/accounts?limit=1000&after={}&min_position={}", first.text("/next"), new.position());
    let rest = app.client().get(&path).await.expect(200);
    let ids: Vec<Uuid> = rest.data().iter().map(|row| row["account_id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, [accounts[3], accounts[2], accounts[1], accounts[0]]);
    assert_eq!(rest.body["next"], Value::Null);
}

#[tokio::test]
async fn list_without_matching_accounts_is_empty() {
    let app = spawn_app().await;
    app.client().open_with_balance(0).await;
    for query in ["owner=unknown", "currency=CHF", "status=closed"] {
        let list = app.client().get(&format!("/v1/accounts?{query}&min_position=1")).await.expect(200);
        assert_eq!(
            (&list.body, list.position()),
            (&json!({"data": [], "next": null}), &*app.latest_position()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn account_lookup_uses_the_primary_key_after_the_view_has_grown() {
    let mut app = spawn_app().await;
    let client = app.client();
    // Without autovacuum the planner does not learn how many rows the table has.
    app.sabotage("ALTER TABLE account_view SET (autovacuum_enabled = off)").await;
    let account = client.open_with_balance(1).await;
    client.get_account(account, "1").await.expect(200);
    app.sabotage(
        "INSERT INTO account_view SELECT 0, 1, gen_random_uuid(), 'other', 'EUR', 'open', 0, 1, 0, now(), now(), NULL
         FROM generate_series(1, 20000)",
    )
    .await;
    for _ in 0..12 {
        client.get(&format!("/v1/accounts/{account}")).await.expect(200);
    }
    app.stop().await;
    app.wait_until_disconnected().await;
    let rows_read: i64 = sqlx::query_scalar(
        "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE indexrelname IN ('account_view_opened', 'account_view_owner'))::bigint
              + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'account_view')",
    )
    .fetch_one(&mut app.rows_under_test().await)
    .await
    .unwrap();
    assert!(rows_read < 1_000, "{rows_read} rows were read without the primary key");
}
