//! HAProxy before several passbooks, as `ops/haproxy.cfg` sets it up.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use crate::{eventually, folder::Folder};

/// Where nobody listens, at least a moment ago.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub struct Balancer {
    process: Child,
    pub url: Arc<str>,
}

impl Balancer {
    /// Before the passbooks at these addresses, whether or not they are there already.
    pub async fn before(folder: &Folder, passbooks: &[String]) -> Self {
        let (address, health) = (free_address(), free_address());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let delivered = fs::read_to_string(root.join("ops/haproxy.cfg")).unwrap();
        let is_server = |line: &&str| line.trim_start().starts_with("server ");
        let first = delivered.lines().position(|line| is_server(&line)).unwrap();
        let mut lines: Vec<String> = delivered.lines().filter(|line| !is_server(line)).map(str::to_owned).collect();
        for (number, passbook) in passbooks.iter().enumerate() {
            lines.insert(first, format!("    server passbook-{number} {passbook}"));
        }
        let ours = lines
            .join("\n")
            .replace("bind :8080", &format!("bind {address}"))
            .replace("bind :8404", &format!("bind {health}"));
        let file = folder.beside("haproxy.cfg");
        fs::write(&file, ours + "\n").unwrap();
        let unpacked = root.join("target/tools/haproxy");
        let program = if unpacked.exists() { unpacked } else { "haproxy".into() };
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("HAProxy is installed by scripts/setup --test");
        let url: Arc<str> = format!("http://{address}").into();
        Self { process, url }
    }

    /// Lets somebody through.
    pub async fn is_open(&self) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        eventually("an open door", async || {
            http.get(format!("{}/livez", self.url)).send().await.ok()?.error_for_status().ok().map(drop)
        })
        .await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended by itself; it keeps nothing.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
