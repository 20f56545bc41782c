//! Every setting is told in one place, and `.env.example` says the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, fmt::Write, fs, path::Path};

use clap::{Arg, Command, CommandFactory, Parser};
use passbook::config::Cli;

/// The settings as `serve` takes them, and those that only the relay has. What is no setting but said once has no variable.
fn settings() -> Vec<Arg> {
    let command: Command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut settings: Vec<Arg> = serve.get_arguments().filter(|arg| arg.get_id() != "help").cloned().collect();
    assert!(settings.len() >= 10, "only {} settings were found", settings.len());
    let relay = command.find_subcommand("relay").unwrap().find_subcommand("nats").unwrap();
    let of_serve: HashSet<_> = settings.iter().map(|setting| setting.get_id().clone()).collect();
    let of_relay = relay.get_arguments().filter(|arg| arg.get_env().is_some() && !of_serve.contains(arg.get_id()));
    settings.extend(of_relay.cloned());
    settings
}

fn variable(setting: &Arg) -> String {
    let name = setting.get_env().unwrap_or_else(|| panic!("--{} has no environment variable", setting.get_id()));
    name.to_str().unwrap().to_owned()
}

/// Each setting as `.env.example` shows it: one line why, and the default, commented out because it applies by itself.
fn example() -> String {
    let mut example = String::new();
    for setting in settings() {
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        let why = help.lines().next().unwrap_or_default();
        let default: Vec<_> = setting.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        writeln!(example, "\n# {why}").unwrap();
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
fn the_example_of_an_environment_says_of_each_setting_what_the_command_line_says() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).unwrap();
    // The first lines say what the file is for.
    let settings = committed.find("\n\n").map_or("", |end| &committed[end + 1..]);
    assert_eq!(settings, example(), "after its first paragraph .env.example has to hold:\n{}", example());
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
fn every_setting_is_an_environment_variable_and_in_lower_case_without_the_prefix_a_flag() {
    for setting in settings() {
        let flag = setting.get_long().unwrap_or_else(|| panic!("{} is no flag", setting.get_id()));
        assert_eq!(variable(&setting), format!("PASSBOOK_{}", flag.replace('-', "_").to_uppercase()));
    }
}

#[test]
fn every_setting_says_what_it_is_for_in_one_line() {
    let mut seen = HashSet::new();
    for setting in settings() {
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.len() > 20 && !help.contains('\n'), "{}: {help:?}", setting.get_id());
        assert!(seen.insert(help.clone()), "{help:?} is said twice");
    }
}

#[test]
fn migrating_takes_the_same_settings_as_serving() {
    let command = Cli::command();
    let of = |name| {
        let arguments = command.find_subcommand(name).unwrap().get_arguments();
        arguments.filter_map(|arg| arg.get_env().map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(of("migrate"), of("serve"));
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_password_is_not_printed_with_the_settings() {
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
fn a_setting_that_cannot_be_is_refused() {
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
