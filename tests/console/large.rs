//! Pages of a large bank read only what they show. The default run counts requests and bytes. The long run
//! (`PASSBOOK_CONSOLE_LARGE=yes`) uses 100 000 accounts and an account with 1 000 000 transactions, and also measures times.

use std::{collections::BTreeSet, env, time::Duration};

use passbook_testkit::{App, eventually, spawn_app_with};
use sqlx::{AssertSqlSafe, Connection, raw_sql};

use crate::browser::Browser;

/// The requests and bytes that one page may read, at any size of the bank.
const PAGE_REQUESTS_MAX: u64 = 30;
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Limits of the long run, on two cores shared by browser, service and Postgres.
const FIRST_CONTENT_MS_MAX: f64 = 1_000.0;
const REQUEST_MS_MAX: f64 = 300.0;

struct Size {
    accounts: i64,
    transactions: i64,
    is_timed: bool,
}

fn size() -> Size {
    match env::var_os("PASSBOOK_CONSOLE_LARGE") {
        Some(_) => Size { accounts: 100_000, transactions: 1_000_000, is_timed: true },
        None => Size { accounts: 5_000, transactions: 20_000, is_timed: false },
    }
}

/// Inserts opening events directly into the log, which is faster than the API. Their hashes do not form a valid chain.
async fn insert_openings(app: &App, count: i64) {
    let sql = format!(
        "WITH head AS (SELECT position AS last FROM log_head WHERE partition = 0)
         INSERT INTO event
         SELECT 0, head.last + n, gen_random_uuid(), gen_random_uuid(), 1, 'AccountOpened', 1,
                ('{{\"owner\":\"customer-' || n || '\",\"currency\":\"EUR\",\"initial_deposit\":' || n || '}}')::json,
                '{{\"user_id\":\"anonymous\",\"correlation_id\":\"many\",\"causation_id\":\"many\"}}',
                (SELECT recorded_at FROM log_head) + n * interval '1 millisecond', sha256((head.last + n)::text::bytea)
         FROM head, generate_series(1, {count}) AS n;
         UPDATE log_head SET position = position + {count}, recorded_at = recorded_at + {count} * interval '1 millisecond',
                hash = (SELECT hash FROM event WHERE partition = 0 ORDER BY position DESC LIMIT 1)"
    );
    let mut connection = app.database().await;
    let mut transaction = connection.begin().await.unwrap();
    raw_sql("SELECT FROM log_head FOR UPDATE").execute(&mut *transaction).await.unwrap();
    raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    connection.close().await.unwrap();
}

async fn wait_until_projected(app: &App) {
    eventually("live views", async || {
        let behind: i64 =
            sqlx::query_scalar("SELECT sum(log_head.position - projection.position)::bigint FROM projection JOIN log_head USING (partition)")
                .fetch_one(&mut app.database().await)
                .await
                .unwrap();
        println!("{behind} events behind");
        (behind == 0).then_some(())
    })
    .await;
}

/// Checks the requests of the page since it was opened and, in the long run, its times.
async fn check_page_load(browser: &Browser, name: &str, is_timed: bool) {
    let requests = browser
        .evaluate(
            "performance.getEntriesByType('resource').filter((e) => e.name.includes('/v1/') && !e.name.includes('/stream'))
             .map((e) => [e.name.replace(location.origin, ''), e.duration, e.decodedBodySize])",
        )
        .await;
    // Requests that are repeated by polling count once.
    let mut requests: Vec<(String, f64, u64)> = serde_json::from_value(requests).unwrap();
    let mut known = BTreeSet::new();
    requests.retain(|(path, ..)| known.insert(path.split("min_position").next().unwrap().to_owned()));
    assert!(!requests.is_empty() && requests.len() as u64 <= PAGE_REQUESTS_MAX, "{name} sends {requests:#?}");
    let bytes: u64 = requests.iter().map(|(_, _, bytes)| bytes).sum();
    assert!(bytes <= PAGE_BYTES_MAX, "{name} reads {bytes} bytes: {requests:#?}");
    let paint = "performance.getEntriesByName('first-contentful-paint').length > 0";
    browser.wait_until("the first content", paint).await;
    let first =
        browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime").await.as_f64().unwrap();
    let (path, longest) = requests.iter().map(|(path, ms, _)| (path, *ms)).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    println!(
        "{name}: first content {first:.0} ms; {} requests, {bytes} bytes; longest {longest:.0} ms: {path}",
        requests.len()
    );
    if is_timed {
        assert!(first < FIRST_CONTENT_MS_MAX, "{name}: first content after {first} ms");
        assert!(longest < REQUEST_MS_MAX, "{name}: {path} takes {longest} ms");
    }
}

#[tokio::test]
async fn accounts_and_transactions_of_a_large_bank_are_read_in_pages() {
    let Size { accounts, transactions, is_timed } = size();
    let app = spawn_app_with(&["--partitions=1"]).await;
    let id = app.client().open_with_balance(1).await;
    app.insert_deposits(transactions, 20).await;
    insert_openings(&app, accounts).await;
    let mut tries = 0..20;
    let reading = || tokio::time::timeout(Duration::from_secs(29), wait_until_projected(&app));
    while reading().await.is_err() {
        tries.next().expect("the views catch up with the log within ten minutes");
    }
    let browser = Browser::start(&app.url()).await;
    // Load any resource first, so that the one-time cost of the first connection is not measured.
    browser.visit("/livez").await;

    browser.open("").await;
    browser.wait_until("accounts", "document.querySelector('.tile .value').innerText.length > 3").await;
    browser.wait_until("the feed", "document.querySelectorAll('tbody tr').length > 15").await;
    check_page_load(&browser, "overview", is_timed).await;

    browser.visit("/livez").await;
    browser.open("accounts").await;
    browser.wait_until("a page", "document.querySelectorAll('tbody tr').length >= 100").await;
    check_page_load(&browser, "accounts", is_timed).await;
    browser.run_script("window.scrollTo(0, document.body.scrollHeight)").await;
    browser.wait_until("the next page", "document.querySelectorAll('tbody tr').length >= 200").await;

    browser.visit("/livez").await;
    browser.open(&format!("accounts/{id}?tab=events")).await;
    browser.wait_until("the account", "document.querySelectorAll('.events tbody tr').length === 25").await;
    browser.wait_until("the chart", "document.querySelector('.chart canvas')").await;
    check_page_load(&browser, "account", is_timed).await;
    browser.click("input[value=transactions]").await;
    browser.wait_until("the latest transactions", "document.querySelector('.chart canvas') && performance.getEntriesByType('resource').some((e) => e.name.includes('limit=1000'))").await;
    check_page_load(&browser, "transactions", is_timed).await;
    let version = transactions / 2;
    browser.run_script(&format!("const s = document.querySelector('#version'); s.value = {version}; s.dispatchEvent(new Event('input', {{bubbles: true}}))")).await;
    browser.wait_for_text("Historical view").await;
    browser.wait_until("the historical events", "document.querySelectorAll('.events tbody tr').length === 25").await;
    check_page_load(&browser, "historical", is_timed).await;
}
