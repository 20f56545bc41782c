//! A server of a previous life. When passbook is killed its Postgres ends by itself, but the lock is free before
//! that is done; and when both are killed, Postgres's own processes outlive their parent for a moment.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::warn;

use super::Error;

/// Elsewhere than on Linux nothing told the server to end, so it is told at once. One that is ending already does not
/// mind being told again.
const ENDS_BY_ITSELF_S_MAX: u64 = if cfg!(target_os = "linux") { 10 } else { 0 };
const FAST_SHUTDOWN_S_MAX: u64 = 30;
const IMMEDIATE_SHUTDOWN_S_MAX: u64 = 10;
const LOOK_MS: u64 = 20;

/// Returns when no server works in this data folder any more. The caller holds the folder's lock.
pub fn wait_out(root: &Path) -> Result<(), Error> {
    if !server_pids(root).is_empty() {
        warn!(folder = %root.display(), "waiting for the Postgres of a previous life to end");
    }
    let ended = ends_within(root, ENDS_BY_ITSELF_S_MAX)
        || ends_after(root, Signal::SIGINT, FAST_SHUTDOWN_S_MAX)
        || ends_after(root, Signal::SIGQUIT, IMMEDIATE_SHUTDOWN_S_MAX);
    if !ended {
        let pid = server_pids(root).first().map_or(0, |pid| pid.as_raw());
        return Err(Error::LeftOver { path: root.to_owned(), pid });
    }
    forget(root);
    Ok(())
}

fn ends_within(root: &Path, seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !server_pids(root).is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(LOOK_MS));
    }
    true
}

fn ends_after(root: &Path, signal: Signal, seconds: u64) -> bool {
    for pid in server_pids(root) {
        // One that has ended meanwhile is what we want.
        let _ = kill(pid, signal);
    }
    ends_within(root, seconds)
}

/// Removes `postmaster.pid` where its number belongs to another process by now (after a reboot, or in a new container):
/// Postgres would take that process for its predecessor and refuse to start.
fn forget(root: &Path) {
    if recorded_pid(root).is_some_and(|pid| kill(pid, None).is_ok()) {
        // If it cannot be removed Postgres says so itself.
        let _ = fs::remove_file(root.join("postgres/postmaster.pid"));
    }
}

fn recorded_pid(root: &Path) -> Option<Pid> {
    let file = fs::read_to_string(root.join("postgres/postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// The processes of `postgres` and `initdb` that work below this folder: Postgres makes its data its working directory.
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

/// The process that `postmaster.pid` names, if its command line names this folder as well.
#[cfg(not(target_os = "linux"))]
fn server_pids(root: &Path) -> Vec<Pid> {
    let names_folder = |pid: &Pid| {
        let ps = std::process::Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
        ps.is_ok_and(|ps| String::from_utf8_lossy(&ps.stdout).contains(&*root.to_string_lossy()))
    };
    recorded_pid(root).into_iter().filter(names_folder).collect()
}
