//! A TCP load balancer in front of Postgres without a server behind it: it closes each connection before the first byte.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;
use passbook_testkit::{
    eventually, folder::Folder, ports::free_port, postgres_server::PostgresServer, process::Passbook, repository_root,
};
use serde_json::Value;

/// Requests of each kind during the outage.
const REQUESTS: usize = 25;

/// HAProxy, killed on drop.
struct Balancer {
    process: Child,
    address: String,
}

impl Balancer {
    fn start(folder: &Folder, server: &PostgresServer) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let configuration = format!(
            "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1h\n    timeout server 1h\n\
             listen postgres\n    bind {address}\n    \
             server one {} check inter 50ms fall 1 rise 1 on-marked-down shutdown-sessions\n",
            server.tcp_address()
        );
        let file = folder.join("balancer.cfg");
        fs::write(&file, configuration).unwrap();
        let unpacked = repository_root().join("target/tools/haproxy");
        let program = if unpacked.exists() { unpacked } else { "haproxy".into() };
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("HAProxy is not installed: run `scripts/install-deps --test`");
        Self { process, address }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn an_outage_behind_a_balancer_is_one_understandable_line() {
    let folder = Folder::empty();
    let mut server = PostgresServer::with_tcp(&folder).await;
    let balancer = Balancer::start(&folder, &server);
    let url = format!("postgres://passbook@{}/passbook", balancer.address);
    eventually("the load balancer", async || sqlx::PgPool::connect(&url).await.ok().map(drop)).await;
    let service = Passbook::with_database(&url).set("PASSBOOK_LOG_FORMAT", "json").start();
    let client = &service.client;
    client.open_account().await;
    client.deposit_ok("before").await;

    server.crash();
    eventually("unreadiness", async || (client.get("/readyz").await.status() == 503).then_some(())).await;
    for number in 0..REQUESTS {
        client.deposit(&format!("during-{number}")).await;
        client.get("/v1/accounts").await;
        client.get("/v1/events").await;
    }
    server.recover().await;
    client.deposit_with_retry("after").await;
    client.wait_until_ready().await;

    let ended = service.stop(Signal::SIGTERM);
    let lines = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // The server sends a notice to each open connection when it stops.
    let is_degraded = |line: &Value| {
        matches!(line["level"].as_str(), Some("WARN" | "ERROR")) && line["target"] != "sqlx::postgres::notice"
    };
    let degraded: Vec<Value> = lines.filter(is_degraded).collect();
    let mut lines_by_message = BTreeMap::<_, usize>::new();
    for line in &degraded {
        *lines_by_message.entry(line["message"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(lines_by_message.get("database cannot be reached; retrying"), Some(&1), "{degraded:#?}");
    // Other lines are of other tasks: readiness, and what holds and keys need.
    assert!(lines_by_message.values().all(|count| *count == 1), "{degraded:#?}");
    assert!(!ended.stderr.contains("SSLRequest"), "{degraded:#?}");
    assert!(ended.stderr.contains("database can be reached again"), "{}", ended.stderr);
}
