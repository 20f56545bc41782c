//! The steps that a document asks for. Commands are those of blocks fenced with ```` ```sh ````.
//!
//! A command ends with its line, unless the line ends with `\` or within quotes.
//!
//! - `make run`, `cargo run` or `passbook serve` starts the service in the background. The next command waits until it is ready.
//! - A comment with `Ctrl-C` stops the service that was started last.
//! - Other `make` targets take too long for a test. They must exist (`make --dry-run`).
//! - `git clone` and `cd` are skipped, because the test has folders of its own.
//! - Every other command is executed: see `reader.rs`.
//!
//! A block with `file=<name>` behind its language is written to that file. A block with `output` behind it shows the output of the
//! command before it: see `output.rs`.

use crate::blocks::{Block, blocks};

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Start the service with this command and wait until it is ready.
    Serve(String),
    /// Stop the service that was started last.
    Stop,
    /// A make target that has to exist, with its variables.
    Target(String),
    /// A command for bash.
    Run(String),
    /// A file to write.
    Write { name: String, content: String },
    /// What the last command must have written.
    Expect(Block),
}

/// The steps of a document, in order.
pub fn steps(markdown: &str) -> Vec<Step> {
    blocks(markdown).into_iter().flat_map(steps_of).collect()
}

fn steps_of(block: Block) -> Vec<Step> {
    if block.is_output() {
        return vec![Step::Expect(block)];
    }
    if let Some(name) = block.file() {
        return vec![Step::Write { name: name.to_owned(), content: block.content }];
    }
    if block.language() != "sh" {
        return Vec::new();
    }
    let (mut steps, mut command) = (Vec::new(), String::new());
    for line in block.content.lines() {
        command.push_str(line);
        command.push('\n');
        if is_whole(&command) {
            steps.extend(step(command.trim()));
            command.clear();
        }
    }
    assert!(command.is_empty(), "a block ends within a command: {command}");
    steps
}

/// Whether all quotes are closed and the command does not end with a backslash.
fn is_whole(command: &str) -> bool {
    let (mut quote, mut before) = (None, ' ');
    let mut characters = command.trim_end_matches('\n').chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) if characters.next().is_none() => return false,
            // A comment ends the command.
            ('#', None) if before.is_whitespace() => return true,
            ('\'' | '"', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            _ => {}
        }
        before = character;
    }
    quote.is_none()
}

fn step(command: &str) -> Option<Step> {
    if command.starts_with('#') && command.contains("Ctrl-C") {
        return Some(Step::Stop);
    }
    if command.is_empty() || command.starts_with('#') {
        return None;
    }
    let parts: Vec<&str> = command.split("&&").map(str::trim).collect();
    let starts = |part: &&str| {
        let is_setting = |word: &&str| word.split_once('=').is_some_and(|(name, _)| name.starts_with("PASSBOOK_"));
        let mut words = part.split_whitespace().skip_while(is_setting);
        matches!(
            (words.next(), words.next()),
            (Some("make" | "cargo"), Some("run")) | (Some("passbook"), Some("serve"))
        )
    };
    if parts.iter().any(starts) {
        return Some(Step::Serve(command.to_owned()));
    }
    if let Some(make) = parts.iter().find(|part| part.split_whitespace().next() == Some("make")) {
        return Some(Step::Target(make.split_once(' ').map_or("", |(_, target)| target).to_owned()));
    }
    let on_the_way = |part: &&str| part.starts_with("git clone ") || part.starts_with("cd ");
    (!parts.iter().all(on_the_way)).then(|| Step::Run(command.to_owned()))
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

```json output
{"balance": 1}
```

Not fenced: `rm -rf /`

```sh
make test
cd passbook
make replay FILE=movements.csv.gz
PASSBOOK_LISTEN=127.0.0.1:8081 passbook serve
# Press Ctrl-C: it isn't needed any more.
```

```python file=client.py
print(1)
```
"#;

#[test]
fn a_document_is_read_as_steps() {
    let run = |command: &str| Step::Run(command.to_owned());
    let output =
        Block { info: "json output".to_owned(), content: "{\"balance\": 1}\n".to_owned(), comment: String::new() };
    let expected = [
        Step::Serve("git clone https://git.example/passbook && cd passbook && make run".to_owned()),
        run("ACCOUNT=$(uuid=7; echo \"number $uuid\")"),
        run("curl -s http://127.0.0.1:8080/v1/accounts \\\n  -d '{\"currency\": \"EUR\",\n       \"owner\": \"ada\"}'"),
        Step::Expect(output),
        Step::Target("test".to_owned()),
        Step::Target("replay FILE=movements.csv.gz".to_owned()),
        Step::Serve("PASSBOOK_LISTEN=127.0.0.1:8081 passbook serve".to_owned()),
        Step::Stop,
        Step::Write { name: "client.py".to_owned(), content: "print(1)\n".to_owned() },
    ];
    assert_eq!(steps(SAMPLE), expected);
}
