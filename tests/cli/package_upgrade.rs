//! A package upgrade replaces the files of the running embedded Postgres.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use passbook_testkit::{folder::Folder, process::Passbook};
use sqlx::{Connection, PgConnection, query};

/// A folder of the installed Postgres, as `pg_config` prints it.
fn installed(option: &str) -> PathBuf {
    let output = Command::new("pg_config").arg(option).output().expect("this test needs pg_config");
    fs::canonicalize(String::from_utf8(output.stdout).unwrap().trim()).unwrap()
}

/// Copies the installed Postgres below `root`. Postgres finds its other folders relative to its own. Returns the folder with its
/// programs, and that with its libraries.
fn copy_installation(root: &Path) -> (PathBuf, PathBuf) {
    let below = |folder: &Path| root.join(folder.strip_prefix("/").unwrap());
    let [bin, libraries, share] = ["--bindir", "--pkglibdir", "--sharedir"].map(installed);
    for folder in [&bin, &libraries] {
        fs::create_dir_all(below(folder)).unwrap();
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            fs::copy(&file, below(&file)).unwrap();
        }
    }
    fs::create_dir_all(below(share.parent().unwrap())).unwrap();
    std::os::unix::fs::symlink(&share, below(&share)).unwrap();
    (below(&bin), below(&libraries))
}

#[tokio::test]
async fn new_sessions_work_after_an_upgrade_replaced_plpgsql() {
    let folder = Folder::migrated();
    let (bin, libraries) = copy_installation(&folder.join("installation"));
    let service = Passbook::in_folder(&folder).set("PASSBOOK_PG_BIN", &bin).start();
    service.client.wait_until_ready().await;
    service.client.open_account().await;

    // Package managers unlink the old file, so that running programs keep it.
    let plpgsql = libraries.join("plpgsql.so");
    fs::remove_file(&plpgsql).expect("the copied Postgres has a plpgsql.so");
    fs::write(&plpgsql, "the library of another build").unwrap();
    let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
    query("DO $$ BEGIN PERFORM 1; END $$").execute(&mut superuser).await.expect("a new session has PL/pgSQL");
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    query(others).execute(&mut superuser).await.unwrap();
    service.client.deposit_with_retry("after").await;
    service.client.wait_until_ready().await;
    assert_eq!(service.client.get("/v1/events?since=2020-01-01T00:00:00Z").await.status(), 200);
}
