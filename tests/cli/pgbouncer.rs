//! PgBouncer between the service and Postgres. It may refuse startup options, or ignore them: the settings of the login role then
//! take their place.

use passbook_testkit::{
    eventually, folder::Folder, pgbouncer::PgBouncer, postgres_server::PostgresServer, process::Passbook,
};
use serde_json::{Value, json};

const SESSION_POOLING: &str = "pool_mode = session";
const IGNORED: &str = "ignore_startup_parameters = extra_float_digits,options";
/// The statements that docs/operations.md names.
const SETTINGS: [&str; 4] = [
    "role = 'passbook_service'",
    "synchronous_commit = 'on'",
    "lock_timeout = '2s'",
    "idle_in_transaction_session_timeout = '2s'",
];

/// A migrated server with a login role for the service, whose commits are asynchronous by default.
async fn server(folder: &Folder) -> PostgresServer {
    let server = PostgresServer::start(folder).await;
    let migrated = Passbook::with_database(&server.url()).argument("migrate").wait_for_exit();
    assert_eq!(migrated.status.code(), Some(0), "{migrated:?}");
    server.execute("CREATE ROLE bank LOGIN", "passbook").await;
    server.execute("GRANT passbook_service TO bank", "passbook").await;
    server.execute("ALTER DATABASE passbook SET synchronous_commit = off", "passbook").await;
    server
}

async fn set_all(server: &PostgresServer) {
    for setting in SETTINGS {
        server.execute(&format!("ALTER ROLE bank SET {setting}"), "passbook").await;
    }
}

#[track_caller]
fn assert_refused(pooler: &PgBouncer, parts: &[&str]) {
    let ended = Passbook::with_database(&pooler.url()).wait_for_exit();
    let message = ended.error_message();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
}

#[tokio::test]
async fn with_the_settings_of_its_role_a_service_works_behind_pgbouncer() {
    let folder = Folder::empty();
    let server = server(&folder).await;
    set_all(&server).await;
    let pooler = PgBouncer::start(&folder, &server, "bank", &[SESSION_POOLING, IGNORED]);
    for round in 0..2 {
        let services = [(); 2].map(|()| Passbook::with_database(&pooler.url()).start());
        if round == 0 {
            services[0].client.open_account().await;
        }
        for key in 0..10 {
            services[key % 2].client.deposit_with_retry(&format!("{round}-{key}")).await;
        }
        let events = 1 + 10 * (round + 1);
        assert!(server.query_bool(&format!("SELECT position = {events} FROM log_head")).await);
        let rebuilt =
            services[0].client.post("/v1/projections/accounts/rebuild", &format!("rebuild-{round}"), &json!({})).await;
        assert_eq!(rebuilt.unwrap().status(), 202);
        let generation = round + 2;
        eventually("the rebuilt view", async || {
            let views: Value = services[0].client.get("/v1/projections").await.json().await.ok()?;
            let is_live = |view: &Value| {
                view["name"] == "accounts" && view["generation"] == generation && view["state"] == "live"
            };
            views["data"].as_array()?.iter().any(is_live).then_some(())
        })
        .await;
    }
    let verified = Passbook::with_database(&pooler.url()).argument("verify").wait_for_exit();
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

#[tokio::test]
async fn each_lost_setting_is_refused_with_the_statement_that_sets_it() {
    let folder = Folder::empty();
    let server = server(&folder).await;
    for (setting, lost) in SETTINGS.into_iter().zip([
        "role is \"bank\" instead of \"passbook_service\"",
        "synchronous_commit is \"off\" instead of \"on\"",
        "lock_timeout is \"0\" instead of \"2s\"",
        "idle_in_transaction_session_timeout is \"0\" instead of \"2s\"",
    ]) {
        set_all(&server).await;
        let (name, _) = setting.split_once(' ').unwrap();
        server.execute(&format!("ALTER ROLE bank RESET {name}"), "passbook").await;
        let pooler = PgBouncer::start(&folder, &server, "bank", &[SESSION_POOLING, IGNORED]);
        assert_refused(&pooler, &[lost, &format!("ALTER ROLE bank SET {setting};"), "docs/operations.md"]);
    }
}

#[tokio::test]
async fn each_error_of_pgbouncer_is_a_sentence() {
    let folder = Folder::empty();
    let server = server(&folder).await;
    set_all(&server).await;
    let sentence = "set `ignore_startup_parameters = extra_float_digits,options` in pgbouncer.ini";
    let pooler = PgBouncer::start(&folder, &server, "bank", &[SESSION_POOLING]);
    assert_refused(&pooler, &["the startup parameter extra_float_digits", sentence]);
    let ignored = "ignore_startup_parameters = extra_float_digits";
    let pooler = PgBouncer::start(&folder, &server, "bank", &[SESSION_POOLING, ignored]);
    assert_refused(&pooler, &["the startup parameter options", sentence]);
    // Before version 1.21 PgBouncer does not keep the prepared statements of clients apart.
    let pooler = PgBouncer::start(&folder, &server, "bank", &["pool_mode = transaction", IGNORED]);
    assert_refused(&pooler, &["prepared statements", "pool_mode = session", "max_prepared_statements"]);
}
