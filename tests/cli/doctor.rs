//! `passbook doctor`: examines a configured or embedded database, and its exit code says whether a setting is unsafe.

use nix::sys::signal::Signal;
use passbook_embedded_postgres::{Machine, tuning};
use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Exited, Passbook},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, query_scalar};

fn doctor(passbook: Passbook) -> Exited {
    passbook.argument("doctor").wait_for_exit()
}

/// The findings of `doctor --json`, with this exit code.
#[track_caller]
fn findings(passbook: Passbook, exit_code: i32) -> Value {
    let ended = passbook.argument("doctor").argument("--json").wait_for_exit();
    assert_eq!(ended.status.code(), Some(exit_code), "{ended:?}");
    serde_json::from_str(&ended.stdout.join("")).unwrap()
}

/// A member of the finding with this name.
#[track_caller]
fn of<'a>(report: &'a Value, name: &str, member: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.and_then(|finding| finding[member].as_str()).unwrap_or_else(|| panic!("{name} is missing: {report}"))
}

async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
}

async fn setting(folder: &Folder, name: &str) -> String {
    let mut superuser = PgConnection::connect(&folder.database_url()).await.unwrap();
    query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test]
async fn doctor_finds_nothing_unsafe_in_the_embedded_postgres() {
    let folder = Folder::migrated();
    let alone = findings(Passbook::in_folder(&folder), 0);
    let service = Passbook::in_folder(&folder).start();
    let beside = findings(Passbook::in_folder(&folder), 0);
    for report in [alone, beside] {
        assert_eq!(report["safe"], true, "{report}");
        for name in ["Postgres", "schema version", "role", "rights and indexes", "clock", "fsync", "max_wal_size"] {
            assert_eq!(of(&report, name, "verdict"), "good", "{report}");
        }
    }
    service.client.open_account().await;

    let table = doctor(Passbook::in_folder(&folder));
    assert_eq!(table.status.code(), Some(0), "{table:?}");
    assert!(table.stdout[0].contains("recommended"), "{table:?}");
    assert!(table.stdout.last().unwrap().starts_with("0 unsafe"), "{table:?}");
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
    folder.wait_until_unused();
}

#[tokio::test]
async fn doctor_exits_with_1_for_settings_that_lose_commits() {
    let folder = Folder::empty();
    // The servers of tests run without fsync.
    let server = PostgresServer::start(&folder).await;
    let url = server.url();
    server.execute("ALTER DATABASE passbook SET synchronous_commit = off", "postgres").await;
    let report = findings(Passbook::with_database(&url), 1);
    for name in ["fsync", "synchronous_commit"] {
        assert_eq!((of(&report, name, "value"), of(&report, name, "verdict")), ("off", "unsafe"), "{report}");
    }
    assert_eq!((&report["safe"], of(&report, "full_page_writes", "verdict")), (&false.into(), "good"));
    // Defaults of Postgres that are far from what Passbook recommends.
    for name in ["checkpoint_timeout", "wal_compression", "schema version"] {
        assert_eq!(of(&report, name, "verdict"), "remark", "{report}");
    }

    let table = doctor(Passbook::with_database(&url));
    assert_eq!(table.status.code(), Some(1), "{table:?}");
    assert!(table.stderr.contains("a crash can lose data: fsync, synchronous_commit"), "{table:?}");
}

#[tokio::test]
async fn doctor_reports_what_a_user_without_rights_lacks() {
    let folder = Folder::migrated();
    let _host = Passbook::in_folder(&folder).start();
    execute(&folder.database_url(), "CREATE ROLE stranger LOGIN").await;
    let url = folder.database_url().replace("passbook@", "stranger@");
    let report = findings(Passbook::with_database(&url), 0);
    assert_eq!(of(&report, "role", "verdict"), "remark");
    assert!(of(&report, "role", "why").contains("GRANT passbook_service TO stranger"), "{report}");
    // Only a superuser sees the data directory, and with it the disk.
    for name in ["schema version", "free disk", "clock"] {
        assert_eq!(of(&report, name, "verdict"), "unknown", "{report}");
    }
    assert_eq!(of(&report, "fsync", "verdict"), "good");
}

#[test]
fn doctor_does_not_initialize_an_empty_folder() {
    let folder = Folder::empty();
    let ended = doctor(Passbook::in_folder(&folder));
    assert!(ended.error_message().contains("no bank"), "{ended:?}");
    assert!(!folder.data().exists());
}

#[tokio::test]
async fn the_memory_of_a_new_embedded_postgres_follows_the_machine() {
    let folder = Folder::empty();
    let _service = Passbook::in_folder(&folder).start();
    let machine = Machine::of(std::process::id(), &folder.data());
    let recommended = tuning::recommended(&machine, true);
    let shared_buffers = recommended.iter().find(|setting| setting.name == "shared_buffers").unwrap();
    assert_eq!(setting(&folder, "shared_buffers").await, shared_buffers.value.to_string());
}

#[tokio::test]
async fn settings_of_alter_system_win_over_those_that_follow_the_machine() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    execute(&folder.database_url(), "ALTER SYSTEM SET max_wal_size = '77MB'").await;
    execute(&folder.database_url(), "ALTER SYSTEM SET port = 9999").await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));

    let service = Passbook::in_folder(&folder).start();
    let report = findings(Passbook::in_folder(&folder), 0);
    assert_eq!((of(&report, "max_wal_size", "value"), of(&report, "max_wal_size", "verdict")), ("77MB", "remark"));
    execute(&folder.database_url(), "ALTER SYSTEM RESET max_wal_size").await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));

    let _service = Passbook::in_folder(&folder).start();
    let report = findings(Passbook::in_folder(&folder), 0);
    assert_eq!(of(&report, "max_wal_size", "verdict"), "good", "{report}");
}
