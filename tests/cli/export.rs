//! `passbook export journal`: with and without a running service, to standard output and to a file.

use std::fs;

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Exited, Passbook},
};
use serde_json::Value;

fn export(folder: &Folder, arguments: &[&str]) -> Exited {
    let passbook = Passbook::in_folder(folder).argument("export").argument("journal");
    arguments.iter().fold(passbook, |passbook, argument| passbook.argument(argument)).wait_for_exit()
}

fn lines(ended: &Exited) -> Vec<Value> {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stdout.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn journal_is_exported_with_and_without_a_running_service() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    service.client.deposit_ok("a-key").await;
    let beside = lines(&export(&folder, &[]));
    assert_eq!(beside.len(), 1);
    assert_eq!(beside[0]["kind"], "deposit", "{beside:?}");
    service.client.deposit_ok("another-key").await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));

    let alone = lines(&export(&folder, &["--format", "jsonl"]));
    assert_eq!((alone.len(), &alone[0]), (2, &beside[0]));
    assert_eq!(lines(&export(&folder, &["--to", "2026-01-01"])), [] as [Value; 0]);
    assert_eq!(lines(&export(&folder, &["--from", "2026-01-01", "--to", "9999-12-31"])), alone);
    folder.wait_until_unused();

    let path = folder.join("books.journal");
    let file = path.to_str().unwrap();
    let written = export(&folder, &["--format", "hledger", "--output", file]);
    assert_eq!((written.status.code(), written.stdout.len()), (Some(0), 0), "{written:?}");
    let journal = fs::read_to_string(&path).unwrap();
    assert_eq!(journal.matches("liabilities:customer-deposits  -").count(), 2, "{journal}");
    assert!(!path.with_extension("journal.part").exists());
    let printed = export(&folder, &["--format", "hledger", "-o", "-"]);
    assert_eq!(printed.stdout.join("\n").trim_end(), journal.trim_end());
    folder.wait_until_unused();
}

#[test]
fn invalid_options_are_refused_before_postgres_is_started() {
    let folder = Folder::empty();
    for (arguments, part) in [
        (["--from", "yesterday"], "2026-01-31"),
        (["--to", "+2026-01-01"], "2026-01-31"),
        (["--format", "pdf"], "hledger"),
    ] {
        let ended = export(&folder, &arguments);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
    let reversed = export(&folder, &["--from", "2026-01-02", "--to", "2026-01-01"]);
    assert!(reversed.error_message().contains("--from"), "{reversed:?}");
    assert!(!folder.data().exists());
}

#[test]
fn export_does_not_initialize_an_empty_folder() {
    let folder = Folder::empty();
    let ended = export(&folder, &[]);
    assert!(ended.error_message().contains("no bank"), "{ended:?}");
    assert!(!folder.data().exists());
}
