//! A former primary that still accepts writes after its standby was promoted, as a machine that was frozen or cut off. No write and
//! no read may go back to it. Also a restore to an earlier moment, after which the log has another history.

use std::time::Duration;

use nix::sys::signal::Signal;
use passbook_testkit::{
    eventually,
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Passbook, Running},
    service_client::Client,
};
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// How often the connections of a service are closed, each time with both servers to choose from.
const RECONNECTIONS: usize = 12;
/// How often a service is started with both servers to choose from.
const RESTARTS: i64 = 3;
/// Clients whose queries follow each other so closely that they share a connection that is never idle.
const READERS: usize = 8;
const CLOSE_CONNECTIONS: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'passbook %'";

/// A former primary and the standby that was promoted. Both accept writes.
struct TwoPrimaries {
    former: PostgresServer,
    primary: PostgresServer,
    service: Running,
    _folder: Folder,
}

impl TwoPrimaries {
    /// Starts a service with an account, and promotes the standby. The former primary is first in the list.
    async fn new() -> Self {
        let folder = Folder::empty();
        let former = PostgresServer::start(&folder).await;
        let primary = former.standby(&folder).await;
        let service = start(&[&former, &primary]);
        service.client.open_account().await;
        service.client.deposit_ok("before").await;
        eventually("the standby", async || primary.query_bool("SELECT position = 2 FROM log_head").await.then_some(()))
            .await;
        primary.promote();
        Self { former, primary, service, _folder: folder }
    }

    /// Waits until a deposit is in the log of the new primary.
    async fn wait_for_failover(&self) {
        eventually("a deposit at the new primary", async || {
            let position = position(&self.primary).await;
            self.service.client.deposit_with_retry(&format!("after-{position}")).await;
            self.has_moved(position).await
        })
        .await;
    }

    async fn has_moved(&self, before: i64) -> Option<()> {
        sleep(Duration::from_millis(50)).await;
        (position(&self.primary).await > before).then_some(())
    }
}

fn start(servers: &[&PostgresServer]) -> Running {
    let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
    Passbook::with_database(&urls.join(",")).set("PASSBOOK_LOG_FORMAT", "json").start()
}

async fn position(server: &PostgresServer) -> i64 {
    sqlx::query_scalar("SELECT position FROM log_head").fetch_one(&mut server.connect().await).await.unwrap()
}

async fn has_metric(client: &Client, line: &str) -> bool {
    let text = client.get("/metrics").await.text().await.unwrap();
    text.lines().any(|found| found == line)
}

/// How many log lines have this message. Lines are written a moment after what they report.
async fn count(service: &Running, message: &str) -> usize {
    let count = || service.process.stderr().lines().filter(|line| line.contains(message)).count();
    eventually("a log line", async || (count() > 0).then_some(())).await;
    count()
}

#[tokio::test]
async fn no_connection_goes_back_to_a_former_primary() {
    let servers = TwoPrimaries::new().await;
    let client = &servers.service.client;
    servers.wait_for_failover().await;
    let (written, before) = (position(&servers.former).await, position(&servers.primary).await);
    for number in 0..RECONNECTIONS {
        servers.primary.execute(CLOSE_CONNECTIONS, "passbook").await;
        client.deposit_with_retry(&format!("reconnected-{number}")).await;
    }
    assert_eq!(position(&servers.primary).await, before + RECONNECTIONS as i64);
    assert_eq!(position(&servers.former).await, written, "the former primary took a write");

    eventually("the metric", async || has_metric(client, "passbook_former_primaries 1").await.then_some(())).await;
    assert_eq!(
        count(&servers.service, "former primary accepts writes").await,
        1,
        "{}",
        servers.service.process.stderr()
    );
}

async fn read_without_pause(client: Client, path: String) {
    loop {
        client.get(&path).await;
    }
}

#[tokio::test]
async fn queries_without_a_pause_leave_a_former_primary() {
    let servers = TwoPrimaries::new().await;
    let client = &servers.service.client;
    let accounts: Value = client.get("/v1/accounts").await.json().await.unwrap();
    let path = format!("/v1/accounts/{}", accounts["data"][0]["account_id"].as_str().unwrap());
    let reader = || AbortOnDropHandle::new(tokio::spawn(read_without_pause(client.clone(), path.clone())));
    let _readers: Vec<_> = (0..READERS).map(|_| reader()).collect();
    servers.wait_for_failover().await;
    // The deposits before the failover were the former primary's.
    let former = position(&servers.former).await;
    for number in position(&servers.primary).await..=former {
        client.deposit_with_retry(&format!("beyond-{number}")).await;
    }
    // Without other accounts, the version is the position.
    eventually("the state at the new primary", async || {
        let account: Value = client.get(&path).await.json().await.unwrap();
        (account["version"] == former + 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_does_not_go_back_to_a_former_primary() {
    let mut servers = TwoPrimaries::new().await;
    servers.wait_for_failover().await;
    let is_marked = "SELECT timeline = 2 FROM server_timeline";
    eventually("the mark of the new timeline", async || {
        (servers.former.query_bool(is_marked).await && servers.primary.query_bool(is_marked).await).then_some(())
    })
    .await;
    let urls = format!("{},{}", servers.former.url(), servers.primary.url());
    servers.service.process.signal(Signal::SIGKILL);
    let (written, before) = (position(&servers.former).await, position(&servers.primary).await);
    for number in 0..RESTARTS {
        let service = Passbook::with_database(&urls).start();
        service.client.deposit_with_retry(&format!("restarted-{number}")).await;
    }
    assert_eq!(position(&servers.former).await, written, "the former primary took a write");
    assert_eq!(position(&servers.primary).await, before + RESTARTS);

    // Without the new primary no server is left, although the former one accepts writes.
    servers.primary.kill();
    let ended = Passbook::with_database(&urls).wait_for_exit();
    let message = ended.error_message();
    assert!(message.contains("has timeline 1, but timeline 2 took writes later"), "{message}");
    assert_eq!(position(&servers.former).await, written);
}

#[tokio::test]
async fn a_cursor_of_the_new_primary_stays_valid() {
    let servers = TwoPrimaries::new().await;
    servers.wait_for_failover().await;
    let client = &servers.service.client;
    let page: Value = client.get("/v1/events").await.json().await.unwrap();
    let cursor = page["next"].as_str().unwrap();
    for _ in 0..RECONNECTIONS {
        servers.primary.execute(CLOSE_CONNECTIONS, "passbook").await;
        eventually("a page", async || {
            let response = client.get(&format!("/v1/events?after={cursor}")).await;
            assert_ne!(response.status(), 400, "{}", response.text().await.unwrap());
            response.status().is_success().then_some(())
        })
        .await;
    }
    let refused = client.get("/v1/events?after=999999").await;
    assert_eq!(refused.status(), 400, "the primary has no such event");
}

#[tokio::test]
async fn a_promoted_standby_without_an_acknowledged_event_is_reported() {
    let folder = Folder::empty();
    let former = PostgresServer::start(&folder).await;
    let primary = former.standby(&folder).await;
    let service = start(&[&former, &primary]);
    service.client.open_account().await;
    eventually("the standby", async || primary.query_bool("SELECT position = 1 FROM log_head").await.then_some(()))
        .await;
    // Replication stops, and the former primary acknowledges a deposit alone.
    primary.execute("ALTER SYSTEM SET primary_conninfo = ''", "postgres").await;
    primary.execute("SELECT pg_reload_conf()", "postgres").await;
    eventually("the end of replication", async || {
        former.query_bool("SELECT NOT EXISTS (SELECT FROM pg_stat_replication)").await.then_some(())
    })
    .await;
    service.client.deposit_ok("lost").await;
    primary.promote();

    let line = "passbook_lost_heads_total 1";
    eventually("the metric", async || has_metric(&service.client, line).await.then_some(())).await;
    assert_eq!(count(&service, "log has another history; acknowledged events are missing").await, 1);
    service.client.deposit_with_retry("after").await;
    assert_eq!(position(&primary).await, 2);
}

#[tokio::test]
async fn a_restore_under_a_running_service_is_reported_and_heals() {
    let folder = Folder::empty();
    let mut server = PostgresServer::start(&folder).await;
    let service = start(&[&server]);
    let client = &service.client;
    client.open_account().await;
    server.back_up();
    client.deposit_ok("kept").await;
    server.execute("SELECT pg_create_restore_point('before')", "postgres").await;
    client.deposit_ok("lost").await;
    server.crash();
    server.restore("before").await;

    // No command is needed: the service notices the restore by itself.
    let line = "passbook_lost_heads_total 1";
    eventually("the metric", async || has_metric(client, line).await.then_some(())).await;
    assert_eq!(count(&service, "log has another history; acknowledged events are missing").await, 1);
    client.deposit_with_retry("after").await;
    assert_eq!(position(&server).await, 3);
    eventually("the view", async || {
        let deposits = client.deposits().await;
        (deposits.len() == 2).then_some(())
    })
    .await;
}
