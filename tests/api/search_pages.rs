//! Pages of searches: they read through indexes or scan a limited number of rows, and their cursors stay valid while rows move.

use std::collections::{BTreeMap, BTreeSet};

use passbook_testkit::{App, spawn_app_in_one_partition, spawn_app_with};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, query_scalar, raw_sql};
use uuid::Uuid;

use crate::search::all;

/// More rows than two pages scan.
const MANY_ROWS: i64 = 10_000;

/// Adds accounts to the view that were opened after all others.
async fn insert_accounts(app: &App, count: i64) {
    // Without autovacuum the planner does not learn how many rows the table has.
    app.sabotage("ALTER TABLE account_view SET (autovacuum_enabled = off)").await;
    let sql = format!(
        "INSERT INTO account_view
         SELECT {}, 1, gen_random_uuid(), 'other', 'EUR', 'open', n, 1, 0, now() + n * interval '1 ms', now(), NULL
         FROM generate_series(1, {count}) AS n",
        app.partition_under_test()
    );
    raw_sql(AssertSqlSafe(sql)).execute(&mut app.database().await).await.unwrap();
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

fn ids(rows: &[Value]) -> Vec<Uuid> {
    rows.iter().map(|row| row["account_id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn rare_accounts_are_found_through_the_indexes_of_searches() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let body = json!({"owner": "Zoë", "currency": "EUR", "metadata": {"branch": "17"}});
    let account = client.open(body).await.expect(201).account_id();
    app.wait_until_projected().await;
    let digits = account.simple().to_string();
    let part = &digits[14..31];
    let searches = ["q=ZOË".to_owned(), format!("q={part}"), format!("q={account}"), "metadata.branch=17".to_owned()];
    // Statements that are planned on an empty view must use the indexes later, too.
    for search in searches.iter().cycle().take(40) {
        client.get(&format!("/v1/accounts?{search}")).await.expect(200);
    }
    insert_accounts(&app, MANY_ROWS).await;
    // The planner chooses among bitmap scans by what it knows about the table. Autovacuum collects this within a minute.
    app.sabotage("VACUUM ANALYZE account_view").await;
    for search in &searches {
        let page = client.get(&format!("/v1/accounts?{search}")).await.expect(200);
        assert_eq!(ids(page.data()), [account], "{search}");
        assert_eq!(page.body["next"], Value::Null, "{search} needs one page");
        let page = client.get(&format!("/v1/accounts?currency=EUR&sort=balance&{search}")).await.expect(200);
        assert_eq!(ids(page.data()), [account], "{search}, sorted");
    }
    let read = rows_read(app, "account_view").await;
    // Each unsorted search scans 4 000 of the newer accounts first.
    assert!(read < 4 * 4_000 + 2_000, "{read} rows were read");
}

#[tokio::test]
async fn parts_of_ids_are_found_page_by_page_without_pg_trgm() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(5).await;
    app.wait_until_projected().await;
    app.sabotage("DROP EXTENSION pg_trgm CASCADE").await;
    insert_accounts(&app, MANY_ROWS).await;
    let path = format!("/v1/accounts?q={}", &account.simple().to_string()[..31]);
    let first = app.client().get(&path).await.expect(200);
    assert_eq!((first.data().len(), first.body["next"].is_string()), (0, true));
    assert_eq!(ids(&all(&app.client(), &path).await), [account]);
    let read = rows_read(app, "account_view").await;
    assert!(read < MANY_ROWS + 5_000, "{read} rows were read");
}

#[tokio::test]
async fn accounts_are_sorted_if_the_filters_leave_at_most_10_000() {
    let app = spawn_app_in_one_partition().await;
    app.client().open(json!({"currency": "CHF"})).await.expect(201);
    app.wait_until_projected().await;
    insert_accounts(&app, MANY_ROWS).await;
    let client = app.client();
    let sorted = "/v1/accounts?sort=-balance&limit=2&currency";
    let balances = |page: &[Value]| page.iter().map(|row| row["balance"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(balances(client.get(&format!("{sorted}=EUR")).await.expect(200).data()), [10_000, 9_999]);
    client.open(json!({"currency": "EUR"})).await.expect(201);
    app.wait_until_projected().await;
    let refused = client.get(&format!("{sorted}=EUR")).await.expect_problem(400, "invalid_parameter");
    assert_eq!(refused.text("/errors/0/field"), "sort");
    assert_eq!(balances(client.get(&format!("{sorted}=EUR&max_balance=7")).await.expect(200).data()), [7, 6]);
    assert_eq!(balances(client.get(&format!("{sorted}=CHF")).await.expect(200).data()), [0]);
    // More accounts than are compared with the filters.
    insert_accounts(&app, 3 * MANY_ROWS).await;
    let refused = client.get(&format!("{sorted}=EUR&max_balance=7")).await.expect_problem(400, "invalid_parameter");
    assert_eq!(refused.text("/errors/0/field"), "sort");
}

#[tokio::test]
async fn accounts_that_do_not_move_are_in_one_page_of_a_sorted_list() {
    for (sort, flag) in
        [("balance", "--partitions=1"), ("-balance", "--partitions=4"), ("-last_activity_at", "--partitions=4")]
    {
        let app = spawn_app_with(&[flag]).await;
        let client = app.client();
        let mut accounts = Vec::new();
        for n in 0..30 {
            accounts.push(client.open_with_balance(100 * (n % 7)).await);
        }
        let (moving, still) = accounts.split_at(10);
        app.wait_until_projected().await;
        let (mut seen, mut after) = (BTreeMap::<Uuid, usize>::new(), String::new());
        for step in 0.. {
            let page = client.get(&format!("/v1/accounts?currency=EUR&sort={sort}&limit=4{after}")).await.expect(200);
            for account in ids(page.data()) {
                *seen.entry(account).or_default() += 1;
            }
            let Some(next) = page.body["next"].as_str() else { break };
            after = format!("&after={next}");
            for account in &moving[step % 5..][..3] {
                client.deposit(*account, 90).await.expect(201);
            }
            app.wait_until_projected().await;
        }
        for account in still {
            assert_eq!(seen.get(account), Some(&1), "{sort} {account}");
        }
        assert!(seen.len() <= accounts.len());
    }
}

#[tokio::test]
async fn rare_movements_are_found_through_indexes() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let busy = client.open_with_balance(5).await;
    let quiet = client.open(json!({"owner": "Zoë", "currency": "EUR"})).await.expect(201).account_id();
    let body = json!({"amount": 7, "reference": "Miete 2026"});
    client.command(&format!("/v1/accounts/{quiet}/deposits"), body).await.expect(201);
    app.wait_until_projected().await;
    let searches = ["reference=MIETE", "owner=Zoë", "owner=Zoë&max_amount=7", "reference=miete&owner=Zoë&currency=EUR"];
    for search in searches.iter().cycle().take(40) {
        client.get(&format!("/v1/transactions?{search}")).await.expect(200);
    }
    app.sabotage("ALTER TABLE account_transaction SET (autovacuum_enabled = off)").await;
    app.insert_deposits(MANY_ROWS, 10).await;
    app.wait_until_projected().await;
    for search in searches {
        let page = client.get(&format!("/v1/transactions?{search}")).await.expect(200);
        assert_eq!(ids(page.data()), [quiet], "{search}");
        assert_eq!(page.body["next"], Value::Null, "{search} needs one page");
    }
    // The filters that no index finds scan the log.
    let pages = all(&client, "/v1/transactions?max_amount=5&min_amount=5").await;
    assert_eq!(ids(&pages), [busy]);
    assert_eq!(all(&client, "/v1/transactions?reference=xxx&limit=1000").await.len() as i64, MANY_ROWS);
    let read = rows_read(app, "account_transaction").await;
    assert!(read < 12 * MANY_ROWS, "{read} rows were read");
}

#[tokio::test]
async fn movements_are_listed_once_while_others_are_added() {
    for flag in ["--partitions=1", "--partitions=4"] {
        let app = spawn_app_with(&[flag]).await;
        let client = app.client();
        let mut accounts = Vec::new();
        for n in 0..6 {
            let body = json!({"owner": if n < 3 { "ada" } else { "ben" }, "currency": "EUR", "initial_deposit": 1});
            accounts.push(client.open(body).await.expect(201).account_id());
        }
        let deposit = |n: usize| json!({"command": "deposit", "account_id": accounts[n % 6], "amount": 1, "reference": format!("rent {n}")});
        client.batch("atomic", &(0..60).map(deposit).collect::<Vec<_>>()).await.expect(201);
        app.wait_until_projected().await;
        for filter in ["", "&owner=ada", "&reference=RENT", "&reference=rent&owner=ben"] {
            let listed: BTreeSet<String> =
                all(&client, &format!("/v1/transactions?limit=1000{filter}")).await.iter().map(event_id).collect();
            let (mut seen, mut after) = (Vec::new(), String::new());
            for step in 0.. {
                let page = client.get(&format!("/v1/transactions?limit=7{filter}{after}")).await.expect(200);
                seen.extend(page.data().iter().map(event_id));
                let Some(next) = page.body["next"].as_str() else { break };
                after = format!("&after={next}");
                client.batch("each", &[deposit(step), deposit(step + 1)]).await.expect(200);
                app.wait_until_projected().await;
            }
            assert_eq!(seen.len(), listed.len(), "{flag} {filter}: each once, and none of the later ones");
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), listed, "{flag} {filter}");
        }
    }
}

fn event_id(row: &Value) -> String {
    row["event_id"].as_str().unwrap().to_owned()
}
