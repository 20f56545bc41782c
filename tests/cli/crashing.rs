//! Killed without a word, it loses nothing that it answered.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    ending::{Crowd, nothing_is_lost},
    folder::Folder,
    passbook::Passbook,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_passbook_leaves_no_postgres_behind_and_the_next_one_has_everything() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).start();
    bank.client.open().await;
    let crowd = Crowd::at_work(&bank.client).await;
    let ended = bank.stop(Signal::SIGKILL);
    assert_eq!(ended.status.code(), None, "{ended:?}");
    folder.is_left_alone();
    nothing_is_lost(&folder, crowd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passbook_started_right_after_one_was_killed_waits_for_the_old_postgres() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).start();
    bank.client.open().await;
    let crowd = Crowd::at_work(&bank.client).await;
    bank.stop(Signal::SIGKILL);
    nothing_is_lost(&folder, crowd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_is_started_again_and_commands_work_again_each_once() {
    let folder = Folder::fresh();
    let bank = Passbook::on(&folder).start();
    bank.client.open().await;
    let before = folder.postmaster();
    let crowd = Crowd::at_work(&bank.client).await;
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();

    let after = bank.client.deposit_at_last("after-the-crash").await;
    let mut told = crowd.told().await;
    told.recorded.push(after);
    folder.has_another_postmaster_than(before);
    bank.client.is_ready().await;
    told.agrees_with(&bank.client.deposits().await);
    let ended = bank.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.is_left_alone();
}
