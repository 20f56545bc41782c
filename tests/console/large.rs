//! A bank of some size stays fluid: no page reads more than it shows. The short form counts what is asked for; the long one
//! (`PASSBOOK_CONSOLE_LARGE=yes`), with 100 000 accounts and an account with 1 000 000 transactions, takes the time as well.

use std::{collections::BTreeSet, env, time::Duration};

use sqlx::{AssertSqlSafe, Connection, raw_sql};

use crate::{
    browser::Browser,
    support::{App, eventually, spawn_app_with},
};

/// What a page may read in all, whatever there is.
const PAGE_REQUESTS_MAX: u64 = 30;
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
/// In the long form, on two cores that browser, bank and Postgres share.
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

/// Openings that no service would take so long for, written past it. What is recorded can be read; its hashes are no chain.
async fn record_openings(app: &App, count: i64) {
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

async fn is_projected(app: &App) {
    eventually("live views", async || {
        let behind: i64 =
            sqlx::query_scalar("SELECT sum(log_head.position - projection.position)::bigint FROM projection JOIN log_head USING (partition)")
                .fetch_one(&mut app.database().await)
                .await
                .unwrap();
        println!("behind by {behind}");
        (behind == 0).then_some(())
    })
    .await;
}

/// What the page has asked for since it was opened, and when there was something to read.
async fn judge(browser: &Browser, name: &str, is_timed: bool) {
    let asked = browser
        .ask(
            "performance.getEntriesByType('resource').filter((e) => e.name.includes('/v1/') && !e.name.includes('/stream'))
             .map((e) => [e.name.replace(location.origin, ''), e.duration, e.decodedBodySize])",
        )
        .await;
    // What is asked again after some time counts once.
    let mut asked: Vec<(String, f64, u64)> = serde_json::from_value(asked).unwrap();
    let mut known = BTreeSet::new();
    asked.retain(|(path, ..)| known.insert(path.split("min_position").next().unwrap().to_owned()));
    assert!(!asked.is_empty() && asked.len() as u64 <= PAGE_REQUESTS_MAX, "{name} asks for {asked:#?}");
    let bytes: u64 = asked.iter().map(|(_, _, bytes)| bytes).sum();
    assert!(bytes <= PAGE_BYTES_MAX, "{name} reads {bytes} bytes: {asked:#?}");
    let paint = "performance.getEntriesByName('first-contentful-paint').length > 0";
    browser.until("the first content", paint).await;
    let first =
        browser.ask("performance.getEntriesByName('first-contentful-paint')[0].startTime").await.as_f64().unwrap();
    let (path, longest) = asked.iter().map(|(path, ms, _)| (path, *ms)).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    println!(
        "{name}: first content {first:.0} ms; {} requests, {bytes} bytes; longest {longest:.0} ms: {path}",
        asked.len()
    );
    if is_timed {
        assert!(first < FIRST_CONTENT_MS_MAX, "{name}: first content after {first} ms");
        assert!(longest < REQUEST_MS_MAX, "{name}: {path} takes {longest} ms");
    }
}

#[tokio::test]
async fn many_accounts_and_many_transactions_are_read_in_pages() {
    let Size { accounts, transactions, is_timed } = size();
    let app = spawn_app_with(&["--partitions=1"]).await;
    let id = app.teller().account_with(1).await;
    app.record_deposits(transactions, 20).await;
    record_openings(&app, accounts).await;
    let mut tries = 0..20;
    let reading = || tokio::time::timeout(Duration::from_secs(29), is_projected(&app));
    while reading().await.is_err() {
        tries.next().expect("the views read the log in ten minutes");
    }
    let browser = Browser::at(&app.url()).await;
    // What a browser does once, it has done.
    browser.visit("/livez").await;

    browser.open("").await;
    browser.until("accounts", "document.querySelector('.tile .value').innerText.length > 3").await;
    browser.until("the feed", "document.querySelectorAll('tbody tr').length > 15").await;
    judge(&browser, "overview", is_timed).await;

    browser.visit("/livez").await;
    browser.open("accounts").await;
    browser.until("a page", "document.querySelectorAll('tbody tr').length >= 100").await;
    judge(&browser, "accounts", is_timed).await;
    browser.run("window.scrollTo(0, document.body.scrollHeight)").await;
    browser.until("the next page", "document.querySelectorAll('tbody tr').length >= 200").await;

    browser.visit("/livez").await;
    browser.open(&format!("accounts/{id}")).await;
    browser.until("the account", "document.querySelectorAll('.events tbody tr').length === 25").await;
    browser.until("the chart", "document.querySelector('.chart canvas')").await;
    judge(&browser, "account", is_timed).await;
    browser.click("input[value=movements]").await;
    browser.until("the newest movements", "document.querySelector('.chart canvas') && performance.getEntriesByType('resource').some((e) => e.name.includes('limit=1000'))").await;
    judge(&browser, "movements", is_timed).await;
    let version = transactions / 2;
    browser.run(&format!("const s = document.querySelector('#version'); s.value = {version}; s.dispatchEvent(new Event('input', {{bubbles: true}}))")).await;
    browser.sees("You see the past").await;
    browser.until("its rows", "document.querySelectorAll('.events tbody tr').length === 25").await;
    judge(&browser, "past", is_timed).await;
}
