//! The commands: `initdb` for new data and `postgres` for the server, with the settings that Passbook relies on. Both
//! end with the thread that started them, so that a killed passbook leaves nothing behind.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::binaries::{self, Binaries};
use super::folder::Folder;
use super::{Error, SUPERUSER, Settings, left_over};

/// One server's data, binaries and settings.
#[derive(Debug)]
pub struct Server {
    folder: Folder,
    binaries: Binaries,
    socket_dir: PathBuf,
    parameters: Vec<(String, String)>,
}

impl Server {
    /// Locks the data folder, creates the data where there are none, and chooses the binaries that can read them.
    pub fn prepare(settings: &Settings) -> Result<Self, Error> {
        let installed = binaries::find(settings.bin.as_deref())?;
        let folder = Folder::open(&settings.data_dir)?;
        left_over::wait_out(folder.root())?;
        let binaries = match folder.major()? {
            Some(written_by) => choose(installed, written_by, &folder)?,
            None => create_data(installed, &folder)?,
        };
        let socket_dir = folder.open_socket_dir()?;
        Ok(Self { folder, binaries, socket_dir, parameters: settings.parameters.clone() })
    }

    /// Starts the server. The settings named in [`Settings`] come last and win.
    pub fn spawn(&self) -> Result<Child, Error> {
        let log = self.folder.open_log()?;
        let mut command = command(&self.folder, &self.binaries.postgres());
        command.arg("-D").arg(self.folder.pgdata()).process_group(0);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let errors = log.try_clone().map_err(Error::folder(&self.log_path()))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        command.spawn().map_err(|error| self.died(format!("{}: {error}", self.binaries.postgres().display())))
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.log_path()
    }

    pub fn log_length(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |log| log.len())
    }

    /// What the server complained of last since its log had the given length.
    pub fn last_words(&self, log_length: u64) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let start = usize::try_from(log_length).unwrap_or(0).min(log.len());
        telling_line(&log[start..])
    }

    /// Whether the server with this process id accepts connections: line 8 of the file that it keeps says so.
    pub fn is_ready(&self, pid: u32) -> bool {
        let file = fs::read_to_string(self.folder.pgdata().join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines().map(str::trim);
        lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
    }

    pub fn died(&self, reason: String) -> Error {
        Error::Died { reason, log: self.log_path() }
    }

    /// Nothing here weakens durability: `fsync`, `full_page_writes` and `synchronous_commit` keep their defaults.
    fn settings(&self) -> Vec<(&str, String)> {
        let socket_dir = self.socket_dir.display().to_string().replace('"', "\"\"");
        let ours = [
            ("listen_addresses", String::new()),
            ("port", "5432".into()),
            ("unix_socket_directories", format!("\"{socket_dir}\"")),
            ("unix_socket_permissions", "0700".into()),
            ("cluster_name", "passbook".into()),
            // Room for an instance with as many partitions as a log may have, and for what is attached beside it.
            ("max_connections", "250".into()),
            ("shared_buffers", "256MB".into()),
            ("max_wal_size", "4GB".into()),
            ("checkpoint_timeout", "15min".into()),
            ("wal_compression", "on".into()),
            ("logging_collector", "off".into()),
            ("log_destination", "stderr".into()),
        ];
        let theirs = self.parameters.iter().map(|(name, value)| (name.as_str(), value.clone()));
        ours.into_iter().chain(theirs).collect()
    }
}

fn choose(installed: Vec<Binaries>, written_by: u32, folder: &Folder) -> Result<Binaries, Error> {
    let found = installed.first().map_or(0, |binaries| binaries.major);
    installed.into_iter().find(|binaries| binaries.major == written_by).ok_or_else(|| Error::OtherMajor {
        path: folder.pgdata(),
        written_by,
        found,
    })
}

fn create_data(installed: Vec<Binaries>, folder: &Folder) -> Result<Binaries, Error> {
    let binaries = installed.into_iter().next().ok_or(Error::NoPostgres)?;
    let new = folder.begin_data()?;
    let failed = |reason| Error::Initdb { path: folder.pgdata(), reason };
    let output = command(folder, &binaries.initdb())
        .args(["--data-checksums", "-E", "UTF8", "--locale=C", "--auth=trust", "-U", SUPERUSER, "-D"])
        .arg(&new)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{}: {error}", binaries.initdb().display())))?;
    if !output.status.success() {
        return Err(failed(telling_line(&output.stderr)));
    }
    folder.finish_data(&new)?;
    Ok(binaries)
}

/// A command as the user that owns the data. `PG…` variables of our own environment must not reach it: `PGPORT` and
/// others change what a server does.
fn command(folder: &Folder, program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").current_dir(folder.root());
    folder.account.assume(&mut command);
    end_with_this_thread(&mut command);
    command
}

/// SIGQUIT is Postgres's "immediate shutdown", after which the next start recovers from the log. Linux sends it when the
/// *thread* that spawned the child ends, and nobody is left to insist: a "fast" one that meets Postgres in the middle of a
/// recovery hangs (seen with 15.18).
#[cfg(target_os = "linux")]
fn end_with_this_thread(command: &mut Command) {
    use nix::errno::Errno;
    use nix::sys::prctl;
    use nix::sys::signal::{SigHandler, Signal, signal};
    use nix::unistd::{Pid, getppid};

    let parent = Pid::this();
    #[expect(unsafe_code, reason = "runs between fork and exec: it only makes system calls and allocates nothing")]
    unsafe {
        command.pre_exec(move || -> io::Result<()> {
            // Where we inherited "ignore" (a shell's background job), Postgres would miss it in its first moments.
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            signal(Signal::SIGQUIT, SigHandler::SigDfl)?;
            prctl::set_pdeathsig(Signal::SIGQUIT)?;
            // The parent may have ended before the line above.
            if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        });
    }
}

/// Elsewhere the next start finds the server of a previous life and ends it.
#[cfg(not(target_os = "linux"))]
fn end_with_this_thread(_command: &mut Command) {}

/// Postgres's programs may write several lines after the one that says what is wrong.
fn telling_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let complaint = |line| ["PANIC:", "FATAL:", "error:", "postgres: "].iter().find_map(|mark| from(line, mark));
    text.lines().rev().find_map(complaint).map_or_else(|| "without a word".into(), ToOwned::to_owned)
}

/// The line from the mark on, which leaves out its time and process id.
fn from<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.find(mark).map(|start| line[start..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_is_the_last_complaint_without_its_time() {
        let log = b"2026-11-24 04:19:10.353 UTC [9] FATAL:  database files are incompatible with server\n\
                    2026-11-24 04:19:10.353 UTC [9] LOG:  database system is shut down\n";
        assert_eq!(telling_line(log), "FATAL:  database files are incompatible with server");
        assert_eq!(telling_line(b"2026-11-24 04:19:10.353 UTC [9] LOG:  ready\n"), "without a word");
    }
}
