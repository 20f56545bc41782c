//! Long statements are streamed page by page at the reader's speed. They do not occupy database connections, and a
//! stream is aborted if its rows are inconsistent.

use std::time::Duration;

use futures_util::future::join_all;
use passbook_testkit::{App, eventually, spawn_app, spawn_app_in_one_partition};
use serde_json::{Value, json};
use sqlx::{Connection, query_scalar, raw_sql};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

use crate::statement::rows;

const LINES: i64 = 70_000;
/// The movements of an account that is long for the planner.
const MOVEMENTS: i64 = 200_000;
/// More lines than all buffers between the service and a slow reader hold.
const LINES_BEYOND_BUFFERS: i64 = 20_000;
/// More than the connections of the query pool.
const SLOW_READERS: usize = 40;
const RECEIVE_BYTES: u32 = 16 * 1024;
const QUERY: &str = "statement?from=2000-01-01&to=2200-01-01";

/// Opens an account with 1 and inserts deposits of 1, up to `lines` lines, into the transactions view only.
async fn account_with_lines(app: &App, lines: i64) -> Uuid {
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

/// A client that has read only the first bytes of a statement.
struct SlowReader(TcpStream);

impl SlowReader {
    async fn start(app: &App, account: Uuid) -> Self {
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

    /// Reads the rest of the response.
    async fn read_rest(mut self) -> String {
        let mut rest = Vec::new();
        // An aborted connection is an error here; the bytes received before it are still returned.
        let _ = self.0.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }
}

/// Whether the body is complete: it contains the closing balance and ends with the empty last chunk.
fn is_complete(response: &str) -> bool {
    let has_closing_balance = response.contains(&format!("\"closing_balance\":{LINES_BEYOND_BUFFERS},\"position\":\""));
    assert_eq!(response.ends_with("\r\n0\r\n\r\n"), has_closing_balance);
    has_closing_balance
}

/// The number of query connections that execute a statement or are in a transaction.
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
async fn statement_of_many_lines_is_complete_in_both_formats() {
    let app = spawn_app_in_one_partition().await;
    let account = account_with_lines(&app, LINES).await;
    let path = format!("/v1/accounts/{account}/{QUERY}");
    let json = app.client().get(&path).await.expect(200);
    let lines = json.body["lines"].as_array().unwrap();
    assert_eq!(
        json!([lines.len(), json.body["total_in"], json.body["closing_balance"]]),
        json!([LINES, LINES.to_string(), LINES])
    );
    assert!((1..).zip(lines).all(|(version, line)| line["version"] == version && line["balance_after"] == version));

    let csv = app.client().with_header("accept", "text/csv").get(&path).await.expect(200);
    let rows = rows(&csv);
    assert_eq!(rows.len(), usize::try_from(LINES).unwrap() + 11);
    assert!((2..).zip(&rows[9..=70_007]).all(|(version, row)| row[4] == format!("coin {version}")));
    assert_eq!((&*rows[70_010][1], &*rows[70_010][3]), ("Closing balance", "700.00"));
}

#[tokio::test]
async fn slow_readers_occupy_no_database_connection() {
    let app = spawn_app_in_one_partition().await;
    let account = account_with_lines(&app, LINES_BEYOND_BUFFERS).await;
    let mut readers = join_all((0..SLOW_READERS).map(|_| SlowReader::start(&app, account))).await;
    eventually("idle query connections", async || (busy_connections(&app).await == 0).then_some(())).await;
    // Other reads are served, statements included.
    let client = app.client();
    let others = join_all((0..20).map(|_| client.get_account(account, "1"))).await;
    assert!(others.iter().all(|response| response.status == 200));
    client.get(&format!("/v1/accounts/{account}/statement?from=2000-01-01&to=2000-02-01")).await.expect(200);
    eventually("idle query connections after other reads", async || (busy_connections(&app).await == 0).then_some(()))
        .await;
    assert!(is_complete(&readers.pop().unwrap().read_rest().await));
}

#[tokio::test]
async fn statements_leave_connections_for_other_queries() {
    let app = spawn_app_in_one_partition().await;
    let account = account_with_lines(&app, LINES_BEYOND_BUFFERS).await;
    let readers = join_all((0..SLOW_READERS).map(|_| SlowReader::start(&app, account))).await;
    let mut lock = app.database().await;
    raw_sql("BEGIN; LOCK TABLE account_transaction").execute(&mut lock).await.unwrap();
    let reading = tokio::spawn(join_all(readers.into_iter().map(SlowReader::read_rest)));
    eventually("statements that wait for the lock", async || (busy_connections(&app).await > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = busy_connections(&app).await;
    assert!(waiting <= 4, "statements occupy {waiting} connections");
    app.client().get_account(account, "1").await.expect(200);
    lock.close().await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn inconsistent_rows_abort_the_statement_stream() {
    let app = spawn_app_in_one_partition().await;
    let account = account_with_lines(&app, LINES_BEYOND_BUFFERS).await;
    let save_rows = "CREATE TABLE history AS SELECT * FROM account_transaction";
    app.tamper(save_rows).await;
    for corruption in [
        "DELETE FROM account_transaction WHERE version = 19000",
        "UPDATE account_transaction SET amount = 2 WHERE version = 18000",
        "UPDATE account_transaction SET balance_after = balance_after + 1 WHERE version >= 17000",
        "UPDATE account_transaction SET kind = 'withdrawal' WHERE version = 16000",
        // A missing movement and a raised amount cancel out in the sum.
        "DELETE FROM account_transaction WHERE version = 15500;
         UPDATE account_transaction SET amount = 2 WHERE version = 15501",
        // Each balance follows from the previous one, but the closing balance is wrong.
        "UPDATE account_transaction SET amount = 2 WHERE version = 15200;
         UPDATE account_transaction SET balance_after = balance_after + 1 WHERE version >= 15200",
        "DELETE FROM account_transaction WHERE version > 15000",
    ] {
        let reader = SlowReader::start(&app, account).await;
        eventually("idle query connections", async || (busy_connections(&app).await == 0).then_some(())).await;
        // The service has not read these rows yet, because the buffers hold far fewer lines.
        app.tamper(corruption).await;
        let body = reader.read_rest().await;
        assert!(!is_complete(&body), "{corruption}");
        assert!(body.contains("\"version\":14000,") && !body.contains("\"version\":20000,"), "{corruption}");
        app.tamper("TRUNCATE account_transaction; INSERT INTO account_transaction SELECT * FROM history").await;
    }
    // Other reads are served.
    app.client().get_account(account, "1").await.expect(200);
}

#[tokio::test]
async fn inconsistent_first_page_gives_500() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(1).await;
    app.wait_until_projected().await;
    app.sabotage("UPDATE account_transaction SET amount = 2").await;
    app.client().get(&format!("/v1/accounts/{account}/{QUERY}")).await.expect_problem(500, "internal_error");
}

#[tokio::test]
async fn statement_survives_a_switch_of_the_view_generation() {
    let app = spawn_app_in_one_partition().await;
    let account = account_with_lines(&app, LINES_BEYOND_BUFFERS).await;
    let reader = SlowReader::start(&app, account).await;
    app.sabotage(
        "BEGIN;
         CREATE TEMPORARY TABLE rebuilt AS SELECT * FROM account_transaction;
         UPDATE rebuilt SET generation = 2;
         INSERT INTO account_transaction SELECT * FROM rebuilt;
         UPDATE projection SET state = 'retired' WHERE name = 'transactions';
         INSERT INTO projection (partition, name, generation, schema_version, state, position)
         VALUES (0, 'transactions', 2, 3, 'live', 1);
         DELETE FROM account_transaction WHERE generation = 1;
         COMMIT",
    )
    .await;
    assert!(is_complete(&reader.read_rest().await));
}

/// Reads each path eight times, so that Postgres fixes generic plans for its statements.
async fn get_repeatedly(app: &App, paths: &[String]) {
    for _ in 0..8 {
        for path in paths {
            assert_ne!(app.client().get(path).await.body, Value::Null, "{path}");
        }
    }
}

#[tokio::test]
async fn queries_planned_on_an_empty_view_read_few_rows_later() {
    let mut app = spawn_app_in_one_partition().await;
    // Without autovacuum the planner does not learn how many rows the table has.
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
    get_repeatedly(&app, &paths).await;
    // One account with a movement every minute, among many other accounts.
    app.tamper(&format!(
        "UPDATE account_transaction SET recorded_at = '2026-01-01T00:00:00Z';
         INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, '{account}', n, 'deposit', 1, n, '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 minute',
                gen_random_uuid(), 'open', n
         FROM generate_series(2, {MOVEMENTS}) AS n;
         INSERT INTO account_transaction
             (partition, generation, account_id, version, kind, amount, balance_after, recorded_at, event_id, status, transaction_count)
         SELECT 0, 1, gen_random_uuid(), 1, 'opening', 0, 0, now(), gen_random_uuid(), 'open', 0
         FROM generate_series(1, 50000)"
    ))
    .await;
    let before = rows_read(&app).await;
    get_repeatedly(&app, &paths).await;
    let day = app.client().get(&paths[2]).await.expect(200);
    assert_eq!((day.body["lines"].as_array().unwrap().len(), &day.body["opening_balance"]), (1_440, &json!(84_959)));
    app.stop().await;
    app.wait_until_disconnected().await;
    let read = rows_read(&app).await - before;
    // Nine statements of a day with 1440 lines, and about 20 rows for each look-up of a time.
    assert!((12_960..25_000).contains(&read), "{read} rows were read");
}

/// The number of rows read from `account_transaction`, by index or scan, as reported so far.
async fn rows_read(app: &App) -> i64 {
    query_scalar(
        "SELECT (seq_tup_read + idx_tup_fetch)::int8 FROM pg_stat_user_tables WHERE relname = 'account_transaction'",
    )
    .fetch_one(&mut app.rows_under_test().await)
    .await
    .unwrap()
}
