//! The schema can be brought up to date before the first instance serves.

use nix::sys::signal::Signal;

use crate::{folder::Folder, passbook::Passbook};

#[tokio::test]
async fn migrating_an_empty_folder_makes_a_bank_and_doing_it_again_changes_nothing() {
    let folder = Folder::empty();
    for _ in 0..2 {
        let ended = Passbook::in_folder(&folder).argument("migrate").wait_for_exit();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
        folder.wait_until_unused();
    }
    let bank = Passbook::in_folder(&folder).start();
    bank.client.open_account().await;
    assert_eq!(bank.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[tokio::test]
async fn migrating_a_postgres_that_a_bank_works_on_does_not_disturb_it() {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).start();
    let ended = Passbook::with_database(&folder.database_url()).argument("migrate").wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    bank.client.open_account().await;
}
