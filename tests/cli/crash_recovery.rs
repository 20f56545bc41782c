//! After SIGKILL of the service or of Postgres, no acknowledged command is lost.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use passbook_testkit::{folder::Folder, process::Passbook};

use crate::graceful_shutdown::{Workload, assert_nothing_lost};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_leaves_no_postgres_behind_and_loses_nothing() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    let workload = Workload::start(&service.client).await;
    let ended = service.stop(Signal::SIGKILL);
    assert_eq!(ended.status.code(), None, "{ended:?}");
    folder.wait_until_unused();
    assert_nothing_lost(&folder, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_right_after_a_kill_waits_for_the_old_postgres() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    let workload = Workload::start(&service.client).await;
    service.stop(Signal::SIGKILL);
    assert_nothing_lost(&folder, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_restarts_and_each_command_is_recorded_once() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    let before = folder.postmaster();
    let workload = Workload::start(&service.client).await;
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();

    let after = service.client.deposit_with_retry("after-the-crash").await;
    let mut responses = workload.finish().await;
    responses.recorded.push(after);
    folder.wait_for_new_postmaster(before);
    service.client.wait_until_ready().await;
    responses.assert_matches(&service.client.deposits().await);
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    folder.wait_until_unused();
}
