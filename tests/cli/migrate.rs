//! `passbook migrate` creates and updates the schema before the first instance serves.

use nix::sys::signal::Signal;
use passbook_testkit::{folder::Folder, process::Passbook};

#[tokio::test]
async fn migrate_creates_a_database_and_a_second_run_changes_nothing() {
    let folder = Folder::empty();
    for _ in 0..2 {
        let ended = Passbook::in_folder(&folder).argument("migrate").wait_for_exit();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
        folder.wait_until_unused();
    }
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[tokio::test]
async fn migrate_does_not_disturb_a_running_service() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let ended = Passbook::with_database(&folder.database_url()).argument("migrate").wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    service.client.open_account().await;
}
