//! The service streams statements: its memory does not grow with the length of a statement.

use std::fs;

use passbook_testkit::{folder::Folder, process::Passbook};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const LINES: i64 = 200_000;
const GROWTH_KB_MAX: u64 = 12 * 1024;
/// The smallest size of a statement line in JSON.
const LINE_BYTES: i64 = 200;

/// The peak memory of a process in kilobytes.
pub fn peak_kb(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_long_statement_needs_no_more_memory_than_a_short_one() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    service.client.deposit_ok("first").await;
    let list: Value = service.client.get("/v1/accounts?min_position=2").await.json().await.unwrap();
    let account = list["data"][0]["account_id"].as_str().unwrap();
    let (version, balance) =
        (list["data"][0]["version"].as_i64().unwrap(), list["data"][0]["balance"].as_i64().unwrap());
    let path = format!("/v1/accounts/{account}/statement?from=2000-01-01&to=2200-01-01&min_position=2");
    assert_eq!(service.client.get(&path).await.status(), 200);

    let mut connection = PgConnection::connect(&folder.database_url()).await.unwrap();
    let long = format!(
        "INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, '{account}', {version} + n, 'deposit', 1, {balance} + n, now(), gen_random_uuid(), 'open', {version} + n
         FROM generate_series(1, {LINES}) AS n"
    );
    sqlx::raw_sql(AssertSqlSafe(long)).execute(&mut connection).await.unwrap();
    let before = peak_kb(service.process.id());
    let mut response = service.client.get(&path).await;
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        length += i64::try_from(chunk.len()).unwrap();
    }
    assert!(length > LINES * LINE_BYTES, "the response has only {length} bytes");
    // Linux notes a peak when memory is unmapped, so the peak that it reports before that can be higher than the one after.
    let grown = peak_kb(service.process.id()).saturating_sub(before);
    println!("{length} bytes of response, {grown} KB more memory");
    assert!(grown < GROWTH_KB_MAX, "memory grew by {grown} KB for a response of {length} bytes");
}
