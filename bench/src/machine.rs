//! Describes the machine and the settings of a measurement. Figures are comparable only with this context.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::postgres::Postgres;
use crate::process::stdout_if_ok;

/// The Postgres settings that a durable commit depends on, and those that decide the cost of a large log.
const SHOWN: [&str; 7] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_compression",
];

/// The context of a report. A value that cannot be read is `unknown`.
#[derive(Default, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub file_system: String,
    pub postgres: String,
    pub postgres_settings: String,
    pub date: String,
    pub load_average: String,
    pub commit: String,
    pub settings: BTreeMap<String, String>,
}

impl Machine {
    /// The system's load average. Read it before anything is started: it shows how busy the machine was.
    pub async fn load_average() -> String {
        match fs::read_to_string("/proc/loadavg") {
            Ok(text) => text.split(' ').take(3).collect::<Vec<_>>().join(" "),
            Err(_) => known(stdout_if_ok("sysctl", &["-n", "vm.loadavg"]).await),
        }
    }

    pub async fn describe(load_average: String, postgres: &Postgres, data: &Path) -> Result<Self> {
        let mut shown = Vec::new();
        for name in SHOWN {
            shown.push(format!("{name} {}", postgres.setting(name).await?));
        }
        let data = data.to_string_lossy();
        Ok(Self {
            cpu: cpu_model().await,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: known(stdout_if_ok("uname", &["-sr"]).await),
            file_system: known(stdout_if_ok("findmnt", &["-no", "FSTYPE", "-T", &data]).await),
            postgres: postgres.setting("server_version").await?,
            postgres_settings: shown.join(", "),
            date: known(stdout_if_ok("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).await),
            load_average,
            commit: known(stdout_if_ok("git", &["describe", "--always", "--dirty"]).await),
            settings: settings(),
        })
    }

    /// The description in one line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{}, {} cores, {}, data on {}, Postgres {} ({}), {}, load before {}, commit {}",
            self.cpu,
            self.cores,
            self.kernel,
            self.file_system,
            self.postgres,
            self.postgres_settings,
            self.date,
            self.load_average,
            self.commit,
        );
        for (name, value) in &self.settings {
            line.push_str(&format!(", {name}={value}"));
        }
        line
    }
}

async fn cpu_model() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    match model.and_then(|rest| rest.split_once(": ")) {
        Some((_, model)) => model.to_owned(),
        None => known(stdout_if_ok("sysctl", &["-n", "machdep.cpu.brand_string"]).await),
    }
}

/// The settings that the service inherits from the environment of `bench`.
fn settings() -> BTreeMap<String, String> {
    std::env::vars().filter(|(name, _)| crate::service::is_forwarded(name)).collect()
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "unknown".to_owned())
}
