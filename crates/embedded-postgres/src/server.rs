//! Runs `initdb` for new data and `postgres` for the server, with the server settings that Passbook needs. On Linux both end
//! together with the thread that started them, so that a killed Passbook leaves no server behind.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::binaries::{self, Binaries};
use super::data_dir::DataDir;
use super::error::Error;
use super::machine::Machine;
use super::program;
use super::stale_server::stop_stale_server;
use super::tuning;

/// The database superuser that `initdb` creates.
pub(super) const SUPERUSER: &str = "passbook";

/// The settings of the embedded Postgres.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder for data, log, socket and lock. It is created if it is missing.
    pub data_dir: PathBuf,
    /// The folder that contains `postgres` and `initdb`. `None`: the usual folders are searched.
    pub bin: Option<PathBuf>,
    /// Server settings that override Passbook's, such as `("fsync", "off")`.
    pub parameters: Vec<(String, String)>,
}

/// The data folder, the programs and the settings of one server.
#[derive(Debug)]
pub struct Server {
    data_dir: DataDir,
    binaries: Binaries,
    socket_dir: PathBuf,
    parameters: Vec<(String, String)>,
}

impl Server {
    /// Locks the data folder, creates the data if there are none, and chooses the programs that can read the data.
    ///
    /// # Errors
    /// The data folder cannot be used, no usable Postgres was found, or `initdb` failed.
    pub fn prepare(settings: &Settings) -> Result<Self, Error> {
        let installed = binaries::find(settings.bin.as_deref())?;
        let data_dir = DataDir::open(&settings.data_dir)?;
        stop_stale_server(&data_dir)?;
        let binaries = match data_dir.data_major()? {
            Some(written_by) => choose(installed, written_by, &data_dir)?,
            None => create_data(installed, &data_dir)?,
        };
        let socket_dir = data_dir.open_socket_dir()?;
        Ok(Self { data_dir, binaries, socket_dir, parameters: settings.parameters.clone() })
    }

    /// Starts the server process.
    ///
    /// # Errors
    /// The program or the log file could not be opened.
    pub fn spawn(&self) -> Result<Child, Error> {
        let log = self.data_dir.open_log()?;
        let mut command = self.postgres();
        command.process_group(0);
        for (name, value) in self.server_settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let errors = log.try_clone().map_err(Error::data_dir(&self.log_path()))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        command.spawn().map_err(|error| self.exited(format!("{}: {error}", self.binaries.postgres().display())))
    }

    pub fn log_path(&self) -> PathBuf {
        self.data_dir.log_path()
    }

    pub fn log_length(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |log| log.len())
    }

    /// Returns the last error in the server's log after the first `log_length` bytes.
    pub fn last_error(&self, log_length: u64) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let start = usize::try_from(log_length).unwrap_or(0).min(log.len());
        last_error_line(&log[start..])
    }

    /// Whether the server with this process id accepts connections: line 8 of `postmaster.pid` contains its state.
    pub fn is_ready(&self, pid: u32) -> bool {
        let file = fs::read_to_string(self.data_dir.pgdata().join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines().map(str::trim);
        lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
    }

    pub fn exited(&self, reason: String) -> Error {
        Error::Exited { reason, log: self.log_path() }
    }

    /// `postgres` with the data, as the owner of the data.
    fn postgres(&self) -> Command {
        let pgdata = self.data_dir.pgdata();
        let mut command = command(&self.data_dir, &self.binaries.postgres(), &pgdata);
        command.arg("-D").arg(pgdata);
        command
    }

    /// The server's settings, later ones override earlier ones. `fsync`, `full_page_writes` and `synchronous_commit` keep their
    /// durable defaults.
    fn server_settings(&self) -> Vec<(&str, String)> {
        let socket_dir = self.socket_dir.display().to_string().replace('"', "\"\"");
        let own = [
            ("listen_addresses", String::new()),
            ("port", "5432".into()),
            ("unix_socket_directories", format!("\"{socket_dir}\"")),
            ("unix_socket_permissions", "0700".into()),
            ("cluster_name", "passbook".into()),
            // Enough for an instance with the maximum number of partitions, and for other commands beside it.
            ("max_connections", "250".into()),
            // A package upgrade replaces the files of a running server. A later session would load another plpgsql than the server's.
            ("shared_preload_libraries", "plpgsql".into()),
            ("logging_collector", "off".into()),
            ("log_destination", "stderr".into()),
        ];
        let parameters = self.parameters.iter().map(|(name, value)| (name.as_str(), value.clone()));
        own.into_iter().chain(self.tuned_settings()).chain(parameters).collect()
    }

    /// The settings that follow the machine, without those that the operator has changed with `ALTER SYSTEM`. An argument of the
    /// server would override them.
    fn tuned_settings(&self) -> Vec<(&str, String)> {
        let pgdata = self.data_dir.pgdata();
        let auto_conf = fs::read_to_string(pgdata.join("postgresql.auto.conf")).unwrap_or_default();
        let altered = tuning::altered(&auto_conf);
        let recommended = tuning::recommended(&Machine::of(std::process::id(), &pgdata), self.has_lz4());
        let followed = recommended.into_iter().filter(|setting| !altered.contains(&setting.name));
        followed.map(|setting| (setting.name, setting.value.to_string())).collect()
    }

    /// Whether the server can compress its log with LZ4. `postgres -C` exits with an error if its build does not know the value.
    fn has_lz4(&self) -> bool {
        let mut command = self.postgres();
        command.args(["-c", "wal_compression=lz4", "-C", "wal_compression"]);
        command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    }
}

fn choose(installed: Vec<Binaries>, written_by: u32, data_dir: &DataDir) -> Result<Binaries, Error> {
    let found = installed.first().map_or(0, |binaries| binaries.major);
    installed.into_iter().find(|binaries| binaries.major == written_by).ok_or_else(|| Error::OtherMajor {
        path: data_dir.pgdata(),
        written_by,
        found,
    })
}

fn create_data(installed: Vec<Binaries>, data_dir: &DataDir) -> Result<Binaries, Error> {
    let binaries = installed.into_iter().next().ok_or(Error::NoPostgres)?;
    let new = data_dir.create_new_data()?;
    let failed = |reason| Error::Initdb { path: data_dir.pgdata(), reason };
    let output = command(data_dir, &binaries.initdb(), &new)
        .args(["--data-checksums", "-E", "UTF8", "--locale=C", "--auth=trust", "-U", SUPERUSER, "-D"])
        .arg(&new)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{}: {error}", binaries.initdb().display())))?;
    if !output.status.success() {
        return Err(failed(last_error_line(&output.stderr)));
    }
    data_dir.commit_new_data(&new)?;
    Ok(binaries)
}

/// Creates a command that runs as the owner of the data. In the folder of the data, because [`stop_stale_server`] finds processes
/// by their working directory.
fn command(data_dir: &DataDir, program: &Path, pgdata: &Path) -> Command {
    let mut command = program::command(program);
    command.current_dir(pgdata);
    data_dir.run_as.apply_to(&mut command);
    end_with_this_thread(&mut command);
    command
}

/// Makes Linux send SIGQUIT to the child when the *thread* that spawned it ends. SIGQUIT is Postgres's immediate shutdown, after
/// which the next start recovers from the write-ahead log. A fast shutdown (SIGINT) hangs if it arrives during recovery (seen with
/// 15.18), and the ended process could not send another signal.
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
            // A background job of a shell inherits ignored signals, and Postgres would miss signals until it has set its handlers.
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            signal(Signal::SIGQUIT, SigHandler::SigDfl)?;
            prctl::set_pdeathsig(Signal::SIGQUIT)?;
            // The parent may have ended before the previous line.
            if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        });
    }
}

/// On other systems the next start finds the server and stops it, see [`stop_stale_server`].
#[cfg(not(target_os = "linux"))]
fn end_with_this_thread(_command: &mut Command) {}

/// Returns the last error in the output, without its time and process id. Postgres's programs may write further lines after it.
fn last_error_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let error_in = |line: &str| {
        let start = ["PANIC:", "FATAL:", "error:", "postgres: "].iter().find_map(|label| line.find(label))?;
        Some(line[start..].trim().to_owned())
    };
    text.lines().rev().find_map(error_in).unwrap_or_else(|| "no error was logged".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_line_is_found_without_its_time() {
        let log = b"2026-11-24 04:19:10.353 UTC [9] FATAL:  database files are incompatible with server\n\
                    2026-11-24 04:19:10.353 UTC [9] LOG:  database system is shut down\n";
        assert_eq!(last_error_line(log), "FATAL:  database files are incompatible with server");
        assert_eq!(last_error_line(b"2026-11-24 04:19:10.353 UTC [9] LOG:  ready\n"), "no error was logged");
    }
}
