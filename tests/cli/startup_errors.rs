//! Errors at startup: the command exits with one sentence that names the cause and the remedy.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Exited, Passbook},
};
use serde_json::Value;

#[track_caller]
fn assert_error(exited: &Exited, parts: &[&str]) {
    let message = exited.error_message();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
}

/// Writes an executable shell script.
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_port_in_use_is_reported_before_postgres_is_started() {
    let folder = Folder::empty();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", &address).wait_for_exit();
    assert_error(&ended, &[&address, "another program listens on", "PASSBOOK_LISTEN"]);
    assert!(!folder.data().exists());
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let folder = Folder::empty();
    let ended = Passbook::in_folder(&folder)
        .set("PASSBOOK_LISTEN", "192.0.2.1:8080")
        .set("PASSBOOK_AUTH", "off")
        .wait_for_exit();
    assert_error(&ended, &["192.0.2.1:8080", "cannot listen on"]);
}

#[test]
fn a_non_loopback_address_requires_access_control_or_auth_off() {
    let folder = Folder::empty();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let ended = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", address).wait_for_exit();
        assert_error(&ended, &[address, "PASSBOOK_AUTH=off", "127.0.0.1"]);
    }
}

#[test]
fn a_data_folder_in_use_is_refused_and_its_service_keeps_running() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    for subcommand in ["serve", "migrate"] {
        let ended = Passbook::in_folder(&folder).argument(subcommand).wait_for_exit();
        assert_error(
            &ended,
            &[folder.data().to_str().unwrap(), "in use by another Passbook process", "PASSBOOK_DATA_DIR"],
        );
    }
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_data_folder_of_another_postgres_major_is_refused_unchanged() {
    let folder = Folder::migrated();
    let version = folder.data().join("postgres/PG_VERSION");
    fs::write(&version, "14\n").unwrap();
    let ended = Passbook::in_folder(&folder).wait_for_exit();
    assert_error(&ended, &["written by Postgres 14", "never upgraded silently", folder.data().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(version).unwrap(), "14\n");
}

#[test]
fn a_pg_bin_folder_without_postgres_is_named() {
    let folder = Folder::empty();
    let empty = folder.join("bin");
    fs::create_dir(&empty).unwrap();
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_PG_BIN", &empty).wait_for_exit();
    assert_error(&ended, &[empty.to_str().unwrap(), "PASSBOOK_PG_BIN", "contains no working postgres and initdb"]);
}

#[test]
fn a_postgres_that_is_too_old_is_named() {
    let folder = Folder::empty();
    let bin = folder.join("bin");
    for program in ["postgres", "initdb"] {
        script(&bin.join(program), &format!("echo '{program} (PostgreSQL) 14.9'"));
    }
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_PG_BIN", &bin).wait_for_exit();
    assert_error(&ended, &["only Postgres 14", bin.to_str().unwrap(), "15 or later"]);
}

#[test]
fn postgres_in_the_data_home_is_used_for_data_of_its_version() {
    let folder = Folder::migrated();
    fs::write(folder.data().join("postgres/PG_VERSION"), "99\n").unwrap();
    // As `scripts/install-deps` lays it out.
    let (home, bin) = (folder.join("share"), folder.join("share/passbook-postgres/99/bin"));
    script(
        &bin.join("postgres"),
        "[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 99.1' && exit; echo 'FATAL:  this is 99' >&2; exit 1",
    );
    script(&bin.join("initdb"), "exit 1");
    let ended = Passbook::in_folder(&folder).set("XDG_DATA_HOME", home).wait_for_exit();
    assert_error(&ended, &["Postgres did not start", "this is 99"]);
}

#[test]
fn an_initdb_failure_is_quoted_and_leaves_no_partial_data() {
    let folder = Folder::empty();
    let bin = folder.join("bin");
    script(&bin.join("postgres"), "echo 'postgres (PostgreSQL) 15.9'");
    script(
        &bin.join("initdb"),
        "echo 'initdb: error: could not create directory: No space left on device' >&2; exit 1",
    );
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_PG_BIN", &bin).wait_for_exit();
    assert_error(&ended, &["could not be created", "No space left on device"]);
    assert!(!folder.data().join("postgres").exists());
}

#[test]
fn the_error_of_a_postgres_that_does_not_start_is_quoted() {
    let folder = Folder::migrated();
    fs::write(folder.data().join("postgres/postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let ended = Passbook::in_folder(&folder).wait_for_exit();
    assert_error(&ended, &["Postgres did not start", "postgresql.conf", "contains errors", "; see", "postgres.log"]);
    folder.wait_until_unused();
}

#[test]
fn a_data_folder_that_is_a_file_is_refused() {
    let folder = Folder::empty();
    fs::write(folder.data(), "not a folder").unwrap();
    let ended = Passbook::in_folder(&folder).wait_for_exit();
    assert_error(&ended, &[folder.data().to_str().unwrap(), "PASSBOOK_DATA_DIR"]);
}

#[test]
fn a_data_folder_that_postgres_cannot_reach_is_refused() {
    let folder = Folder::empty();
    let closed = folder.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_DATA_DIR", closed.join("data")).wait_for_exit();
    assert_error(&ended, &[closed.to_str().unwrap(), "PASSBOOK_DATA_DIR"]);
}

#[test]
fn a_data_folder_of_postgres_itself_is_refused() {
    let folder = Folder::migrated();
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_DATA_DIR", folder.data().join("postgres")).wait_for_exit();
    assert_error(&ended, &["is not a data folder of Passbook", "PASSBOOK_DATA_DIR"]);
}

#[test]
fn an_invalid_database_url_is_refused_without_quoting_it() {
    for url in
        ["hunter2", "", "mysql://teller:hunter2@db.example/bank", "postgres://teller:hunter2@db.example:port/bank"]
    {
        let ended = Passbook::with_database(url).wait_for_exit();
        assert_error(
            &ended,
            &["PASSBOOK_DATABASE_URL is not a Postgres URL", "postgres://user:password@host/database"],
        );
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    }
}

#[test]
fn an_unreachable_database_is_reported_without_its_password() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://teller:hunter2@{closed}/bank");
    for subcommand in ["serve", "migrate"] {
        let ended = Passbook::with_database(&url).set("PASSBOOK_LOG", "trace").argument(subcommand).wait_for_exit();
        assert_error(&ended, &["the database of PASSBOOK_DATABASE_URL cannot be reached"]);
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    }
}

#[test]
fn a_database_that_accepts_but_never_responds_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://teller:hunter2@{}/bank", silent.local_addr().unwrap());
    let started = Instant::now();
    let ended = Passbook::with_database(&url).wait_for_exit();
    assert_error(&ended, &["the database of PASSBOOK_DATABASE_URL does not answer in time"]);
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn an_invalid_log_filter_is_quoted() {
    let folder = Folder::empty();
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_LOG", "passbook=loud").wait_for_exit();
    assert_error(&ended, &["PASSBOOK_LOG", "passbook=loud", "is not a log filter"]);
}

#[test]
fn all_invalid_settings_are_reported_as_they_were_given() {
    let folder = Folder::empty();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", "8080").set("PASSBOOK_PARTITIONS", "65");
    let service = service.argument("serve").argument("--log-format").argument("xml").argument("--auth=on");
    let ended = service.wait_for_exit();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    for part in [
        "'8080' for PASSBOOK_LISTEN: invalid socket address",
        "'65' for PASSBOOK_PARTITIONS: 65 is not in 1..=64",
        "'xml' for --log-format: possible values: text, json",
        "'on' for --auth: possible values: off",
    ] {
        assert!(ended.stderr.contains(part), "{part} is missing: {}", ended.stderr);
    }
    assert!(!folder.data().exists(), "settings are checked before the database is started");
}

#[test]
fn contradictory_settings_are_all_reported_before_anything_starts() {
    let folder = Folder::empty();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Passbook::in_folder(&folder)
        .set("PASSBOOK_LISTEN", taken.local_addr().unwrap().to_string())
        .set("PASSBOOK_AUTH_ISSUER", "https://id.example")
        .set("PASSBOOK_READ_DATABASE_URL", "mysql://replica");
    let ended = service.wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for part in ["PASSBOOK_AUTH_AUDIENCE", "PASSBOOK_READ_DATABASE_URL"] {
        assert!(ended.stderr.contains(part), "{part} is missing: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("another program listens"), "{ended:?}");
    assert!(!folder.data().exists());
}

#[test]
fn with_json_logs_a_failed_start_prints_only_json() {
    let folder = Folder::empty();
    for (setting, value, reason) in
        [("PASSBOOK_LISTEN", "8080", "PASSBOOK_LISTEN"), ("PASSBOOK_PG_BIN", "/nowhere", "/nowhere")]
    {
        let ended = Passbook::in_folder(&folder).set("PASSBOOK_LOG_FORMAT", "json").set(setting, value).wait_for_exit();
        let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.last().unwrap()["reason"].as_str().unwrap().contains(reason), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_misspelt_setting_is_a_warning_with_the_nearest_name() {
    let folder = Folder::empty();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LISTN", "x").set("PASSBOOK_PG_BIN", "/nowhere");
    let ended = service.wait_for_exit();
    assert!(ended.stderr.contains("PASSBOOK_LISTN is not a setting; is PASSBOOK_LISTEN meant?"), "{ended:?}");
    assert!(!ended.stderr.contains("PASSBOOK_PG_BIN is not a setting"), "{ended:?}");
}
