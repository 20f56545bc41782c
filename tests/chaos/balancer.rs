//! HAProxy in front of several instances, with the configuration of `ops/haproxy.cfg`, or in front of the servers of a Patroni cluster,
//! with that of `ops/haproxy-postgres.cfg`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use passbook_testkit::{eventually, folder::Folder, ports::free_port};

/// A local address with a free port. Another process may take the port before the caller binds it.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

pub struct Balancer {
    /// Ends with the balancer.
    _process: HaProxy,
    pub url: Arc<str>,
}

/// A running HAProxy. It is killed on drop.
pub struct HaProxy(Child);

impl Balancer {
    /// Starts HAProxy with these addresses as its servers. The instances may start later.
    pub async fn start(folder: &Folder, instances: &[String]) -> Self {
        let (address, health) = (free_address(), free_address());
        let replacements = [("bind :8080", format!("bind {address}")), ("bind :8404", format!("bind {health}"))];
        let process = HaProxy::start(folder, "haproxy.cfg", instances, &replacements);
        let url: Arc<str> = format!("http://{address}").into();
        Self { _process: process, url }
    }

    /// Waits until a request through HAProxy reaches an instance.
    pub async fn wait_until_reachable(&self) {
        let http = passbook_testkit::http_client().build().unwrap();
        eventually("a response through the load balancer", async || {
            http.get(format!("{}/livez", self.url)).send().await.ok()?.error_for_status().ok().map(drop)
        })
        .await;
    }
}

impl HaProxy {
    /// Starts HAProxy with the configuration `name` of the folder `ops`, these servers in place of its own, and further changes.
    pub fn start(folder: &Folder, name: &str, servers: &[String], replacements: &[(&str, String)]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let delivered = fs::read_to_string(root.join("ops").join(name)).unwrap();
        let is_server = |line: &&str| line.trim_start().starts_with("server ");
        let first = delivered.lines().position(|line| is_server(&line)).unwrap();
        let mut lines: Vec<String> = delivered.lines().filter(|line| !is_server(line)).map(str::to_owned).collect();
        for (number, server) in servers.iter().enumerate() {
            lines.insert(first, format!("    server server-{number} {server}"));
        }
        let configuration =
            replacements.iter().fold(lines.join("\n") + "\n", |text, (old, new)| text.replace(old, new));
        let file = folder.join(name);
        fs::write(&file, configuration).unwrap();
        let unpacked = root.join("target/tools/haproxy");
        let program = if unpacked.exists() { unpacked } else { "haproxy".into() };
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("HAProxy is not installed: run `scripts/install-deps --test`"))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // Ignore errors: the process may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
