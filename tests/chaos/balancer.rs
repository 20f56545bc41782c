//! HAProxy in front of several instances, with the configuration of `ops/haproxy.cfg`.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use passbook_testkit::{eventually, folder::Folder};

/// A local address with a free port. Another process may take the port before the caller binds it.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub struct Balancer {
    process: Child,
    pub url: Arc<str>,
}

impl Balancer {
    /// Starts HAProxy with these addresses as its servers. The instances may start later.
    pub async fn start(folder: &Folder, instances: &[String]) -> Self {
        let (address, health) = (free_address(), free_address());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let delivered = fs::read_to_string(root.join("ops/haproxy.cfg")).unwrap();
        let is_server = |line: &&str| line.trim_start().starts_with("server ");
        let first = delivered.lines().position(|line| is_server(&line)).unwrap();
        let mut lines: Vec<String> = delivered.lines().filter(|line| !is_server(line)).map(str::to_owned).collect();
        for (number, instance) in instances.iter().enumerate() {
            lines.insert(first, format!("    server passbook-{number} {instance}"));
        }
        let configuration = lines
            .join("\n")
            .replace("bind :8080", &format!("bind {address}"))
            .replace("bind :8404", &format!("bind {health}"));
        let file = folder.join("haproxy.cfg");
        fs::write(&file, configuration + "\n").unwrap();
        let unpacked = root.join("target/tools/haproxy");
        let program = if unpacked.exists() { unpacked } else { "haproxy".into() };
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("HAProxy is not installed: run `scripts/install-deps --test`");
        let url: Arc<str> = format!("http://{address}").into();
        Self { process, url }
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

impl Drop for Balancer {
    fn drop(&mut self) {
        // Ignore errors: the process may have exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
