//! Stops the Postgres of a previous Passbook process. After Passbook is killed, its Postgres still shuts down while the lock of
//! the data folder is free already. If both are killed, backends outlive the postmaster for a moment.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::warn;

use super::error::Error;

/// How long to wait before signals are sent. Only Linux signals the server when its parent ends, so there is no wait on other
/// systems. A further signal does no harm.
const EXITS_BY_ITSELF_S_MAX: u64 = if cfg!(target_os = "linux") { 10 } else { 0 };
const FAST_SHUTDOWN_S_MAX: u64 = 30;
const IMMEDIATE_SHUTDOWN_S_MAX: u64 = 10;
const POLL_MS: u64 = 20;

/// Returns when no server uses this data folder any more. The caller must hold the folder's lock.
///
/// # Errors
/// [`Error::StaleServer`] if the server does not exit within the time limits.
pub fn stop_stale_server(root: &Path) -> Result<(), Error> {
    if !server_pids(root).is_empty() {
        warn!(folder = %root.display(), "waiting for the Postgres server of a previous Passbook process to exit");
    }
    let has_exited = exits_within(root, EXITS_BY_ITSELF_S_MAX)
        || exits_after(root, Signal::SIGINT, FAST_SHUTDOWN_S_MAX)
        || exits_after(root, Signal::SIGQUIT, IMMEDIATE_SHUTDOWN_S_MAX);
    if !has_exited {
        let pid = server_pids(root).first().map_or(0, |pid| pid.as_raw());
        return Err(Error::StaleServer { path: root.to_owned(), pid });
    }
    remove_stale_pid_file(root);
    Ok(())
}

fn exits_within(root: &Path, seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !server_pids(root).is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(POLL_MS));
    }
    true
}

fn exits_after(root: &Path, signal: Signal, seconds: u64) -> bool {
    for pid in server_pids(root) {
        // A process that has exited meanwhile needs no signal.
        let _ = kill(pid, signal);
    }
    exits_within(root, seconds)
}

/// Removes `postmaster.pid` if its process id belongs to another process now, after a reboot or in a new container. Postgres would
/// take that process for a running server and refuse to start.
fn remove_stale_pid_file(root: &Path) {
    if recorded_pid(root).is_some_and(|pid| kill(pid, None).is_ok()) {
        // If the file cannot be removed, Postgres reports it.
        let _ = fs::remove_file(root.join("postgres/postmaster.pid"));
    }
}

fn recorded_pid(root: &Path) -> Option<Pid> {
    let file = fs::read_to_string(root.join("postgres/postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// Finds the processes of `postgres` and `initdb` whose working directory is below this folder. Postgres changes to its data
/// directory.
#[cfg(target_os = "linux")]
fn server_pids(root: &Path) -> Vec<Pid> {
    let is_server = |process: &Path| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        matches!(name.trim(), "postgres" | "initdb")
            && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(root))
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_server(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .collect()
}

/// Returns the process in `postmaster.pid` if its command line contains this folder.
#[cfg(not(target_os = "linux"))]
fn server_pids(root: &Path) -> Vec<Pid> {
    let names_folder = |pid: &Pid| {
        let ps = std::process::Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
        ps.is_ok_and(|ps| String::from_utf8_lossy(&ps.stdout).contains(&*root.to_string_lossy()))
    };
    recorded_pid(root).into_iter().filter(names_folder).collect()
}
