//! Filters that few rows match: they read through indexes, or scan a limited number of rows for each page. A page can then be
//! short or empty, and its cursor continues where the scan ended.

use std::collections::HashSet;

use passbook_testkit::{App, spawn_app_in_one_partition, spawn_app_with};
use serde_json::{Value, json};
use sqlx::query_scalar;
use uuid::Uuid;

/// The number of rows that one page scans.
const SCAN_ROWS: i64 = 4_000;
/// More rows than two pages scan.
const MANY_ROWS: i64 = 10_000;
/// Filters that an index finds. Each matches one account of the test.
const INDEXED: [&str; 6] = [
    "status=frozen",
    "status=closed",
    "currency=CHF",
    "owner=anna",
    "status=frozen&currency=CHF",
    "status=frozen&owner=anna",
];

/// Adds accounts to the view that were opened after all others.
async fn insert_accounts(app: &App, owner: &str, status: &str, count: i64) {
    // Without autovacuum the planner does not learn how many rows the table has.
    app.sabotage("ALTER TABLE account_view SET (autovacuum_enabled = off)").await;
    let sql = format!(
        "INSERT INTO account_view
         SELECT {}, 1, gen_random_uuid(), '{owner}', 'EUR', '{status}', 0, 1, 0, now() + n * interval '1 ms', now(), NULL
         FROM generate_series(1, {count}) AS n",
        app.partition_under_test()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut app.database().await).await.unwrap();
}

/// The pages of a list, as the ids or versions of their rows.
async fn pages(app: &App, path: &str, id: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = app.client().get(&format!("{path}{after}")).await.expect(200);
        pages.push(page.data().iter().map(|row| row[id].clone()).collect());
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return pages,
        }
        assert!(pages.len() < 100, "the list has no end");
    }
}

async fn open(app: &App, owner: &str, currency: &str) -> Uuid {
    app.client().open(json!({"owner": owner, "currency": currency})).await.expect(201).account_id()
}

/// The number of rows read from a table, by index or scan. Stops the service, so that all connections have reported their counts.
async fn rows_read(mut app: App, table: &str) -> i64 {
    app.stop().await;
    app.wait_until_disconnected().await;
    query_scalar("SELECT (seq_tup_read + idx_tup_fetch)::int8 FROM pg_stat_user_tables WHERE relname = $1")
        .bind(table)
        .fetch_one(&mut app.rows_under_test().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn rare_accounts_are_found_through_indexes() {
    let app = spawn_app_in_one_partition().await;
    // Statements that are planned on an empty view must use the indexes later, too.
    for filter in INDEXED {
        for _ in 0..10 {
            app.client().get(&format!("/v1/accounts?{filter}")).await.expect(200);
        }
    }
    let (frozen, closed) = (open(&app, "anna", "CHF").await, open(&app, "bert", "USD").await);
    app.client().freeze(frozen).await.expect(200);
    app.client().close(closed).await.expect(200);
    app.wait_until_projected().await;
    insert_accounts(&app, "other", "open", MANY_ROWS).await;
    for filter in INDEXED {
        let expected = if filter == "status=closed" { closed } else { frozen };
        let found = pages(&app, &format!("/v1/accounts?{filter}"), "account_id").await;
        assert_eq!(found, [[json!(expected)]], "{filter}");
    }
    let read = rows_read(app, "account_view").await;
    assert!(read < 1_000, "{read} rows were read");
}

#[tokio::test]
async fn page_of_accounts_scans_a_limited_number_of_rows() {
    for (owner, status, filter) in [
        ("anna", "open", "owner=anna&status=frozen"),
        ("other", "closed", "status=open&limit=1000"),
        ("other", "frozen", "status=frozen&currency=CHF"),
    ] {
        let app = spawn_app_with(&["--partitions=1"]).await;
        let oldest = open(&app, "anna", "CHF").await;
        if filter != "status=open&limit=1000" {
            app.client().freeze(oldest).await.expect(200);
        }
        app.wait_until_projected().await;
        insert_accounts(&app, owner, status, MANY_ROWS).await;
        let found = pages(&app, &format!("/v1/accounts?{filter}"), "account_id").await;
        assert_eq!(found, [vec![], vec![], vec![json!(oldest)]], "{filter}");
        let read = rows_read(app, "account_view").await;
        // Each row once, and a few rows of other statements.
        assert!(read < MANY_ROWS + 1_000, "{filter}: {read} rows were read");
    }
}

#[tokio::test]
async fn short_pages_of_partitions_list_each_account_once_and_in_order() {
    let app = spawn_app_with(&["--partitions=4"]).await;
    let mut expected = Vec::new();
    for n in 0..12 {
        let account = open(&app, "anna", "EUR").await;
        if n % 3 > 0 {
            app.client().freeze(account).await.expect(200);
            expected.push(account);
        }
    }
    app.wait_until_projected().await;
    // Partition 0 has many newer accounts, so its scans end before those of the other partitions.
    insert_accounts(&app, "anna", "open", MANY_ROWS / 2).await;
    expected.reverse();
    for limit in [1, 3, 100] {
        let path = format!("/v1/accounts?owner=anna&status=frozen&limit={limit}");
        let pages = pages(&app, &path, "account_id").await;
        assert!(pages.iter().all(|page| page.len() <= limit));
        assert!(pages.len() > 4, "{} pages", pages.len());
        assert_eq!(pages.concat(), expected.iter().map(|account| json!(account)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn full_page_of_a_filter_continues_after_its_last_account() {
    let app = spawn_app_with(&["--partitions=1"]).await;
    let older = [open(&app, "anna", "EUR").await, open(&app, "anna", "EUR").await];
    for account in older {
        app.client().freeze(account).await.expect(200);
    }
    app.wait_until_projected().await;
    insert_accounts(&app, "anna", "open", 2 * SCAN_ROWS - 1).await;
    // The second scan ends at the newer one of the two.
    let found = pages(&app, "/v1/accounts?owner=anna&status=frozen&limit=1", "account_id").await;
    assert_eq!(found, [vec![], vec![json!(older[1])], vec![json!(older[0])]]);
}

#[tokio::test]
async fn page_of_transactions_scans_a_limited_number_of_rows() {
    let app = spawn_app_with(&["--partitions=1"]).await;
    let account = app.client().open_with_balance(5).await;
    app.client().withdraw(account, 1).await.expect(201);
    app.insert_deposits(MANY_ROWS, 10).await;
    app.wait_until_projected().await;
    let list = format!("/v1/accounts/{account}/transactions?");
    let versions = async |query: &str| pages(&app, &format!("{list}{query}"), "version").await;
    assert_eq!(versions("kind=withdrawal").await, [vec![], vec![], vec![json!(2)]]);
    assert_eq!(versions("kind=transfer_out").await, vec![Vec::<Value>::new(); 3]);
    assert_eq!(versions("kind=opening_deposit").await, [[json!(1)]], "an opening deposit is version 1");
    // A period without the deposits is not longer for them.
    let first = app.client().get(&format!("{list}kind=deposit&limit=1")).await.expect(200);
    let deposited_at = first.text("/data/0/recorded_at");
    assert_eq!(versions(&format!("kind=withdrawal&to={deposited_at}")).await, [[json!(2)]]);
    assert_eq!(versions(&format!("kind=withdrawal&from={deposited_at}")).await, vec![Vec::<Value>::new(); 3]);
    let all = versions("limit=1000").await;
    assert_eq!(all.iter().map(Vec::len).collect::<HashSet<_>>(), HashSet::from([1_000, 2]));
    let numbers: Vec<i64> = all.concat().iter().map(|version| version.as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=MANY_ROWS + 2).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn list_of_transactions_ends_without_a_row_if_no_money_moved() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    app.client().freeze(account).await.expect(200);
    app.wait_until_projected().await;
    let path = format!("/v1/accounts/{account}/transactions?");
    for query in
        ["", "kind=deposit", "kind=opening_deposit", "limit=1", "after=v0", "after=v1", "after=v9223372036854775807"]
    {
        assert_eq!(pages(&app, &format!("{path}{query}"), "version").await.concat(), [] as [Value; 0], "{query}");
    }
}
