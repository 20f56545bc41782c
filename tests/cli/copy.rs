//! `passbook copy`: follow a log while the old service runs, finish the copy during a short downtime, and serve the copy.

use std::time::Duration;

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Exited, Passbook, Process, Running},
};
use sqlx::{Connection, PgConnection};

/// A Postgres with two databases: `old`, which a service uses, and `new`, which is empty.
struct Migration {
    _host: Running,
    folder: Folder,
}

impl Migration {
    async fn prepare() -> Self {
        let folder = Folder::migrated();
        let host = Passbook::in_folder(&folder).start();
        let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
        for statement in ["CREATE DATABASE old", "CREATE DATABASE new"] {
            sqlx::query(statement).execute(&mut superuser).await.unwrap();
        }
        superuser.close().await.unwrap();
        Self { _host: host, folder }
    }

    fn url(&self, database: &str) -> String {
        let (before, host) =
            self.folder.database_url().split_once('?').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        format!("{}/{database}?{host}", before.rsplit_once('/').unwrap().0)
    }

    fn copy(&self, arguments: &[&str]) -> Passbook {
        let to = self.url("new");
        let copy = Passbook::with_database(&self.url("old")).argument("copy").argument("--to").argument(&to);
        arguments.iter().fold(copy, |copy, argument| copy.argument(argument))
    }

    fn run_copy(&self, arguments: &[&str]) -> Exited {
        self.copy(arguments).wait_for_exit()
    }

    /// Waits until this many events are copied.
    async fn wait_until_copied(&self, events: i64, process: &Process) {
        let copied = "SELECT coalesce(sum(compared), 0)::int8 FROM copy_progress";
        for _ in 0..600 {
            let mut new = PgConnection::connect(&self.url("new")).await.unwrap();
            let read = sqlx::query_scalar(copied).fetch_one(&mut new).await;
            if read.is_ok_and(|read: i64| read >= events) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the copy does not catch up: {}", process.stderr());
    }
}

#[tokio::test]
async fn a_log_is_copied_into_more_partitions_with_a_short_downtime() {
    let migration = Migration::prepare().await;
    let old = Passbook::with_database(&migration.url("old")).start();
    old.client.open_account().await;
    let before = old.client.deposit_ok("before").await;

    let missing = migration.run_copy(&[]);
    assert!(missing.error_message().contains("--partitions"), "{missing:?}");
    let follower = migration.copy(&["--partitions", "4", "--follow"]).spawn();
    migration.wait_until_copied(2, &follower).await;
    old.client.deposit_ok("meanwhile").await;
    migration.wait_until_copied(3, &follower).await;
    follower.signal(Signal::SIGINT);
    let followed = follower.wait_for_exit();
    assert_eq!(followed.status.code(), Some(0), "{followed:?}");
    assert!(followed.stdout[0].contains("without --follow"), "{followed:?}");

    let early = Passbook::with_database(&migration.url("new")).wait_for_exit();
    assert!(early.error_message().contains("incomplete copy"), "{early:?}");
    let served = migration.run_copy(&["--partitions", "4"]);
    assert!(served.error_message().contains("a service is still connected"), "{served:?}");
    let other = migration.run_copy(&["--partitions", "8"]);
    assert!(other.error_message().contains("started with 4 partitions, and not with 8"), "{other:?}");

    old.client.deposit_ok("last-moment").await;
    assert_eq!(old.stop(Signal::SIGTERM).status.code(), Some(0));
    let copied = migration.run_copy(&["--partitions", "4"]);
    assert_eq!(copied.status.code(), Some(0), "{copied:?}");
    assert!(copied.stdout[0].starts_with("copied 4 events"), "{copied:?}");

    let moved = Passbook::with_database(&migration.url("old")).wait_for_exit();
    assert!(moved.error_message().contains("moved to another database by `passbook copy`"), "{moved:?}");
    let mut old = PgConnection::connect(&migration.url("old")).await.unwrap();
    for write in [
        "SELECT append_batch(0::int2, position, hash, fence, now(), '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
                             '{}', '{}', '{}', '{}', '{}', '{}', 1::int2, '{}') FROM log_head",
        "SELECT take_turn(0::int2, 0, 10)",
        "SELECT lock_head_and_read_since(0::int2, 0, 10, 1000, 0)",
    ] {
        let refused = sqlx::query(write).execute(&mut old).await.unwrap_err().to_string();
        assert!(refused.contains("moved to another database"), "{refused}");
    }
    let fences: i64 = sqlx::query_scalar("SELECT min(fence) FROM log_head").fetch_one(&mut old).await.unwrap();
    assert_eq!(fences, 1, "an append that was decided before the copy finds another fence");

    let verified = Passbook::with_database(&migration.url("new")).argument("verify").wait_for_exit();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let new = Passbook::with_database(&migration.url("new")).start();
    new.client.wait_until_ready().await;
    assert_eq!(new.client.deposit_ok("before").await, before, "a retry gets the first receipt");
    new.client.deposit_ok("afterwards").await;
    let refused = Passbook::with_database(&migration.url("new")).set("PASSBOOK_PARTITIONS", "1").wait_for_exit();
    assert!(refused.error_message().contains("the log has 4 partitions"), "{refused:?}");
    let again = migration.run_copy(&["--partitions", "4"]);
    assert!(again.error_message().contains("finished"), "{again:?}");
}

#[tokio::test]
async fn a_panic_in_a_projector_ends_the_copy() {
    let migration = Migration::prepare().await;
    let old = Passbook::with_database(&migration.url("old")).start();
    old.client.open_account().await;
    let copy = migration.copy(&["--partitions", "2", "--follow"]).set("PASSBOOK_TEST_PANIC_TASK", "projector");
    let ended = copy.wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the background task `projector` ended unexpectedly"), "{ended:?}");
}

#[test]
fn migrate_distribute_requires_citus() {
    let folder = Folder::migrated();
    let ended = Passbook::in_folder(&folder).argument("migrate").argument("--distribute").wait_for_exit();
    assert!(ended.error_message().contains("CREATE EXTENSION citus"), "{ended:?}");
    folder.wait_until_unused();
}
