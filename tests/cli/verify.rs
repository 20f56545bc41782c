//! `passbook verify`: checks the log and the views, with and without a running service.

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Exited, Passbook},
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

fn verify(folder: &Folder, arguments: &[&str]) -> Exited {
    let passbook = Passbook::in_folder(folder).argument("verify");
    arguments.iter().fold(passbook, |passbook, argument| passbook.argument(argument)).wait_for_exit()
}

fn json(ended: &Exited) -> Value {
    serde_json::from_str(&ended.stdout.join("")).unwrap()
}

#[tokio::test]
async fn verify_works_with_and_without_a_running_service() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    service.client.deposit_ok("a-key").await;

    let beside = verify(&folder, &[]);
    assert_eq!(beside.status.code(), Some(0), "{beside:?}");
    assert!(beside.stdout[0].contains("consistent"), "{beside:?}");
    let head = beside.stdout.last().unwrap().rsplit_once(' ').unwrap().1.to_owned();
    // The running service still has its Postgres.
    service.client.deposit_ok("another-key").await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));

    let alone = verify(&folder, &["--json", "--expect-head", &head]);
    assert_eq!(alone.status.code(), Some(0), "{alone:?}");
    let report = json(&alone);
    assert_eq!((&report["verified"], &report["position"], &report["accounts"]), (&true.into(), &"3".into(), &1.into()));
    folder.wait_until_unused();
}

#[tokio::test]
async fn verify_exits_with_1_and_names_the_first_broken_position() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    service.client.deposit_ok("a-key").await;
    let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
    sqlx::raw_sql(
        "ALTER TABLE event DISABLE TRIGGER event_immutable;
         UPDATE event SET data = '{\"amount\":2}' WHERE position = 2;",
    )
    .execute(&mut superuser)
    .await
    .unwrap();

    let failed = verify(&folder, &[]);
    assert!(failed.error_message().starts_with("position 2: "), "{failed:?}");
    let failed = verify(&folder, &["--json"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let finding = json(&failed);
    assert_eq!((&finding["verified"], &finding["position"]), (&false.into(), &2.into()));
    assert!(finding["finding"].as_str().is_some_and(|message| !message.is_empty()), "{finding}");
}

#[test]
fn an_invalid_pinned_head_is_refused_before_postgres_is_started() {
    let folder = Folder::empty();
    let ended = verify(&folder, &["--expect-head", "yesterday"]);
    assert!(ended.error_message().contains("--expect-head"), "{ended:?}");
    assert!(!folder.data().exists());
}

#[test]
fn verify_does_not_initialize_an_empty_folder() {
    let folder = Folder::empty();
    let ended = verify(&folder, &[]);
    assert!(ended.error_message().contains("no bank"), "{ended:?}");
    assert!(!folder.data().exists());
}
