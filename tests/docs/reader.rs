//! Follows the steps of a document, as a reader would.
//!
//! Every command runs in a bash of its own, keeps the variables of the commands before it, and must exit with 0, as must each part of
//! a pipe. `127.0.0.1:8080`, and each other port from 8080 to 8089, is replaced by an address of the test. `curl` fails if the
//! response is an error, unless the command names `--include`.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use passbook_testkit::{folder::Folder, ports::free_port, process::binary};

use crate::{
    output::assert_shown,
    steps::{Step, steps},
};

/// The time until the service is ready, including its compilation by `make run`.
const READY_S_MAX: u64 = 900;
const END_S_MAX: u64 = 40;
/// The ports that a document may name.
const PORTS: std::ops::RangeInclusive<u16> = 8080..=8089;

/// Executes the steps.
pub struct Reader {
    folder: Folder,
    /// Where commands run.
    work: PathBuf,
    /// The port for each port of the document.
    ports: RefCell<BTreeMap<u16, u16>>,
    services: Vec<Child>,
}

impl Reader {
    /// A reader of the README, in the checkout.
    pub fn in_checkout() -> Self {
        let folder = Folder::empty();
        fs::create_dir_all(folder.join("home")).unwrap();
        Self { folder, work: crate::root().to_owned(), ports: RefCell::default(), services: Vec::new() }
    }

    /// A reader of a page, in a folder of its own. Its bank is migrated, so that it starts at once.
    pub fn in_folder() -> Self {
        let folder = Folder::migrated();
        let work = folder.join("home");
        fs::create_dir_all(&work).unwrap();
        Self { folder, work, ports: RefCell::default(), services: Vec::new() }
    }

    /// The folder in which commands run.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Executes every step. Returns the outputs of the commands.
    pub fn follow(&mut self, document: &str) -> Vec<String> {
        let (mut outputs, mut last) = (Vec::new(), None);
        for step in steps(document) {
            match step {
                Step::Serve(command) => self.serve(&command),
                Step::Stop => stop(self.services.pop().expect("a service was started")),
                Step::Target(target) => {
                    self.expect(&format!("make --dry-run {target}"), &self.bash(&format!("make --dry-run {target}")))
                }
                Step::Write { name, content } => fs::write(self.work.join(name), self.with_ports(&content)).unwrap(),
                Step::Expect(block) => {
                    let (command, output): &(String, String) = last.as_ref().expect("a command precedes its output");
                    assert_shown(&block, command, output);
                }
                Step::Run(command) => {
                    let output = self.run(&command);
                    self.expect(&command, &output);
                    let output = String::from_utf8(output.stdout).unwrap();
                    outputs.push(output.clone());
                    last = Some((command, output));
                }
            }
        }
        outputs
    }

    fn expect(&self, command: &str, output: &Output) {
        assert!(output.status.success(), "{command}\n{}", text(output));
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port(*PORTS.start()))
    }

    fn port(&self, documented: u16) -> u16 {
        *self.ports.borrow_mut().entry(documented).or_insert_with(free_port)
    }

    /// The text with the addresses of the test.
    fn with_ports(&self, text: &str) -> String {
        PORTS.fold(text.to_owned(), |text, documented| {
            let name = format!("127.0.0.1:{documented}");
            if text.contains(&name) {
                text.replace(&name, &format!("127.0.0.1:{}", self.port(documented)))
            } else {
                text
            }
        })
    }

    fn run(&self, command: &str) -> Output {
        let fail = if command.contains("--include") { "" } else { "--fail-with-body" };
        let variables = self.folder.join("variables");
        let variables = variables.display();
        self.bash(&format!(
            "set -eu -o pipefail\n\
             curl() {{ command curl {fail} --show-error \"$@\"; }}\n\
             [ ! -e {variables} ] || . {variables}\n\
             {}\n\
             compgen -v | grep -vE '^(BASH|EUID|PPID|SHELLOPTS|UID|_|PIPESTATUS|FUNCNAME|GROUPS|DIRSTACK)' |\n\
             while read -r name; do declare -p \"$name\"; done > {variables}\n",
            self.with_ports(command)
        ))
    }

    fn bash(&self, script: &str) -> Output {
        let mut bash = self.command("bash");
        bash.arg("-c").arg(script);
        bash.output().unwrap()
    }

    /// A program in the environment of a reader, who does not have the variables that Cargo and make set for tests.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.work).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let set_for_tests =
                ["PASSBOOK_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "MAKE", "MFLAGS"];
            if name != "PASSBOOK_PG_BIN" && set_for_tests.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        if self.work != crate::root() {
            let programs = [binary().parent().unwrap().to_owned(), postgres_programs()];
            let path = env::var_os("PATH").unwrap_or_default();
            let path = env::join_paths(programs.into_iter().chain(env::split_paths(&path))).unwrap();
            command.env("PATH", path).env("HOME", &self.work).env("PASSBOOK_URL", format!("http://{}", self.address()));
        }
        command.env("PASSBOOK_DATA_DIR", self.folder.data()).env("PASSBOOK_LISTEN", self.address());
        command
    }

    /// Starts the service and waits until it is ready at the address that the command names.
    fn serve(&mut self, command: &str) {
        let log_path = self.folder.join(&format!("log-{}", self.services.len()));
        let log = fs::File::create(&log_path).unwrap();
        let command = self.with_ports(&command.replace("make run", "make run PROFILE=dev"));
        let address = command.split_once("PASSBOOK_LISTEN=").map(|(_, rest)| rest.split_whitespace().next().unwrap());
        let address = address.map_or_else(|| self.address(), str::to_owned);
        let in_checkout = command
            .split("&&")
            .map(str::trim)
            .filter(|part| !part.starts_with("git clone ") && !part.starts_with("cd "));
        let command = in_checkout.collect::<Vec<_>>().join(" && ");
        let variables = self.folder.join("variables");
        let mut bash = self.command("bash");
        bash.arg("-c").arg(format!("[ ! -e {0} ] || . {0}\n{command}", variables.display()));
        bash.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.services.push(bash.spawn().unwrap());

        let deadline = Instant::now() + Duration::from_secs(READY_S_MAX);
        while !self.run(&format!("curl --silent http://{address}/readyz")).status.success() {
            let ended = self.services.last_mut().unwrap().try_wait().unwrap();
            let log = fs::read_to_string(&log_path).unwrap();
            assert!(ended.is_none(), "the service has ended: {log}");
            assert!(Instant::now() < deadline, "the service is not ready: {log}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.services.drain(..).for_each(stop);
    }
}

/// Sends SIGINT, as Ctrl-C does, and kills the processes that do not exit in time.
fn stop(mut service: Child) {
    let group = Pid::from_raw(service.id().cast_signed());
    let deadline = Instant::now() + Duration::from_secs(END_S_MAX);
    let mut signal = Some(Signal::SIGINT);
    // The group exists until its last process ends: the service ends after `make`.
    while killpg(group, signal.take()).is_ok() && Instant::now() < deadline {
        let _ = service.try_wait();
        thread::sleep(Duration::from_millis(20));
    }
    let _ = killpg(group, Signal::SIGKILL);
    let _ = service.wait();
}

/// The folder of the programs of the Postgres that the service uses.
fn postgres_programs() -> PathBuf {
    let configured = env::var_os("PASSBOOK_PG_BIN").map(PathBuf::from);
    let found = passbook_embedded_postgres::installed(configured.as_deref()).expect("Postgres is installed");
    found.bin
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_one_command_sets_the_next_one_knows() {
    let said = Reader::in_checkout().follow("```sh\nNAME='a \"b\" c'\n```\n```sh\necho \"it is $NAME\"\n```");
    assert_eq!(said, ["", "it is a \"b\" c\n"]);
}

#[test]
#[should_panic(expected = "false | true")]
fn a_command_that_fails_within_a_pipe_is_found() {
    Reader::in_checkout().follow("```sh\ntrue\nfalse | true\n```");
}

#[test]
#[should_panic(expected = "is shown with the output")]
fn an_output_that_is_not_that_of_the_command_is_found() {
    Reader::in_checkout().follow("```sh\necho '{\"a\": 1}'\n```\n```json output\n{\"a\": 2}\n```");
}

#[test]
#[should_panic(expected = "curl")]
fn a_request_that_is_refused_is_found() {
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = refused.local_addr().unwrap();
    let server = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = refused.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 422 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    });
    Reader::in_checkout().follow(&format!("```sh\ncurl -s http://{address}/\n```"));
    server.join().unwrap();
}

#[test]
#[should_panic(expected = "make --dry-run no-such-target")]
fn a_target_that_does_not_exist_is_found() {
    Reader::in_checkout().follow("```sh\nmake no-such-target\n```");
}
