//! The commands of the README work, in their order, and the links between the documents lead to files.
//!
//! Commands in blocks fenced with ```` ```sh ```` are executed. Other blocks (```` ```console ````, ```` ```text ````) are
//! ignored. A command ends with its line, unless the line ends with `\` or within quotes.
//!
//! - `make run` or `cargo run` starts the service in the background with `PROFILE=dev`, on a temporary data folder and a
//!   free port. The next command waits until the service is ready.
//! - Other `make` targets take too long for a test. They must exist (`make --dry-run`).
//! - `git clone` and `cd` are skipped, because the test runs in the checkout.
//! - Every other command runs in a bash of its own, keeps the variables of the commands before it, and must exit with 0,
//!   as must each part of a pipe. `127.0.0.1:8080` and `localhost:8080` are replaced by the address of the service. `curl`
//!   fails if the response is an error.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;

/// The time until the service is ready, including its compilation.
const READY_S_MAX: u64 = 900;
const END_S_MAX: u64 = 40;

#[derive(Debug, PartialEq)]
enum Step {
    /// Start the service and wait until it is ready.
    Serve,
    /// A make target that has to exist, with its variables.
    Target(String),
    /// A command for bash.
    Run(String),
}

/// The commands of the README, in order.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut fence: Option<&str> = None;
    let mut command = String::new();
    for line in readme.lines() {
        match (line.trim().strip_prefix("```"), fence) {
            (Some(info), None) => fence = Some(info.trim()),
            (Some(_), Some(_)) => {
                assert!(command.is_empty(), "a block ends within a command: {command}");
                fence = None;
            }
            (None, Some("sh")) => {
                command.push_str(line);
                command.push('\n');
                if is_whole(&command) {
                    steps.extend(step(command.trim()));
                    command.clear();
                }
            }
            (None, Some(_) | None) => {}
        }
    }
    assert!(fence.is_none(), "a block does not end");
    steps
}

/// Whether all quotes are closed and the command does not end with a backslash.
fn is_whole(command: &str) -> bool {
    let mut quote = None;
    let mut characters = command.trim_end_matches('\n').chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) if characters.next().is_none() => return false,
            ('\'' | '"', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            _ => {}
        }
    }
    quote.is_none()
}

fn step(command: &str) -> Option<Step> {
    if command.is_empty() || command.starts_with('#') {
        return None;
    }
    let parts: Vec<&str> = command.split("&&").map(str::trim).collect();
    let is = |program: &str| parts.iter().find(|part| part.split_whitespace().take(2).eq(program.split_whitespace()));
    if is("make run").is_some() || is("cargo run").is_some() {
        return Some(Step::Serve);
    }
    if let Some(make) = parts.iter().find(|part| part.split_whitespace().next() == Some("make")) {
        return Some(Step::Target(make.split_once(' ').map_or("", |(_, target)| target).to_owned()));
    }
    let on_the_way = |part: &&str| part.starts_with("git clone ") || part.starts_with("cd ");
    (!parts.iter().all(on_the_way)).then(|| Step::Run(command.to_owned()))
}

/// Executes the steps, as a reader would.
struct Reader {
    folder: TempDir,
    address: String,
    service: Option<Child>,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("passbook-readme.").tempdir_in("/tmp").unwrap();
        // Postgres runs as another user, which must be able to enter the folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { folder, address, service: None }
    }

    /// Executes every step. Returns the outputs of the commands.
    fn follow(&mut self, readme: &str) -> Vec<String> {
        steps(readme).into_iter().filter_map(|step| self.take(step)).collect()
    }

    fn take(&mut self, step: Step) -> Option<String> {
        match step {
            Step::Serve => {
                assert!(self.service.is_none(), "the service is started twice");
                self.serve();
                None
            }
            Step::Target(target) => {
                let output = self.bash(&format!("make --dry-run {target}"));
                assert!(output.status.success(), "make {target}: {}", told(&output));
                None
            }
            Step::Run(command) => {
                let output = self.run(&command);
                assert!(output.status.success(), "{command}\n{}", told(&output));
                Some(String::from_utf8(output.stdout).unwrap())
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, command: &str) -> Output {
        let command = command.replace("127.0.0.1:8080", &self.address).replace("localhost:8080", &self.address);
        let variables = self.path("variables");
        let variables = variables.display();
        self.bash(&format!(
            "set -eu -o pipefail\n\
             curl() {{ command curl --fail-with-body --show-error \"$@\"; }}\n\
             [ ! -e {variables} ] || . {variables}\n\
             {command}\n\
             compgen -v | grep -vE '^(BASH|EUID|PPID|SHELLOPTS|UID|_|PIPESTATUS|FUNCNAME|GROUPS|DIRSTACK)' |\n\
             while read -r name; do declare -p \"$name\"; done > {variables}\n"
        ))
    }

    fn bash(&self, script: &str) -> Output {
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(script).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        bash.output().unwrap()
    }

    fn serve(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut make = Command::new("make");
        make.args(["run", "PROFILE=dev"]).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        // A reader's shell does not have the variables that Cargo and make set for tests.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let set_for_tests =
                ["PASSBOOK_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "MAKE", "MFLAGS"];
            if set_for_tests.iter().any(|prefix| name.starts_with(prefix)) {
                make.env_remove(name);
            }
        }
        make.env("PASSBOOK_DATA_DIR", self.path("data")).env("PASSBOOK_LISTEN", &self.address);
        make.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.service = Some(make.spawn().unwrap());

        let deadline = Instant::now() + Duration::from_secs(READY_S_MAX);
        while !self.run("curl --silent http://127.0.0.1:8080/readyz").status.success() {
            let ended = self.service.as_mut().unwrap().try_wait().unwrap();
            let log = fs::read_to_string(self.path("log")).unwrap();
            assert!(ended.is_none(), "the service has ended: {log}");
            assert!(Instant::now() < deadline, "the service is not ready: {log}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Reader {
    /// Sends SIGINT, as Ctrl-C does, and kills the processes that do not exit in time.
    fn drop(&mut self) {
        let Some(mut service) = self.service.take() else { return };
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
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const SAMPLE: &str = r#"# A sample

```sh
git clone https://git.example/passbook && cd passbook && make run
```

```console
$ this is only shown
```

```sh
# Open an account.
ACCOUNT=$(uuid=7; echo "number $uuid")
curl -s http://127.0.0.1:8080/v1/accounts \
  -d '{"currency": "EUR",
       "owner": "ada"}'
```

Not fenced: `rm -rf /`

```sh
make test
cd passbook
make replay FILE=movements.csv.gz
```
"#;

#[test]
fn a_readme_is_read_as_steps() {
    let run = |command: &str| Step::Run(command.to_owned());
    let expected = [
        Step::Serve,
        run("ACCOUNT=$(uuid=7; echo \"number $uuid\")"),
        run("curl -s http://127.0.0.1:8080/v1/accounts \\\n  -d '{\"currency\": \"EUR\",\n       \"owner\": \"ada\"}'"),
        Step::Target("test".to_owned()),
        Step::Target("replay FILE=movements.csv.gz".to_owned()),
    ];
    assert_eq!(steps(SAMPLE), expected);
}

#[test]
fn what_one_command_sets_the_next_one_knows() {
    let said = Reader::new().follow("```sh\nNAME='a \"b\" c'\n```\n```sh\necho \"it is $NAME\"\n```");
    assert_eq!(said, ["", "it is a \"b\" c\n"]);
}

#[test]
#[should_panic(expected = "false | true")]
fn a_command_that_fails_within_a_pipe_is_found() {
    Reader::new().follow("```sh\ntrue\nfalse | true\n```");
}

#[test]
#[should_panic(expected = "curl")]
fn a_request_that_is_refused_is_found() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = refused.local_addr().unwrap();
    let server = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = refused.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 422 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    });
    Reader::new().follow(&format!("```sh\ncurl -s http://{address}/\n```"));
    server.join().unwrap();
}

#[test]
#[should_panic(expected = "make no-such-target")]
fn a_target_that_does_not_exist_is_found() {
    Reader::new().follow("```sh\nmake no-such-target\n```");
}

/// The Markdown files of the project: those of the root, of `docs/` and of `migrations/`.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/decisions", "migrations"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect()
}

/// The targets of the links in a Markdown text that are files, without their anchors.
fn linked_files(markdown: &str) -> Vec<&str> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://")).collect()
}

#[test]
fn every_link_between_the_documents_leads_to_a_file() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for file in linked_files(&text) {
            links += 1;
            let target = document.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {file}, which does not exist", document.display());
        }
    }
    assert!(links > 30, "only {links} links were found");
}

#[test]
fn every_command_of_the_readme_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let steps = steps(&readme);
    assert!(steps.contains(&Step::Serve), "the README does not start the service");
    assert!(steps.iter().filter(|step| matches!(step, Step::Run(_))).count() >= 3, "{steps:?}");
    let mut reader = Reader::new();
    let said = reader.follow(&readme);
    assert!(said.iter().any(|answer| answer.contains("\"balance\"")), "{said:?}");
}
