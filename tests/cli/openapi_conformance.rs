//! Schemathesis tests the service against its OpenAPI document: every operation with valid and invalid data, with and
//! without access control. `tests/schemathesis/hooks.py` adds the rules that a schema cannot express.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Passbook, Running},
};
use serde_json::Value;

use crate::access_control::{create_token, with_access_control};

/// The smallest number of cases over all runs. `make fuzz` sets more.
const CASES: usize = 2_000;
/// The runs: without access control; and with it as a teller, as a customer and without a token.
const RUNS: usize = 4;
/// The approximate number of cases that every run has before random generation begins.
const FIXED_CASES: usize = 1_200;
/// The number of operations for which random cases are generated.
const OPERATIONS: usize = 29;
const RANDOM_CASES_MIN: usize = 5;

const ALL_SCOPES: &str = "accounts:read accounts:write accounts:read:any accounts:write:any accounts:freeze accounts:holds accounts:reverse accounts:limits audit:read operations";
const CUSTOMER_SCOPES: &str = "accounts:read accounts:write";

/// Disables the checks of authentication.
const WITHOUT_TOKENS: [&str; 2] =
    ["--exclude-checks=ignored_auth,missing_required_header", "--generation-with-security-parameters=false"];

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The binary that `scripts/install-deps --test` installs.
fn schemathesis() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("schemathesis/bin/st")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs schemathesis against every operation, with this token.
fn run_schemathesis(service: &Running, folder: &Folder, token: Option<&str>, options: &[&str]) {
    let cases = number("PASSBOOK_SCHEMATHESIS_CASES", CASES) / RUNS;
    let random_cases = (cases.saturating_sub(FIXED_CASES) / OPERATIONS).max(RANDOM_CASES_MIN);
    let seed = number("PASSBOOK_SCHEMATHESIS_SEED", 1);
    let home = root().join("tests/schemathesis");
    let mut settings = fs::read_to_string(home.join("schemathesis.toml")).unwrap();
    if let Some(token) = token {
        settings.push_str(&format!("\n[auth.openapi.bearer]\nbearer = \"{token}\"\n"));
    }
    let file = folder.join("schemathesis.toml");
    fs::write(&file, settings).unwrap();
    let mut command = Command::new(schemathesis());
    command.current_dir(home).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("HYPOTHESIS_STORAGE_DIRECTORY", folder.join("hypothesis")).arg("--config-file").arg(file).arg("run");
    command.arg(format!("{}/openapi.json", service.client.base_url())).args(options);
    command.args([format!("--max-examples={random_cases}"), format!("--seed={seed}")]);
    let ended = command.output().unwrap_or_else(|error| {
        panic!("cannot run {} ({error}): run `scripts/install-deps --test`", schemathesis().display())
    });
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{stdout}{}", String::from_utf8_lossy(&ended.stderr));
    let generated =
        stdout.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<usize>().ok()).unwrap();
    assert!(generated >= cases, "only {generated} cases: {stdout}");
    println!("{generated} cases");
}

/// The route and the status of every request in the log.
fn logged_requests(stderr: &str) -> Vec<(String, u64)> {
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests = lines.filter(|line| line["message"] == "request");
    requests.map(|line| (line["route"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())).collect()
}

#[track_caller]
fn assert_no_server_error(service: Running) {
    let ended = service.stop(Signal::SIGTERM);
    let requests = logged_requests(&ended.stderr);
    let errors: Vec<_> = requests.iter().filter(|(_, status)| *status >= 500).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("\"ERROR\""), "{}", ended.stderr);
    println!("{} requests", requests.len());
}

#[test]
fn a_service_without_access_control_conforms_to_its_document() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    run_schemathesis(&service, &folder, None, &WITHOUT_TOKENS);
    assert_no_server_error(service);
}

fn assert_conforms_with_token(subject: &str, scopes: &str) {
    let folder = Folder::migrated();
    let token = create_token(&folder, subject, scopes);
    let service = with_access_control(&folder).start();
    run_schemathesis(&service, &folder, Some(&token), &[]);
    assert_no_server_error(service);
}

#[test]
fn a_service_with_access_control_conforms_for_a_teller() {
    assert_conforms_with_token("teller", ALL_SCOPES);
}

#[test]
fn a_service_with_access_control_conforms_for_a_customer() {
    assert_conforms_with_token("c-17", CUSTOMER_SCOPES);
}

#[test]
fn requests_without_a_token_get_only_401_or_405() {
    let folder = Folder::migrated();
    create_token(&folder, "teller", ALL_SCOPES);
    let service = with_access_control(&folder).start();
    run_schemathesis(&service, &folder, None, &[]);
    let requests = logged_requests(&service.process.stderr());
    let is_unexpected = |(route, status): &&(String, u64)| route.starts_with("/v1") && !matches!(status, 401 | 405);
    assert_eq!(requests.iter().find(is_unexpected), None, "only 401, or 405 for an unknown method, is allowed");
    assert!(requests.iter().filter(|(_, status)| *status == 401).count() > FIXED_CASES / 2);
    assert_no_server_error(service);
}
