//! The help texts name every command and every setting, and reveal no password.

use clap::CommandFactory;
use passbook::config::Cli;
use passbook_testkit::process::Passbook;

#[track_caller]
fn help(subcommand: Option<&str>) -> String {
    let passbook = subcommand
        .map_or_else(Passbook::without_settings, |subcommand| Passbook::without_settings().argument(subcommand));
    let ended = passbook.argument("--help").wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{ended:?}");
    ended.stdout.join("\n")
}

#[test]
fn the_help_names_the_commands() {
    let help = help(None);
    for part in ["serve", "migrate", "doctor", "import", "export", "openapi", "Without a subcommand, `serve` runs"] {
        assert!(help.contains(part), "{part} is missing: {help}");
    }
}

#[test]
fn the_help_of_serve_names_every_setting_and_shows_an_example() {
    let help = help(Some("serve"));
    let command = Cli::command();
    for setting in command.find_subcommand("serve").unwrap().get_arguments().filter(|arg| arg.get_env().is_some()) {
        let variable = setting.get_env().unwrap().to_str().unwrap();
        assert!(help.contains(variable), "{variable} is missing: {help}");
    }
    assert!(help.contains("curl http://127.0.0.1:8080/v1/accounts"), "{help}");
}

#[test]
fn the_help_of_migrate_says_when_it_is_needed() {
    let help = help(Some("migrate"));
    assert!(help.contains("PASSBOOK_DATABASE_URL") && help.contains("`serve` migrates by itself"), "{help}");
}

#[test]
fn the_help_of_openapi_shows_how_to_use_it() {
    let help = help(Some("openapi"));
    assert!(help.contains("passbook openapi > openapi.json"), "{help}");
}

#[test]
fn the_help_of_import_names_its_settings_exit_codes_and_rules_for_files() {
    let help = help(Some("import"));
    for part in [
        "PASSBOOK_URL",
        "PASSBOOK_TOKEN_FILE",
        "--key-prefix",
        "--refusals",
        "exit code is 0",
        "run the same command again",
        "never insert",
    ] {
        assert!(help.contains(part), "{part} is missing: {help}");
    }
}

#[test]
fn the_help_does_not_show_a_password_from_the_environment() {
    let url = "postgres://teller:hunter2@db.example/bank";
    let ended = Passbook::with_database(url).argument("serve").argument("--help").wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(!ended.stdout.join("\n").contains("hunter2"), "{ended:?}");
    let import = Passbook::without_settings().set("PASSBOOK_TOKEN", "hunter2").argument("import").argument("--help");
    assert!(!import.wait_for_exit().stdout.join("\n").contains("hunter2"));
}

#[test]
fn the_version_is_printed() {
    let ended = Passbook::without_settings().argument("--version").wait_for_exit();
    assert_eq!(ended.stdout, [format!("passbook {} (development)", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn the_help_of_a_subcommand_lists_only_its_own_settings() {
    let verify = help(Some("verify"));
    assert!(verify.contains("PASSBOOK_DATABASE_URL") && verify.contains("PASSBOOK_LOG"), "{verify}");
    for other in ["PASSBOOK_LISTEN", "PASSBOOK_CACHE_ACCOUNTS", "PASSBOOK_AUTH_ISSUER", "PASSBOOK_PARTITIONS"] {
        assert!(!verify.contains(other), "{other}: {verify}");
    }
    assert!(!help(Some("token")).contains("PASSBOOK_DATABASE_URL"));
}

#[test]
fn completions_of_each_shell_name_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = Passbook::without_settings().argument("completions").argument(shell).wait_for_exit();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let script = ended.stdout.join("\n");
        assert!(script.contains("verify") && script.contains("expect-head"), "{script}");
    }
}

#[test]
fn the_openapi_document_needs_no_database() {
    let ended = Passbook::without_settings().set("PASSBOOK_PG_BIN", "/nowhere").argument("openapi").wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let document: serde_json::Value = serde_json::from_str(&ended.stdout.join("\n")).unwrap();
    assert_eq!(document["info"]["title"], "Passbook");
}

#[test]
fn an_unknown_command_is_refused_with_a_suggestion() {
    let ended = Passbook::without_settings().argument("serv").wait_for_exit();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("'serve'"), "{ended:?}");
}
