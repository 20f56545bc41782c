//! Each setting is defined once, by the command line. `.env.example` must show the same settings with the same help.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    fs,
    path::Path,
};

use clap::{Arg, Command, CommandFactory, Parser};
use passbook::config::Cli;

/// The settings of `serve`, and those that only the relay has. A flag without an environment variable is not a setting.
fn settings() -> Vec<Arg> {
    let command: Command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut settings: Vec<Arg> = serve.get_arguments().filter(|arg| arg.get_id() != "help").cloned().collect();
    assert!(settings.len() >= 10, "only {} settings were found", settings.len());
    let relay = command.find_subcommand("relay").unwrap().find_subcommand("nats").unwrap();
    let serve_ids: HashSet<_> = settings.iter().map(|setting| setting.get_id().clone()).collect();
    let relay_only = relay.get_arguments().filter(|arg| arg.get_env().is_some() && !serve_ids.contains(arg.get_id()));
    settings.extend(relay_only.cloned());
    settings
}

fn variable(setting: &Arg) -> String {
    let name = setting.get_env().unwrap_or_else(|| panic!("--{} has no environment variable", setting.get_id()));
    name.to_str().unwrap().to_owned()
}

/// The expected settings in `.env.example`: the first line of the help, and the default as a comment.
fn example() -> String {
    let mut example = String::new();
    for setting in settings() {
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        let first_line = help.lines().next().unwrap_or_default();
        let default: Vec<_> = setting.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        writeln!(example, "\n# {first_line}").unwrap();
        let values: Vec<String> = setting
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`: {}", value.get_name(), value.get_help().cloned().unwrap_or_default()))
            .collect();
        if !values.is_empty() {
            writeln!(example, "# {}", values.join(", ")).unwrap();
        }
        writeln!(example, "# {}={}", variable(&setting), default.join(",")).unwrap();
    }
    example
}

#[test]
fn env_example_shows_every_setting_with_its_help_and_default() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).unwrap();
    // The first paragraph explains the file.
    let settings = committed.find("\n\n").map_or("", |end| &committed[end + 1..]);
    assert_eq!(settings, example(), "the expected text of .env.example after its first paragraph:\n{}", example());
}

#[test]
fn configuration_page_lists_every_setting_and_its_default() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    for setting in settings() {
        let start = format!("| `{}` | ", variable(&setting));
        let row = page.lines().find_map(|line| line.strip_prefix(&start));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row that starts with {start:?}"));
        let default: Vec<_> = setting.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        let expected = if default.is_empty() { String::new() } else { format!("`{}` |", default.join(",")) };
        assert!(row.starts_with(&expected), "docs/configuration.md: the default of {start:?} is not {default:?}");
    }
}

#[test]
fn every_setting_has_an_environment_variable_named_after_its_flag() {
    for setting in settings() {
        let flag = setting.get_long().unwrap_or_else(|| panic!("{} has no flag", setting.get_id()));
        assert_eq!(variable(&setting), format!("PASSBOOK_{}", flag.replace('-', "_").to_uppercase()));
    }
}

#[test]
fn every_setting_has_a_unique_help_text_of_one_line() {
    let mut seen = HashSet::new();
    for setting in settings() {
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.len() > 20 && !help.contains('\n'), "{}: {help:?}", setting.get_id());
        assert!(seen.insert(help.clone()), "two settings have the help {help:?}");
    }
}

#[test]
fn a_setting_of_several_subcommands_is_the_same_in_each() {
    fn subcommands(command: &Command) -> Vec<&Command> {
        command.get_subcommands().flat_map(|command| [vec![command], subcommands(command)].concat()).collect()
    }
    let (command, mut shared) = (Cli::command(), 0);
    let settings: HashMap<_, _> = settings().into_iter().map(|setting| (variable(&setting), setting)).collect();
    for subcommand in subcommands(&command) {
        for arg in subcommand.get_arguments().filter(|arg| arg.get_env().is_some()) {
            let Some(setting) = settings.get(&variable(arg)) else { continue };
            assert_eq!(arg.get_help(), setting.get_help(), "{} of {}", arg.get_id(), subcommand.get_name());
            assert_eq!(arg.get_default_values(), setting.get_default_values(), "{}", arg.get_id());
            shared += 1;
        }
    }
    assert!(shared > settings.len(), "the subcommands share no settings");
}

#[test]
fn the_command_line_definition_is_valid() {
    Cli::command().debug_assert();
}

#[test]
fn debug_output_of_the_settings_contains_no_password() {
    let url = "postgres://teller:hunter2@db.example/bank";
    let cli = Cli::try_parse_from(["passbook", "serve", "--database-url", url]).unwrap();
    let printed = format!("{cli:?} {cli:#?}");
    assert!(printed.contains("database_url"), "{printed}");
    assert!(!printed.contains("hunter2") && !printed.contains("teller"), "{printed}");
    let url = "nats://teller:hunter2@nats.example";
    let cli = Cli::try_parse_from(["passbook", "relay", "nats", "--relay-nats-url", url]).unwrap();
    let printed = format!("{cli:?} {cli:#?}");
    assert!(printed.contains("relay_nats_url"), "{printed}");
    assert!(!printed.contains("hunter2") && !printed.contains("teller"), "{printed}");
}

#[test]
fn an_invalid_setting_is_refused() {
    for (flag, value) in [
        ("--listen", "8080"),
        ("--snapshot-every", "0"),
        ("--partitions", "0"),
        ("--partitions", "65"),
        ("--cache-accounts", "0"),
        ("--command-timeout-ms", "0"),
        ("--command-timeout-ms", "-1"),
        ("--log-format", "xml"),
        ("--auth", "on"),
    ] {
        let error = Cli::try_parse_from(["passbook", "serve", &format!("{flag}={value}")]).unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    }
}
