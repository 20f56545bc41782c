//! A successful start: the service prints its address, uses its settings, and keeps data over a restart.

use std::{fs, path::PathBuf};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use passbook_database::Database;
use passbook_testkit::{folder::Folder, postgres_server::PostgresServer, process::Passbook, service_client::Deposit};
use sqlx::query_scalar;

fn ids(deposits: Vec<Deposit>) -> Vec<String> {
    deposits.into_iter().map(|deposit| deposit.event_id).collect()
}

#[tokio::test]
async fn serve_initializes_an_empty_folder_and_prints_its_address() {
    let folder = Folder::empty();
    let service = Passbook::in_folder(&folder).argument("serve").start();
    assert!(service.client.base_url().starts_with("http://127.0.0.1:"), "{}", service.client.base_url());
    service.client.wait_until_ready().await;
    let line = format!("listening on {}", service.client.base_url());
    assert_eq!(service.stop(Signal::SIGTERM).stdout, [line]);
}

#[tokio::test]
async fn serve_is_the_default_command() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    assert_eq!(service.stop(Signal::SIGINT).status.code(), Some(0));
}

#[tokio::test]
async fn standard_error_shows_the_addresses_and_the_data_folder() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    let (base, ended) = (service.client.base_url().to_owned(), service.stop(Signal::SIGTERM));
    for part in [format!("{base}/v1/accounts"), format!("{base}/swagger-ui/"), folder.data().display().to_string()] {
        assert!(ended.stderr.contains(&part), "{part} is missing: {}", ended.stderr);
    }
}

#[tokio::test]
async fn events_and_keys_survive_a_restart() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).start();
    service.client.open_account().await;
    let deposit = service.client.deposit_ok("before").await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
    folder.wait_until_unused();

    let service = Passbook::in_folder(&folder).start();
    assert_eq!(ids(service.client.deposits().await), std::slice::from_ref(&deposit));
    assert_eq!(service.client.deposit_ok("before").await, deposit, "the key is still recorded");
}

#[tokio::test]
async fn two_instances_on_one_postgres_share_one_log() {
    let folder = Folder::migrated();
    let first = Passbook::in_folder(&folder).start();
    let second = Passbook::with_database(&folder.database_url()).start();
    first.client.open_account().await;
    let mut paid = vec![];
    for key in 0..10 {
        let service = if key % 2 == 0 { &first } else { &second };
        paid.push(service.client.deposit_ok(&key.to_string()).await);
    }
    paid.reverse();
    assert_eq!(ids(second.client.deposits().await), paid);
    let ended = second.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    first.client.wait_until_ready().await;
}

#[tokio::test]
async fn with_auth_off_it_listens_on_every_address() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", "0.0.0.0:0").set("PASSBOOK_AUTH", "off").start();
    assert!(service.client.base_url().starts_with("http://0.0.0.0:"), "{}", service.client.base_url());
    service.client.wait_until_ready().await;
}

#[tokio::test]
async fn a_setting_can_be_given_as_a_flag() {
    let folder = Folder::migrated();
    let data = folder.data();
    let service = Passbook::without_settings().argument("serve").argument("--listen=127.0.0.1:0");
    let service = service.argument(&format!("--data-dir={}", data.display())).start();
    service.client.wait_until_ready().await;
}

#[tokio::test]
async fn a_postgres_below_the_data_folder_keeps_running() {
    let folder = Folder::empty();
    let other = PostgresServer::start(&folder).await;
    let data_dir = folder.data().parent().map(PathBuf::from).unwrap();
    let service = Passbook::in_folder(&folder).set("PASSBOOK_DATA_DIR", data_dir).start();
    service.client.open_account().await;
    assert!(other.query_bool("SELECT true").await);
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[tokio::test]
async fn postgres_does_not_get_the_secrets_of_the_environment() {
    let folder = Folder::migrated();
    let secrets = ["OTEL_EXPORTER_OTLP_HEADERS", "PGPASSWORD", "PASSBOOK_UNKNOWN_SECRET"];
    let service = Passbook::in_folder(&folder);
    let service = secrets.iter().fold(service, |service, name| service.set(name, "hunter2")).start();
    let environment = fs::read(format!("/proc/{}/environ", folder.postmaster())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("LC_ALL=C"), "{environment}");
    assert!(!environment.contains("hunter2"), "{environment}");
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[tokio::test]
async fn session_defaults_of_the_database_do_not_matter() {
    let folder = Folder::empty();
    let server = PostgresServer::start(&folder).await;
    for setting in [
        "default_transaction_isolation = 'repeatable read'",
        "synchronous_commit = off",
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'SQL, DMY'",
        "statement_timeout = '20ms'",
        "idle_session_timeout = '100ms'",
    ] {
        server.execute(&format!("ALTER DATABASE passbook SET {setting}"), "postgres").await;
    }
    let database = passbook_database::Settings { url: Some(server.url().into()), ..Default::default() };
    let database = Database::open(&database).await.unwrap();
    database.migrate().await.unwrap();
    for connector in [database.writer(), database.projector(), database.auditor(), database.feed(), database.relay()] {
        let mut connection = connector.connect().await.unwrap();
        let isolation = query_scalar("SELECT current_setting('default_transaction_isolation')");
        let isolation: String = isolation.fetch_one(&mut connection).await.unwrap();
        assert_eq!(isolation, "read committed");
    }
    let services = [(); 2].map(|()| Passbook::with_database(&server.url()).start());
    services[0].client.open_account().await;
    // Concurrent commands of two instances wait for the log-head lock.
    let commands = (0..100).map(|key: usize| {
        let client = &services[key % 2].client;
        async move { client.deposit_ok(&key.to_string()).await }
    });
    assert_eq!(join_all(commands).await.len(), 100);
    for service in services {
        assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
    }
}
