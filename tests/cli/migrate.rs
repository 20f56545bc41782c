//! `passbook migrate` creates and updates the schema before the first instance serves.

use std::time::Duration;

use nix::sys::signal::Signal;
use passbook_testkit::{folder::Folder, postgres_server::PostgresServer, process::Passbook};
use sqlx::{ConnectOptions, migrate::Migrate, postgres::PgConnectOptions};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_waits_while_another_instance_migrates() {
    let folder = Folder::empty();
    let server = PostgresServer::start(&folder).await;
    let mut other = server.url().parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    other.lock().await.unwrap();
    // Longer than `lock_timeout`.
    let migration = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        other.unlock().await.unwrap();
    });
    let service = Passbook::with_database(&server.url()).start();
    migration.await.unwrap();
    service.client.open_account().await;
    let ended = service.stop(Signal::SIGTERM);
    assert!(ended.stderr.contains("another instance migrates the database"), "{}", ended.stderr);
}
