//! Stops the Postgres of a previous Passbook process. After Passbook is killed, its Postgres still shuts down while the lock of
//! the data folder is free already. If both are killed, backends outlive the postmaster for a moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::warn;

use super::data_dir::DataDir;
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
pub fn stop_stale_server(data_dir: &DataDir) -> Result<(), Error> {
    let dirs = &data_dir.server_dirs();
    let root = data_dir.root();
    if !server_pids(dirs).is_empty() {
        warn!(folder = %root.display(), "waiting for the Postgres server of a previous Passbook process to exit");
    }
    let has_exited = exits_within(dirs, EXITS_BY_ITSELF_S_MAX)
        || exits_after(dirs, Signal::SIGINT, FAST_SHUTDOWN_S_MAX)
        || exits_after(dirs, Signal::SIGQUIT, IMMEDIATE_SHUTDOWN_S_MAX);
    if !has_exited {
        let pid = server_pids(dirs).first().map_or(0, |pid| pid.as_raw());
        return Err(Error::StaleServer { path: root.to_owned(), pid });
    }
    remove_stale_pid_file(&data_dir.pgdata());
    Ok(())
}

fn exits_within(dirs: &[PathBuf], seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !server_pids(dirs).is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(POLL_MS));
    }
    true
}

fn exits_after(dirs: &[PathBuf], signal: Signal, seconds: u64) -> bool {
    for pid in server_pids(dirs) {
        // A process that has exited meanwhile needs no signal.
        let _ = kill(pid, signal);
    }
    exits_within(dirs, seconds)
}

/// Removes `postmaster.pid` if its process id belongs to another process now, after a reboot or in a new container. Postgres would
/// take that process for a running server and refuse to start.
fn remove_stale_pid_file(pgdata: &Path) {
    if recorded_pid(pgdata).is_some_and(|pid| kill(pid, None).is_ok()) {
        // If the file cannot be removed, Postgres reports it.
        let _ = fs::remove_file(pgdata.join("postmaster.pid"));
    }
}

fn recorded_pid(pgdata: &Path) -> Option<Pid> {
    let file = fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// Finds the processes of `postgres` and `initdb` whose working directory is exactly one of `dirs`. Postgres changes to its data
/// directory. Directories are compared by device and inode: another mount namespace may contain the same path, and a folder below
/// `dirs` may contain another server.
#[cfg(target_os = "linux")]
fn server_pids(dirs: &[PathBuf]) -> Vec<Pid> {
    use std::os::unix::fs::MetadataExt;

    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let dirs: Vec<_> = dirs.iter().filter_map(|dir| identity(dir)).collect();
    let is_server = |process: &Path| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        matches!(name.trim(), "postgres" | "initdb")
            && identity(&process.join("cwd")).is_some_and(|working_directory| dirs.contains(&working_directory))
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_server(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .collect()
}

/// Returns the processes in the files `postmaster.pid` of `dirs` whose command line names the same data directory.
#[cfg(not(target_os = "linux"))]
fn server_pids(dirs: &[PathBuf]) -> Vec<Pid> {
    let runs_in = |pid: &Pid, dir: &Path| {
        let ps = super::program::command("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
        let argument = format!("-D {} ", dir.display());
        ps.is_ok_and(|ps| format!("{} ", String::from_utf8_lossy(&ps.stdout).trim()).contains(&argument))
    };
    dirs.iter().filter_map(|dir| recorded_pid(dir).filter(|pid| runs_in(pid, dir))).collect()
}
