//! A frozen instance: stopped in the middle of a response that is larger than the buffers of its socket, over TCP and over a Unix
//! socket. The backend then waits for the client without a time limit, so it must hold no lock meanwhile.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Passbook, Running},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, query_scalar, raw_sql};
use tokio::time::sleep;

const WAIT_S_MAX: u64 = 60;
/// The account of the service client.
const ACCOUNT: &str = "01900000-0000-7000-8000-0000000000aa";
/// An account that no instance has cached.
const OTHER: &str = "01900000-0000-7000-8000-0000000000bb";
/// With references of this size the events take more than the buffers of a socket, by far.
const EVENTS: i64 = 9_000;
const REFERENCE_BYTES: i64 = 2_000;

/// A server that is reached over TCP and one over its Unix socket, each with the URL.
async fn servers(folders: &[Folder; 2]) -> Vec<(PostgresServer, String)> {
    let over_tcp = PostgresServer::with_tcp(&folders[0]).await;
    let over_unix = PostgresServer::start(&folders[1]).await;
    let urls = [over_tcp.tcp_url(), over_unix.url()];
    [over_tcp, over_unix].into_iter().zip(urls).collect()
}

/// Starts two instances whose account is cached. The first one takes the locked path.
async fn start_two(server: &PostgresServer, url: &str) -> (Running, Running) {
    let (first, second) = (Passbook::with_database(url).start(), Passbook::with_database(url).start());
    first.client.open_account().await;
    second.client.deposit_with_retry("second").await;
    server.execute("UPDATE log_head SET fence = fence + 1", "passbook").await;
    first.client.deposit_with_retry("first").await;
    (first, second)
}

/// Deposits into one account, as SQL. They are readable, but their hashes form no chain.
fn insert_events(account: &str) -> String {
    format!(
        "INSERT INTO event
         SELECT 0, (SELECT max(position) FROM event) + n, gen_random_uuid(), '{account}',
                (SELECT max(version) FROM event WHERE stream_id = '{account}') + n, 'MoneyDeposited', 1,
                ('{{\"amount\":1,\"reference\":\"' || repeat('x', {REFERENCE_BYTES}) || '\"}}')::json,
                '{{\"user_id\":\"anonymous\",\"correlation_id\":\"bulk\",\"causation_id\":\"bulk\"}}',
                (SELECT recorded_at FROM log_head), sha256(n::text::bytea)
         FROM generate_series(1, {EVENTS}) AS n;"
    )
}

const MOVE_HEAD: &str =
    "UPDATE log_head SET position = position + 9000, recorded_at = recorded_at + interval '1 microsecond',
                                hash = sha256('9000')";

async fn begin(server: &PostgresServer, sql: impl AsRef<str>) -> PgConnection {
    let mut connection = server.connect().await;
    raw_sql(AssertSqlSafe(format!("BEGIN; {}", sql.as_ref()))).execute(&mut connection).await.unwrap();
    connection
}

async fn commit(mut connection: PgConnection) {
    raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Waits until a connection of this name waits for a lock: for a row, or for a relation.
async fn wait_for_blocked(server: &PostgresServer, application: &str, is_relation: bool) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    let mut connection = server.connect().await;
    loop {
        let is_blocked: bool = query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'
                                                           AND (wait_event = 'relation') = $2)",
        )
        .bind(application)
        .bind(is_relation)
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if is_blocked {
            return;
        }
        assert!(Instant::now() < deadline, "no {application} waits for a lock");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the view shows the account at this version.
async fn wait_for_version(instance: &Running, version: i64) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    loop {
        let view: Value = instance.client.get(&format!("/v1/accounts/{ACCOUNT}")).await.json().await.unwrap();
        if view["version"] == version {
            return;
        }
        assert!(Instant::now() < deadline, "the views do not move: {view}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Sends a deposit that need not be answered.
fn send_deposit(instance: &Running, account: &str, key: &str) -> tokio::task::JoinHandle<()> {
    let (client, path, key) = (instance.client.clone(), format!("/v1/accounts/{account}/deposits"), key.to_owned());
    tokio::spawn(async move { drop(client.post(&path, &key, &json!({"amount": 1})).await) })
}

#[tokio::test]
async fn instance_frozen_while_it_catches_up_does_not_stop_others() {
    let folders = [Folder::empty(), Folder::empty()];
    for (server, url) in servers(&folders).await {
        let (frozen, other) = start_two(&server, &url).await;
        let appending =
            begin(&server, format!("SELECT FROM log_head FOR UPDATE; {} {MOVE_HEAD}", insert_events(ACCOUNT)));
        let appending = appending.await;
        let unanswered = send_deposit(&frozen, ACCOUNT, "unanswered");
        wait_for_blocked(&server, "passbook writer", false).await;
        frozen.process.signal(Signal::SIGSTOP);
        commit(appending).await;
        other.client.deposit_with_retry("third").await;
        frozen.process.signal(Signal::SIGCONT);
        unanswered.await.unwrap();
        frozen.client.deposit_with_retry("fourth").await;
    }
}

#[tokio::test]
async fn instance_frozen_while_it_loads_an_account_does_not_stop_others() {
    let folders = [Folder::empty(), Folder::empty()];
    for (server, url) in servers(&folders).await {
        let (frozen, other) = start_two(&server, &url).await;
        let body = json!({"account_id": OTHER, "currency": "EUR"});
        assert_eq!(other.client.post("/v1/accounts", "other", &body).await.unwrap().status(), 201);
        server.execute(&format!("DO $$ BEGIN {} {MOVE_HEAD}; END $$", insert_events(OTHER)), "passbook").await;
        frozen.client.deposit_with_retry("third").await;
        // The first command waits for the log-head lock, and the second one could join its batch.
        let table_lock = begin(&server, "LOCK TABLE snapshot IN ACCESS EXCLUSIVE MODE").await;
        let head_lock = begin(&server, "SELECT FROM log_head FOR UPDATE").await;
        let first = send_deposit(&frozen, ACCOUNT, "in-the-batch");
        wait_for_blocked(&server, "passbook writer", false).await;
        let second = send_deposit(&frozen, OTHER, "joins-the-batch");
        sleep(Duration::from_millis(250)).await;
        commit(head_lock).await;
        wait_for_blocked(&server, "passbook writer", true).await;
        frozen.process.signal(Signal::SIGSTOP);
        commit(table_lock).await;
        other.client.deposit_with_retry("fourth").await;
        frozen.process.signal(Signal::SIGCONT);
        first.await.unwrap();
        second.await.unwrap();
        frozen.client.deposit_with_retry("fifth").await;
    }
}

#[tokio::test]
async fn instance_frozen_while_it_projects_does_not_stop_the_views() {
    let folders = [Folder::empty(), Folder::empty()];
    for (server, url) in servers(&folders).await {
        let frozen = Passbook::with_database(&url).start();
        frozen.client.open_account().await;
        frozen.client.deposit_ok("first").await;
        wait_for_version(&frozen, 2).await;
        let appending =
            begin(&server, format!("LOCK TABLE event IN ACCESS EXCLUSIVE MODE; {}", insert_events(ACCOUNT)));
        let appending = appending.await;
        server.execute(MOVE_HEAD, "passbook").await;
        wait_for_blocked(&server, "passbook projector", true).await;
        frozen.process.signal(Signal::SIGSTOP);
        commit(appending).await;
        let other = Passbook::with_database(&url).start();
        wait_for_version(&other, EVENTS + 2).await;
        frozen.process.signal(Signal::SIGCONT);
    }
}
