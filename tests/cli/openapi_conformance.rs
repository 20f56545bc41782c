//! The service held against its own OpenAPI document by schemathesis: every operation, with data that the document takes
//! and data that it refuses, as everybody who may come. What a schema cannot say stands in `tests/schemathesis/hooks.py`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    access_control::{with_access_control, token},
    folder::Folder,
    passbook::{Passbook, Running},
};

/// How many cases there are at the least, over all that come; `make fuzz` asks for more.
const CASES: usize = 2_000;
/// Those who come: anybody to an open bank; a teller, a customer and nobody to a with_access_control one.
const RUNS: usize = 4;
/// What every run has before it begins to guess, about, and how many operations there are to guess for.
const FIXED_CASES: usize = 1_200;
const OPERATIONS: usize = 20;
const GUESSES_MIN: usize = 5;

const EVERYTHING: &str =
    "accounts:read accounts:write accounts:read:any accounts:write:any accounts:freeze audit:read operations";
const A_CUSTOMERS: &str = "accounts:read accounts:write";

/// Without access control nobody needs a token.
const WITHOUT_TOKENS: [&str; 2] =
    ["--exclude-checks=ignored_auth,missing_required_header", "--generation-with-security-parameters=false"];

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Where `scripts/install-deps --test` puts it.
fn schemathesis() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("schemathesis/bin/st")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Tries everything, as who has this token.
fn try_all(bank: &Running, folder: &Folder, token: Option<&str>, options: &[&str]) {
    let cases = number("PASSBOOK_SCHEMATHESIS_CASES", CASES) / RUNS;
    let guesses = (cases.saturating_sub(FIXED_CASES) / OPERATIONS).max(GUESSES_MIN);
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
    command.arg(format!("{}/openapi.json", bank.client.base_url())).args(options);
    command.args([format!("--max-examples={guesses}"), format!("--seed={seed}")]);
    let ended = command.output().unwrap_or_else(|error| {
        panic!("{} does not run ({error}): scripts/install-deps --test installs it", schemathesis().display())
    });
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    let tried = said.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<usize>().ok()).unwrap();
    assert!(tried >= cases, "only {tried} cases: {said}");
    println!("{tried} cases");
}

/// The route and the status of everything that the service has logged as answered.
fn answered(logged: &str) -> Vec<(String, u64)> {
    let lines = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests = lines.filter(|line| line["message"] == "request");
    requests.map(|line| (line["route"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())).collect()
}

#[track_caller]
fn assert_no_fault(bank: Running) {
    let ended = bank.stop(Signal::SIGTERM);
    let answered = answered(&ended.stderr);
    let faults: Vec<_> = answered.iter().filter(|(_, status)| *status >= 500).collect();
    assert!(faults.is_empty(), "{faults:?}");
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("\"ERROR\""), "{}", ended.stderr);
    println!("{} requests", answered.len());
}

#[test]
fn an_open_bank_keeps_to_its_document_whatever_is_sent() {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).start();
    try_all(&bank, &folder, None, &WITHOUT_TOKENS);
    assert_no_fault(bank);
}

#[test]
fn a_guarded_bank_keeps_to_its_document_whoever_sends_whatever() {
    let folder = Folder::migrated();
    let [teller, customer] = [("teller", EVERYTHING), ("c-17", A_CUSTOMERS)].map(|(who, may)| token(&folder, who, may));
    let bank = with_access_control(&folder).start();
    try_all(&bank, &folder, Some(&teller), &[]);
    try_all(&bank, &folder, Some(&customer), &[]);
    assert_no_fault(bank);
}

#[test]
fn nobody_gets_anything_out_of_a_guarded_bank_whatever_is_sent() {
    let folder = Folder::migrated();
    token(&folder, "teller", EVERYTHING);
    let bank = with_access_control(&folder).start();
    try_all(&bank, &folder, None, &[]);
    let answered = answered(&bank.process.stderr());
    let to_nobody = |(route, status): &&(String, u64)| route.starts_with("/v1") && !matches!(status, 401 | 405);
    assert_eq!(answered.iter().find(to_nobody), None, "401, or 405 for a method that there is not");
    assert!(answered.iter().filter(|(_, status)| *status == 401).count() > FIXED_CASES / 2);
    assert_no_fault(bank);
}
