//! One node of the cluster: Patroni with the configuration of `ops/patroni.yml`, and the Postgres that it starts. Their working
//! directories are in the node's folder.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use passbook_testkit::postgres_server::{bin_folder, chown_to_postgres, user};

use super::cluster::tools;
use crate::{balancer::free_address, postgres::FrozenProcess};

/// A list of processes may miss those that start meanwhile, so it is read this often.
const PASSES: usize = 3;
/// How many lines of its log a failing test prints.
const LINES_MAX: usize = 40;

/// A node of the cluster. Its processes are killed on drop.
pub struct Node {
    pub name: String,
    /// The address of Postgres.
    pub postgres: String,
    /// The address of Patroni.
    pub patroni: String,
    folder: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// Writes the configuration of a node. Its Patroni is not started.
    pub fn new(name: String, root: PathBuf, etcd: &str, synchronous_mode: Option<&str>) -> Self {
        let folder = root.join(&name);
        fs::create_dir(&folder).unwrap();
        chown_to_postgres(&folder);
        let node = Self { name, postgres: free_address(), patroni: free_address(), folder, process: Mutex::default() };
        let delivered = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/patroni.yml")).unwrap();
        let bin = bin_folder();
        let mode = synchronous_mode.unwrap_or("quorum");
        let replacements = [
            ("name: node1", format!("name: {}", node.name)),
            ("10.0.0.1:8008", node.patroni.clone()),
            ("10.0.0.1:5432", node.postgres.clone()),
            ("10.0.0.11:2379,10.0.0.12:2379,10.0.0.13:2379", etcd.to_owned()),
            ("10.0.0.0/24", "127.0.0.1/32".to_owned()),
            ("/var/lib/postgresql/passbook", node.folder.join("data").display().to_string()),
            ("/var/lib/postgresql/.pgpass-patroni", node.folder.join("pgpass").display().to_string()),
            ("/usr/lib/postgresql/15/bin", bin.display().to_string()),
            ("/var/run/postgresql", node.folder.display().to_string()),
            ("synchronous_mode: quorum", format!("synchronous_mode: {mode}")),
        ];
        let configuration = replacements.iter().fold(delivered, |text, (old, new)| {
            assert!(text.contains(old), "ops/patroni.yml lacks {old}");
            text.replace(old, new)
        });
        fs::write(node.folder.join("patroni.yml"), configuration).unwrap();
        node
    }

    /// Starts Patroni, which starts Postgres.
    pub fn start(&self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = unprivileged(tools().join("patroni/bin/patroni"));
        command.arg(self.folder.join("patroni.yml")).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().expect("Patroni is not installed: run `scripts/install-deps --test`");
        *self.process.lock().unwrap() = Some(process);
    }

    /// Sends SIGKILL to Patroni and Postgres.
    pub fn kill(&self) {
        for _ in 0..PASSES {
            for process in self.processes() {
                // Ignore errors: the process may have exited already.
                let _ = kill(process, Signal::SIGKILL);
            }
        }
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.wait().unwrap();
        }
    }

    /// Suspends Patroni and Postgres until the result is dropped.
    pub fn freeze(&self) -> Vec<FrozenProcess> {
        freeze(|| self.processes())
    }

    /// Suspends Postgres until the result is dropped. Patroni continues.
    pub fn freeze_postgres(&self) -> Vec<FrozenProcess> {
        freeze(|| processes_in(&self.folder.join("data")))
    }

    /// The last lines that Patroni and Postgres logged.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn processes(&self) -> Vec<Pid> {
        processes_in(&self.folder)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn freeze(processes: impl Fn() -> Vec<Pid>) -> Vec<FrozenProcess> {
    (0..PASSES).flat_map(|_| processes()).filter_map(FrozenProcess::new).collect()
}

/// The processes whose working directory is this folder or a folder below it.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let is_inside = |process: &PathBuf| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let pid = |process: PathBuf| process.file_name()?.to_str()?.parse().ok().map(Pid::from_raw);
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(is_inside).filter_map(pid).collect()
}

/// A program that runs as the user of Postgres if the test runs as root. It keeps root's access to files, because Patroni may be
/// installed in a folder that only root can read.
pub fn unprivileged(program: PathBuf) -> Command {
    let Some(user) = user() else { return Command::new(program) };
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
    command.args(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--"]).arg(program);
    command
}
