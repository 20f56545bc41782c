//! Runs the binary under test as a process: starts it, captures its output, sends signals, and kills it on drop.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{folder::Folder, service_client::Client};

const START_S_MAX: u64 = 60;
const EXIT_S_MAX: u64 = 40;

/// The path of the binary under test. Cargo sets the variable for the integration tests of the package `passbook`. A test
/// that is started without Cargo finds the binary in the folder above its own.
pub fn binary() -> PathBuf {
    env::var_os("CARGO_BIN_EXE_passbook")
        .map_or_else(|| env::current_exe().unwrap().ancestors().nth(2).unwrap().join("passbook"), PathBuf::from)
}

/// The variable that chooses the Postgres of this machine. A test of the binary inherits no other setting.
const PG_BIN: &str = "PASSBOOK_PG_BIN";

/// A command line of the binary.
pub struct Passbook(Command);

impl Passbook {
    /// Uses the embedded Postgres in this folder, and listens on a free port.
    pub fn in_folder(folder: &Folder) -> Self {
        Self::without_settings().set("PASSBOOK_DATA_DIR", folder.data()).set("PASSBOOK_LISTEN", "127.0.0.1:0")
    }

    /// Uses a running Postgres, and listens on a free port.
    pub fn with_database(database_url: &str) -> Self {
        Self::without_settings().set("PASSBOOK_DATABASE_URL", database_url).set("PASSBOOK_LISTEN", "127.0.0.1:0")
    }

    /// The binary without arguments and settings.
    pub fn without_settings() -> Self {
        let mut command = Command::new(binary());
        let is_setting = |name: &OsStr| name.to_string_lossy().starts_with("PASSBOOK_") && name != PG_BIN;
        for (name, _) in env::vars_os().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        command
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env_remove("OTEL_TRACES_SAMPLER")
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command)
    }

    /// Sets an environment variable.
    pub fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Limits the number of open file descriptors.
    pub fn with_descriptor_limit(self, limit: &str) -> Self {
        self.with_ulimit(&format!("ulimit -n {limit}"))
    }

    /// Allows core dumps as far as the hard limit of this machine allows them.
    pub fn with_core_dumps(self) -> Self {
        self.with_ulimit("ulimit -S -c \"$(ulimit -H -c)\"")
    }

    /// Uses the binary of another release.
    pub fn with_binary(self, program: &Path) -> Self {
        self.with_program(Command::new(program))
    }

    fn with_ulimit(self, limit: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")]).arg(self.0.get_program());
        self.with_program(shell)
    }

    fn with_program(self, mut command: Command) -> Self {
        command.args(self.0.get_args());
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.0.arg(argument);
        self
    }

    /// Sets standard input. It is empty otherwise.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.0.stdin(stdin);
        self
    }

    /// Starts the process, and captures its output.
    pub fn spawn(mut self) -> Process {
        let mut child = self.0.spawn().unwrap();
        let (line, first_line) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut lines = Vec::new();
            for read in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = line.send(read.clone());
                lines.push(read);
            }
            lines
        });
        let stderr_bytes = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn({
            let stderr_bytes = Arc::clone(&stderr_bytes);
            move || {
                let mut chunk = [0; 4096];
                while let Ok(length @ 1..) = stderr.read(&mut chunk) {
                    stderr_bytes.lock().unwrap().extend_from_slice(&chunk[..length]);
                }
            }
        });
        Process { child, first_line, stdout: Some(stdout), stderr: Some(stderr), stderr_bytes }
    }

    /// Starts the service and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Running {
        self.try_start().unwrap_or_else(|process| panic!("the service does not listen: {}", process.stderr()))
    }

    /// Like [`start`](Self::start), but returns the process if it exits or does not listen in time.
    #[track_caller]
    pub fn try_start(self) -> Result<Running, Process> {
        let process = self.spawn();
        match process.first_line.recv_timeout(Duration::from_secs(START_S_MAX)) {
            Ok(line) => {
                let base_url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("unexpected line: {line}"));
                Ok(Running { client: Client::new(base_url), process })
            }
            Err(_) => Err(process),
        }
    }

    /// Runs the command until it exits by itself.
    #[track_caller]
    pub fn wait_for_exit(self) -> Exited {
        self.spawn().wait_for_exit()
    }
}

/// A process whose exit status has not been read yet. It is killed on drop.
pub struct Process {
    child: Child,
    first_line: mpsc::Receiver<String>,
    stdout: Option<JoinHandle<Vec<String>>>,
    stderr: Option<JoinHandle<()>>,
    stderr_bytes: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr_bytes.lock().unwrap()).into_owned()
    }

    /// Waits until the process exits by itself.
    #[track_caller]
    pub fn wait_for_exit(mut self) -> Exited {
        let deadline = Instant::now() + Duration::from_secs(EXIT_S_MAX);
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => {
                    assert!(Instant::now() < deadline, "the process still runs after {EXIT_S_MAX} s: {}", self.stderr())
                }
            }
            thread::sleep(Duration::from_millis(10));
        };
        let stdout = self.stdout.take().unwrap().join().unwrap();
        self.stderr.take().unwrap().join().unwrap();
        Exited { status, stdout, stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A running service that listens.
pub struct Running {
    /// A client of the service.
    pub client: Client,
    /// The process of the service.
    pub process: Process,
}

impl Running {
    /// Sends this signal and waits for the exit.
    #[track_caller]
    pub fn stop(self, signal: Signal) -> Exited {
        self.process.signal(signal);
        self.process.wait_for_exit()
    }
}

/// The exit status and the output of a process.
#[derive(Debug)]
pub struct Exited {
    /// The exit status.
    pub status: ExitStatus,
    /// The lines of standard output.
    pub stdout: Vec<String>,
    /// The text of standard error.
    pub stderr: String,
}

impl Exited {
    /// The reason of a command that failed before it printed anything.
    #[track_caller]
    pub fn error_message(&self) -> String {
        assert!(self.stdout.is_empty(), "{self:?}");
        self.reason()
    }

    /// The reason of a failed command. Asserts that it is one line, and the exit code 1. Standard error is a pipe here, so that lines are
    /// JSON; a command without a log prints text.
    #[track_caller]
    pub fn reason(&self) -> String {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        let reason = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(line) => (line["message"] == "process failed").then(|| line["reason"].as_str().unwrap().to_owned()),
            Err(_) => Some(line.strip_prefix("passbook: ").unwrap_or_else(|| panic!("{self:?}")).to_owned()),
        };
        let reasons: Vec<String> = self.stderr.lines().filter_map(reason).collect();
        match &reasons[..] {
            [reason] if !reason.contains('\n') => reason.clone(),
            _ => panic!("the reason is not one line: {self:?}"),
        }
    }
}
