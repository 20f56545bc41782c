//! The key file as an operator meets it: created for the embedded server, checked at the start, lost, and replaced.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Exited, Passbook},
};

const OTHER_KEY: &str = "YW5vdGhlciBrZXkgb2YgdGhlc2UgdGVzdHMhISEhISE=\n";

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Starts the service, makes a deposit, and stops it.
async fn serve_a_deposit(service: Passbook, folder: &Folder, key: &str) -> Exited {
    let service = service.start();
    service.client.open_account().await;
    service.client.deposit_ok(key).await;
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.wait_until_unused();
    ended
}

const UNAVAILABLE: &str = "wrapping keys unavailable";

#[tokio::test]
async fn the_embedded_server_gets_a_private_key_file_once() {
    let folder = Folder::migrated();
    let path = folder.data().join("wrapping.key");
    let ended = serve_a_deposit(Passbook::in_folder(&folder), &folder, "1").await;
    assert!(!ended.stderr.contains(UNAVAILABLE), "{ended:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let created = fs::read_to_string(&path).unwrap();
    assert_eq!(created.trim().len(), 44, "32 bytes in base64");
    assert!(!ended.stderr.contains(created.trim()));
    serve_a_deposit(Passbook::in_folder(&folder), &folder, "2").await;
    assert_eq!(fs::read_to_string(&path).unwrap(), created);
}

#[tokio::test]
async fn a_lost_or_wrong_key_file_is_an_error_line_and_money_moves_on() {
    let folder = Folder::migrated();
    let path = folder.data().join("wrapping.key");
    serve_a_deposit(Passbook::in_folder(&folder), &folder, "1").await;
    let kept = fs::read_to_string(&path).unwrap();

    fs::remove_file(&path).unwrap();
    let ended = serve_a_deposit(Passbook::in_folder(&folder), &folder, "2").await;
    assert!(ended.stderr.contains(UNAVAILABLE) && ended.stderr.contains("is missing"), "{ended:?}");
    assert!(!path.exists(), "a new key would hide that the former one is lost");

    write(&path, OTHER_KEY, 0o600);
    let ended = serve_a_deposit(Passbook::in_folder(&folder), &folder, "3").await;
    assert!(ended.stderr.contains(UNAVAILABLE) && ended.stderr.contains("does not contain the key"), "{ended:?}");

    // The replacement keeps the former key behind the new one.
    write(&path, &(OTHER_KEY.to_owned() + &kept), 0o600);
    let ended = serve_a_deposit(Passbook::in_folder(&folder), &folder, "4").await;
    assert!(!ended.stderr.contains(UNAVAILABLE) && ended.stderr.contains("wrapping key replaced"), "{ended:?}");
    write(&path, OTHER_KEY, 0o600);
    let ended = serve_a_deposit(Passbook::in_folder(&folder), &folder, "5").await;
    assert!(!ended.stderr.contains(UNAVAILABLE), "{ended:?}");
}

#[tokio::test]
async fn a_database_of_its_own_needs_no_key_file_until_one_is_named() {
    let folder = Folder::empty();
    let server = PostgresServer::start(&folder).await;
    let url = server.url();
    let passbook = || Passbook::with_database(&url);
    let stop = |service: Passbook| service.start().stop(Signal::SIGTERM);
    assert!(!stop(passbook()).stderr.contains(UNAVAILABLE));

    let path = folder.join("keys");
    let ended = passbook().set("PASSBOOK_KEY_FILE", &path).wait_for_exit();
    let message = ended.error_message();
    assert!(message.contains("does not exist") && message.contains("PASSBOOK_KEY_FILE"), "{message}");
    assert!(!path.exists(), "a key that the operator has not made is in no backup");

    write(&path, OTHER_KEY, 0o600);
    assert!(!stop(passbook().set("PASSBOOK_KEY_FILE", &path)).stderr.contains(UNAVAILABLE));
    let ended = stop(passbook());
    assert!(ended.stderr.contains(UNAVAILABLE) && ended.stderr.contains("set PASSBOOK_KEY_FILE"), "{ended:?}");
}

#[test]
fn faults_of_the_key_file_are_reported_with_all_other_settings() {
    let folder = Folder::empty();
    let path = folder.join("keys");
    let faults: [(&str, u32, &str); 4] = [
        (OTHER_KEY, 0o644, "run `chmod 600"),
        ("", 0o600, "contains no key"),
        ("c2hvcnQ=\n", 0o600, "line 1 that is not the base64 form of 32 bytes"),
        ("\u{fffd}", 0o600, "line 1"),
    ];
    for (text, mode, reason) in faults {
        write(&path, text, mode);
        let service = Passbook::in_folder(&folder).set("PASSBOOK_KEY_FILE", &path);
        let ended = service.set("PASSBOOK_READ_DATABASE_URL", "mysql://replica").wait_for_exit();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for part in [reason, "PASSBOOK_KEY_FILE", path.to_str().unwrap(), "PASSBOOK_READ_DATABASE_URL"] {
            assert!(ended.stderr.contains(part), "{part} is missing: {}", ended.stderr);
        }
        assert!(text.trim().is_empty() || !ended.stderr.contains(text.trim()), "{ended:?}");
        assert!(!folder.data().exists());
    }
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_KEY_FILE", folder.join("")).wait_for_exit();
    assert!(ended.error_message().contains("is not a file"), "{ended:?}");
}
