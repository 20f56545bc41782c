//! A Patroni cluster: etcd, three nodes, and HAProxy with the configuration of `ops/haproxy-postgres.cfg`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use passbook_testkit::{eventually, folder::Folder, http_client, postgres_server::chown_to_postgres};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions, query};
use tokio::time::timeout;

use super::node::Node;
use crate::balancer::{HaProxy, free_address};

const NODES: usize = 3;
/// How long Patroni and Postgres may take to respond. A frozen one never does.
const RESPONSE_S_MAX: u64 = 2;
/// How long Patroni may take for a switchover.
const SWITCHOVER_S_MAX: u64 = 90;

/// Fields are dropped in this order: processes must exit before their folder is removed.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub etcd: Etcd,
    /// Ends with the cluster.
    _balancer: HaProxy,
    balancer_address: String,
    http: reqwest::Client,
    _folder: Folder,
}

impl Cluster {
    /// Starts a cluster with the empty database `passbook`.
    pub async fn start(synchronous_mode: Option<&str>) -> Self {
        let folder = Folder::empty();
        chown_to_postgres(&folder.join("."));
        let etcd = Etcd::new(folder.join("etcd"));
        etcd.start();
        let node = |number| Node::new(format!("node{number}"), folder.join("."), &etcd.address, synchronous_mode);
        let nodes: Vec<Node> = (1..=NODES).map(node).collect();
        nodes.iter().for_each(Node::start);
        let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
        let servers: Vec<String> =
            nodes.iter().map(|node| format!("{} check port {}", node.postgres, port(&node.patroni))).collect();
        let balancer_address = free_address();
        let replacements = [("bind :5432", format!("bind {balancer_address}"))];
        let balancer = HaProxy::start(&folder, "haproxy-postgres.cfg", &servers, &replacements);
        let http = http_client().timeout(Duration::from_secs(RESPONSE_S_MAX)).build().unwrap();
        let cluster = Self { nodes, etcd, _balancer: balancer, balancer_address, http, _folder: folder };
        cluster.wait_until_complete().await;
        let superuser = format!("postgres:change-me-superuser@{}/postgres", cluster.leader().await.postgres);
        let mut superuser = connect(&format!("postgres://{superuser}")).await.unwrap();
        for sql in ["CREATE ROLE bank LOGIN CREATEROLE PASSWORD 'secret'", "CREATE DATABASE passbook OWNER bank"] {
            query(AssertSqlSafe(sql)).execute(&mut superuser).await.unwrap();
        }
        cluster
    }

    /// The URLs of all servers, separated by commas.
    pub fn list_of_urls(&self) -> String {
        self.nodes.iter().map(|node| url(&node.postgres)).collect::<Vec<_>>().join(",")
    }

    /// The URL that leads to the primary through HAProxy.
    pub fn balancer_url(&self) -> String {
        url(&self.balancer_address)
    }

    /// Connects to the primary as the owner of the database. `None` if there is none that responds.
    pub async fn connect(&self) -> Option<PgConnection> {
        connect(&url(&self.try_leader().await?.postgres)).await
    }

    /// Waits until there is a leader.
    pub async fn leader(&self) -> &Node {
        eventually("a leader", async || self.try_leader().await).await
    }

    async fn try_leader(&self) -> Option<&Node> {
        self.with_role(&["leader"]).await
    }

    /// Waits until there is a standby that has every acknowledged commit.
    pub async fn synchronous_standby(&self) -> &Node {
        eventually("a synchronous standby", async || self.with_role(&["sync_standby", "quorum_standby"]).await).await
    }

    async fn with_role(&self, roles: &[&str]) -> Option<&Node> {
        let members = self.members().await?;
        let found = members.iter().find(|member| roles.contains(&member["role"].as_str().unwrap_or_default()))?;
        self.nodes.iter().find(|node| found["name"] == node.name)
    }

    /// The nodes as the first Patroni sees them that responds.
    async fn members(&self) -> Option<Vec<Value>> {
        for node in &self.nodes {
            if let Ok(response) = self.http.get(format!("http://{}/cluster", node.patroni)).send().await
                && let Ok(cluster) = response.json::<Value>().await
            {
                return cluster["members"].as_array().cloned();
            }
        }
        None
    }

    /// Waits until one node leads, and the others follow it on the same timeline, at least one synchronously.
    pub async fn wait_until_complete(&self) {
        eventually("a complete cluster", async || {
            let members = self.members().await?;
            let count = |role: &str| members.iter().filter(|member| member["role"] == role).count();
            let is_running = |member: &Value| match member["role"].as_str() {
                Some("leader") => member["state"] == "running",
                Some(_) | None => member["state"] == "streaming",
            };
            let is_one_history = members.iter().all(|member| member["timeline"] == members[0]["timeline"]);
            let is_synchronous = count("sync_standby") == 1 || count("quorum_standby") == NODES - 1;
            let is_complete = members.len() == NODES
                && count("leader") == 1
                && is_synchronous
                && is_one_history
                && members.iter().all(is_running);
            is_complete.then_some(())
        })
        .await;
    }

    /// Makes the synchronous standby the primary.
    pub async fn switch_over(&self) {
        let (leader, candidate) = (self.leader().await, self.synchronous_standby().await);
        let request = json!({"leader": leader.name, "candidate": candidate.name});
        let url = format!("http://{}/switchover", leader.patroni);
        let sent = self.http.post(url).timeout(Duration::from_secs(SWITCHOVER_S_MAX)).json(&request).send().await;
        let response = sent.unwrap();
        let status = response.status();
        assert!(status.is_success(), "switchover: {status}: {}", response.text().await.unwrap());
    }
}

impl Drop for Cluster {
    /// Prints the nodes' last log lines if the test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("log of {}: {}", node.name, node.log_tail());
            }
        }
    }
}

fn url(address: &str) -> String {
    format!("postgres://bank:secret@{address}/passbook")
}

async fn connect(url: &str) -> Option<PgConnection> {
    let options: PgConnectOptions = url.parse().unwrap();
    timeout(Duration::from_secs(RESPONSE_S_MAX), options.connect()).await.ok()?.ok()
}

/// The folder that contains what `scripts/install-deps --test` installs from PyPI.
pub fn tools() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// One etcd server. It is killed on drop.
pub struct Etcd {
    address: String,
    peer: String,
    folder: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Etcd {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        Self { address: free_address(), peer: free_address(), folder, process: Mutex::default() }
    }

    /// Starts the server with its data.
    pub fn start(&self) {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/etcd");
        let mut command = Command::new(if unpacked.exists() { unpacked } else { "etcd".into() });
        let [client, peer] = [&self.address, &self.peer].map(|address| format!("http://{address}"));
        command.arg("--data-dir").arg(self.folder.join("data")).current_dir(&self.folder);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("etcd is not installed: run `scripts/install-deps --test`");
        *self.process.lock().unwrap() = Some(process);
    }

    /// Sends SIGKILL to the server.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            // Ignore errors: the process may have exited already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
