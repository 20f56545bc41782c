//! A log copied from the command line: followed while the bank goes on, ended in a short stop, and then served.

use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};

use crate::{
    folder::Folder,
    passbook::{Exited, Passbook, Process, Running},
};

/// A Postgres with an old database that is served and a new one that is empty.
struct Move {
    _host: Running,
    folder: Folder,
}

impl Move {
    async fn prepared() -> Self {
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

    fn ended(&self, arguments: &[&str]) -> Exited {
        self.copy(arguments).wait_for_exit()
    }

    /// Waits until as much was copied as was recorded.
    async fn is_followed(&self, events: i64, process: &Process) {
        let copied = "SELECT coalesce(sum(compared), 0)::int8 FROM copy_progress";
        for _ in 0..600 {
            let mut new = PgConnection::connect(&self.url("new")).await.unwrap();
            let read = sqlx::query_scalar(copied).fetch_one(&mut new).await;
            if read.is_ok_and(|read: i64| read >= events) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not follow: {}", process.stderr());
    }
}

#[tokio::test]
async fn a_bank_moves_to_more_partitions_in_a_short_stop() {
    let moving = Move::prepared().await;
    let old = Passbook::with_database(&moving.url("old")).start();
    old.client.open_account().await;
    let before = old.client.deposit_ok("before").await;

    let missing = moving.ended(&[]);
    assert!(missing.error_message().contains("--partitions"), "{missing:?}");
    let follower = moving.copy(&["--partitions", "4", "--follow"]).spawn();
    moving.is_followed(2, &follower).await;
    old.client.deposit_ok("meanwhile").await;
    moving.is_followed(3, &follower).await;
    follower.signal(Signal::SIGINT);
    let followed = follower.wait_for_exit();
    assert_eq!(followed.status.code(), Some(0), "{followed:?}");
    assert!(followed.stdout[0].contains("without --follow"), "{followed:?}");

    let early = Passbook::with_database(&moving.url("new")).wait_for_exit();
    assert!(early.error_message().contains("being copied into this one"), "{early:?}");
    let served = moving.ended(&["--partitions", "4"]);
    assert!(served.error_message().contains("a service is still connected"), "{served:?}");
    let other = moving.ended(&["--partitions", "8"]);
    assert!(other.error_message().contains("into 4 partitions, and not into 8"), "{other:?}");

    old.client.deposit_ok("last-moment").await;
    assert_eq!(old.stop(Signal::SIGTERM).status.code(), Some(0));
    let copied = moving.ended(&["--partitions", "4"]);
    assert_eq!(copied.status.code(), Some(0), "{copied:?}");
    assert!(copied.stdout[0].starts_with("the log is copied: 4 events"), "{copied:?}");

    let verified = Passbook::with_database(&moving.url("new")).argument("verify").wait_for_exit();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let new = Passbook::with_database(&moving.url("new")).start();
    new.client.wait_until_ready().await;
    assert_eq!(new.client.deposit_ok("before").await, before, "who tries again is answered as before");
    new.client.deposit_ok("afterwards").await;
    let refused = Passbook::with_database(&moving.url("new")).set("PASSBOOK_PARTITIONS", "1").wait_for_exit();
    assert!(refused.error_message().contains("created with 4 partitions"), "{refused:?}");
    let again = moving.ended(&["--partitions", "4"]);
    assert!(again.error_message().contains("finished"), "{again:?}");
}

#[test]
fn without_citus_nothing_is_distributed() {
    let folder = Folder::migrated();
    let ended = Passbook::in_folder(&folder).argument("migrate").argument("--distribute").wait_for_exit();
    assert!(ended.error_message().contains("CREATE EXTENSION citus"), "{ended:?}");
    folder.wait_until_unused();
}
