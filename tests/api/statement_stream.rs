//! Long statements: drawn page by page as fast as they are read, whole or broken off, and in nobody's way.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection, query_scalar, raw_sql};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

use crate::support::{App, eventually, spawn_app, spawn_app_in_one_partition};

const LINES: i64 = 200_000;
/// Far more than the buffers on the way to a slow reader hold.
const LINES_TO_WAIT_FOR: i64 = 20_000;
/// More than there are connections for queries.
const SLOW_READERS: usize = 40;
const RECEIVE_BYTES: u32 = 16 * 1024;
const QUERY: &str = "statement?from=2000-01-01&to=2200-01-01";

/// An account with a statement of so many lines: opened with 1, and paid 1 again and again. Only the view of movements
/// knows.
async fn rich(app: &App, lines: i64) -> Uuid {
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    app.tamper(&format!(
        "INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, reference, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, '{account}', n, 'deposit', 1, n, 'coin ' || n, now(), gen_random_uuid(), 'open', n
         FROM generate_series(2, {lines}) AS n"
    ))
    .await;
    account
}

/// Somebody who has asked for a statement and reads no more of it than the first bytes.
struct SlowReader(TcpStream);

impl SlowReader {
    async fn begin(app: &App, account: Uuid) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
        let address = app.url().strip_prefix("http://").unwrap().parse().unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request =
            format!("GET /v1/accounts/{account}/{QUERY} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        Self(stream)
    }

    /// Reads the rest.
    async fn read_on(mut self) -> String {
        let mut rest = Vec::new();
        // Broken off or not, what came counts.
        let _ = self.0.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }
}

/// Whether the body came to its end: the last chunk is empty.
fn is_whole(response: &str) -> bool {
    let is_told = response.contains(&format!("\"closing_balance\":{LINES_TO_WAIT_FOR},\"position\":\""));
    assert_eq!(response.ends_with("\r\n0\r\n\r\n"), is_told);
    is_told
}

/// How many connections for queries are at work or hold a transaction.
async fn busy_connections(app: &App) -> i64 {
    query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'passbook queries' AND state <> 'idle'",
    )
    .fetch_one(&mut app.database().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_statement_of_many_lines_comes_whole_in_either_form() {
    let app = spawn_app_in_one_partition().await;
    let account = rich(&app, LINES).await;
    let path = format!("/v1/accounts/{account}/{QUERY}");
    let json = app.client().get(&path).await.expect(200);
    let lines = json.body["lines"].as_array().unwrap();
    assert_eq!(json!([lines.len(), json.body["total_in"], json.body["closing_balance"]]), json!([LINES, LINES, LINES]));
    assert!((1..).zip(lines).all(|(version, line)| line["version"] == version && line["balance_after"] == version));

    let csv = app.client().with_header("accept", "text/csv").get(&path).await.expect(200);
    let mut reader = csv::Reader::from_reader(&*csv.bytes);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), usize::try_from(LINES).unwrap() + 4);
    assert!((2..).zip(&rows[2..=199_999]).all(|(version, row)| row[6] == format!("coin {version}")));
    assert_eq!((&rows[200_003][0], &rows[200_003][3]), ("closing_balance", "200000"));
}

#[tokio::test]
async fn those_who_read_slowly_hold_no_connection_to_the_database() {
    let app = spawn_app_in_one_partition().await;
    let account = rich(&app, LINES_TO_WAIT_FOR).await;
    let mut readers = join_all((0..SLOW_READERS).map(|_| SlowReader::begin(&app, account))).await;
    eventually("idle connections", async || (busy_connections(&app).await == 0).then_some(())).await;
    // Others are served meanwhile, those who want a statement among them.
    let client = app.client();
    let others = join_all((0..20).map(|_| client.get_account(account, "1"))).await;
    assert!(others.iter().all(|response| response.status == 200));
    client.get(&format!("/v1/accounts/{account}/statement?from=2000-01-01&to=2000-02-01")).await.expect(200);
    eventually("idle connections again", async || (busy_connections(&app).await == 0).then_some(())).await;
    assert!(is_whole(&readers.pop().unwrap().read_on().await));
}

#[tokio::test]
async fn statements_leave_connections_for_other_queries_however_many_are_read() {
    let app = spawn_app_in_one_partition().await;
    let account = rich(&app, LINES_TO_WAIT_FOR).await;
    let readers = join_all((0..SLOW_READERS).map(|_| SlowReader::begin(&app, account))).await;
    let mut lock = app.database().await;
    raw_sql("BEGIN; LOCK TABLE account_transaction").execute(&mut lock).await.unwrap();
    let reading = tokio::spawn(join_all(readers.into_iter().map(SlowReader::read_on)));
    eventually("statements that wait", async || (busy_connections(&app).await > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = busy_connections(&app).await;
    assert!(waiting <= 4, "{waiting} connections are taken");
    app.client().get_account(account, "1").await.expect(200);
    lock.close().await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn a_statement_is_read_no_faster_than_it_is_taken_and_broken_off_where_it_would_be_wrong() {
    let app = spawn_app_in_one_partition().await;
    let account = rich(&app, LINES_TO_WAIT_FOR).await;
    let right = "CREATE TABLE history AS SELECT * FROM account_transaction";
    app.tamper(right).await;
    for wrong in [
        "DELETE FROM account_transaction WHERE version = 19000",
        "UPDATE account_transaction SET amount = 2 WHERE version = 18000",
        "UPDATE account_transaction SET balance_after = balance_after + 1 WHERE version >= 17000",
        "UPDATE account_transaction SET kind = 'withdrawal' WHERE version = 16000",
        // What is missing and what is too much make up for each other.
        "DELETE FROM account_transaction WHERE version = 15500;
         UPDATE account_transaction SET amount = 2 WHERE version = 15501",
        // Each balance follows, and leads elsewhere.
        "UPDATE account_transaction SET amount = 2 WHERE version = 15200;
         UPDATE account_transaction SET balance_after = balance_after + 1 WHERE version >= 15200",
        "DELETE FROM account_transaction WHERE version > 15000",
    ] {
        let reader = SlowReader::begin(&app, account).await;
        eventually("an idle server", async || (busy_connections(&app).await == 0).then_some(())).await;
        // None of it has been read: the buffers on the way hold far less.
        app.tamper(wrong).await;
        let told = reader.read_on().await;
        assert!(!is_whole(&told), "{wrong}");
        assert!(told.contains("\"version\":14000,") && !told.contains("\"version\":20000,"), "{wrong}");
        app.tamper("TRUNCATE account_transaction; INSERT INTO account_transaction SELECT * FROM history").await;
    }
    // Everybody else goes on.
    app.client().get_account(account, "1").await.expect(200);
}

#[tokio::test]
async fn what_is_wrong_on_the_first_page_is_said_by_the_status() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    app.sabotage("UPDATE account_transaction SET amount = 2").await;
    app.client().get(&format!("/v1/accounts/{account}/{QUERY}")).await.expect_problem(500, "internal_error");
}

#[tokio::test]
async fn a_view_that_is_replaced_by_its_next_generation_meanwhile_changes_nothing() {
    let app = spawn_app_in_one_partition().await;
    let account = rich(&app, LINES_TO_WAIT_FOR).await;
    let reader = SlowReader::begin(&app, account).await;
    app.sabotage(
        "BEGIN;
         CREATE TEMPORARY TABLE rebuilt AS SELECT * FROM account_transaction;
         UPDATE rebuilt SET generation = 2;
         INSERT INTO account_transaction SELECT * FROM rebuilt;
         UPDATE projection SET state = 'retired' WHERE name = 'transactions';
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         VALUES (0, 'transactions', 2, 2, 'live', 1);
         DELETE FROM account_transaction WHERE generation = 1;
         COMMIT",
    )
    .await;
    assert!(is_whole(&reader.read_on().await));
}

/// Reads `path` a few times, so that its statements are planned for good.
async fn ask(app: &App, paths: &[String]) {
    for _ in 0..8 {
        for path in paths {
            assert_ne!(app.client().get(path).await.body, Value::Null, "{path}");
        }
    }
}

#[tokio::test]
async fn statements_prepared_on_an_empty_history_read_only_what_they_need_when_it_is_full() {
    let mut app = spawn_app_in_one_partition().await;
    // Nobody tells the planner later how full it is.
    app.sabotage("ALTER TABLE account_transaction SET (autovacuum_enabled = off)").await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    let paths = [
        "?as_of=2030-01-01T00:00:00Z",
        "?as_of_version=150000",
        "/statement?from=2026-03-01&to=2026-03-02",
        "/statement?from=2200-01-01&to=2200-02-01",
        "/transactions?limit=5",
        "/transactions?limit=5&from=2026-02-01T00:00:00Z&to=2026-02-02T00:00:00Z",
    ]
    .map(|query| format!("/v1/accounts/{account}{query}"));
    ask(&app, &paths).await;
    // One account with a long history, from minute to minute, among many others.
    app.tamper(&format!(
        "UPDATE account_transaction SET recorded_at = '2026-01-01T00:00:00Z';
         INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, '{account}', n, 'deposit', 1, n, '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 minute',
                gen_random_uuid(), 'open', n
         FROM generate_series(2, {LINES}) AS n;
         INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, gen_random_uuid(), 1, 'opening', 0, 0, now(), gen_random_uuid(), 'open', 0
         FROM generate_series(1, 50000)"
    ))
    .await;
    let before = rows_read(&app).await;
    ask(&app, &paths).await;
    let day = app.client().get(&paths[2]).await.expect(200);
    assert_eq!((day.body["lines"].as_array().unwrap().len(), &day.body["opening_balance"]), (1_440, &json!(84_959)));
    app.stop().await;
    app.wait_until_disconnected().await;
    let read = rows_read(&app).await - before;
    // Nine days of 1440 lines, and some 20 rows for each time that is looked for.
    assert!((12_960..25_000).contains(&read), "{read} rows were read");
}

/// How many rows of the history were read in any way, as far as it has been added up.
async fn rows_read(app: &App) -> i64 {
    query_scalar(
        "SELECT (seq_tup_read + idx_tup_fetch)::int8 FROM pg_stat_user_tables WHERE relname = 'account_transaction'",
    )
    .fetch_one(&mut app.database().await)
    .await
    .unwrap()
}
