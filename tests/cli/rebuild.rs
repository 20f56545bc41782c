//! `passbook rebuild`: rebuilds a view, with and without a running service.

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Exited, Passbook},
};
use sqlx::{Connection, PgConnection};

fn rebuild(folder: &Folder, arguments: &[&str]) -> Exited {
    let passbook = Passbook::in_folder(folder).argument("rebuild");
    arguments.iter().fold(passbook, |passbook, argument| passbook.argument(argument)).wait_for_exit()
}

#[tokio::test]
async fn rebuild_works_with_and_without_a_running_service() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    service.client.deposit_ok("a-key").await;

    let beside = rebuild(&folder, &["accounts"]);
    assert_eq!(beside.status.code(), Some(0), "{beside:?}");
    assert_eq!(beside.stdout, ["accounts is rebuilt: generation 2 is live at position 2"]);
    service.client.deposit_ok("another-key").await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));

    let alone = rebuild(&folder, &["transactions", "--verify"]);
    assert_eq!(alone.status.code(), Some(0), "{alone:?}");
    assert_eq!(alone.stdout, ["transactions is rebuilt: generation 2 is live at position 3"]);
    folder.wait_until_unused();
}

#[tokio::test]
async fn a_rebuild_that_cannot_run_is_refused_with_one_sentence() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    let unknown = rebuild(&folder, &["customers"]).error_message();
    assert!(unknown.contains("no projection \"customers\"") && unknown.contains("accounts, "), "{unknown}");
    assert!(rebuild(&folder, &["accounts", "--resume"]).error_message().contains("no rebuild of accounts"));

    // Simulate a rebuild that another process has begun.
    let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE account_view IN SHARE MODE").execute(&mut superuser).await.unwrap();
    let begin = "INSERT INTO projection SELECT partition, name, 2, schema_version, 'building', 0 FROM projection
                 WHERE name = 'accounts'";
    let mut other = PgConnection::connect(&folder.database_url()).await.unwrap();
    sqlx::raw_sql(begin).execute(&mut other).await.unwrap();
    assert!(rebuild(&folder, &["accounts"]).error_message().contains("--resume"));
    superuser.close().await.unwrap();

    // Either the service or the command line finishes the rebuild; it must not run twice.
    let resumed = rebuild(&folder, &["accounts", "--resume"]);
    assert!(resumed.status.success() || resumed.error_message().contains("no rebuild of accounts"), "{resumed:?}");
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[test]
fn rebuild_refuses_a_folder_without_a_database() {
    let folder = Folder::empty();
    assert!(rebuild(&folder, &["accounts"]).error_message().contains("no bank"));
    assert!(!folder.data().exists());
}
