//! A background task that panics: `/readyz` answers 503, and the process exits with an error so that it is started again.

use std::{fs, time::Duration};

use jsonwebtoken::Algorithm;
use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    postgres_server::PostgresServer,
    process::Passbook,
    tokens::{AUDIENCE, Signer, claims},
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The service with a panic in the task of this name.
fn with_panic_in(task: &str, service: Passbook) -> Passbook {
    service.set("PASSBOOK_TEST_PANIC_TASK", task).set("PASSBOOK_SHUTDOWN_DELAY_MS", "0")
}

#[tokio::test]
async fn service_exits_with_an_error_after_a_panic_in_any_task() {
    let folder = Folder::empty();
    let server = PostgresServer::start(&folder).await;
    let url = server.url();
    let serve = |database: &str| Passbook::with_database(database);
    assert_eq!(serve(&url).argument("migrate").wait_for_exit().status.code(), Some(0));
    let two_servers = format!("{url},{url}");
    let services = [
        ("executor", serve(&url)),
        ("projector", serve(&url)),
        ("rebuilder", serve(&url)),
        ("key deletion", serve(&url)),
        ("hold expiry", serve(&url)),
        ("http server", serve(&url)),
        ("account loader", serve(&url)),
        ("replica monitor", serve(&url).set("PASSBOOK_READ_DATABASE_URL", &url)),
        ("primary watch", serve(&two_servers)),
        ("pool retarget", serve(&two_servers)),
    ];
    for (task, service) in services {
        let ended = with_panic_in(task, service).wait_for_exit();
        assert_eq!(ended.status.code(), Some(1), "{task}: {ended:?}");
        let message = format!("the background task `{task}` ended unexpectedly");
        assert!(ended.stderr.contains(&message), "{task}: {ended:?}");
    }
}

#[tokio::test]
async fn a_retention_of_0_days_starts_no_deletion_of_keys() {
    let folder = Folder::migrated();
    let service = with_panic_in("key deletion", Passbook::in_folder(&folder));
    let service = service.set("PASSBOOK_IDEMPOTENCY_RETENTION_DAYS", "0").start();
    service.client.wait_until_ready().await;
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("injected panic"), "the task that would panic is not started: {ended:?}");
}

#[tokio::test]
async fn readiness_reports_a_panic_in_the_event_feed_until_the_exit() {
    let folder = Folder::migrated();
    let service = with_panic_in("event feed", Passbook::in_folder(&folder));
    let service = service.set("PASSBOOK_SHUTDOWN_DELAY_MS", "60000").start();
    service.client.wait_until_ready().await;
    let _stream = service.client.get("/v1/events/stream").await;
    let mut ready = service.client.get("/readyz").await;
    while ready.status() == 200 {
        sleep(Duration::from_millis(10)).await;
        ready = service.client.get("/readyz").await;
    }
    let problem = ready.text().await.unwrap();
    assert!(problem.contains("`event feed` has failed"), "{problem}");
    // A signal ends the delay.
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    folder.wait_until_unused();
}

#[tokio::test]
async fn a_panic_in_the_refresh_of_token_keys_ends_the_service() {
    let folder = Folder::migrated();
    let [known, unknown] = ["known", "unknown"].map(|id| Signer::new(id, Algorithm::ES256));
    let keys = folder.join("keys.json");
    fs::write(&keys, json!({"keys": [known.jwk()]}).to_string()).unwrap();
    let service = with_panic_in("key refresh", Passbook::in_folder(&folder));
    let service = service.set("PASSBOOK_AUTH_JWKS_FILE", &keys).set("PASSBOOK_AUTH_AUDIENCE", AUDIENCE).start();
    let token = unknown.sign(&claims("ada", "accounts:read"));
    let request = reqwest::Client::new().get(format!("{}/v1/accounts", service.client.base_url())).bearer_auth(token);
    assert_eq!(request.send().await.unwrap().status(), 401);
    let ended = service.process.wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    folder.wait_until_unused();
}

/// A service with one token key, and a panic in the task of this name.
fn with_access_control_and_panic_in(task: &str, folder: &Folder) -> Passbook {
    let keys = folder.join("keys.json");
    fs::write(&keys, json!({"keys": [Signer::new("known", Algorithm::ES256).jwk()]}).to_string()).unwrap();
    with_panic_in(task, Passbook::in_folder(folder))
        .set("PASSBOOK_AUTH_JWKS_FILE", &keys)
        .set("PASSBOOK_AUTH_AUDIENCE", AUDIENCE)
}

#[tokio::test]
async fn a_panic_in_the_timer_of_the_key_refresh_ends_the_service() {
    let folder = Folder::migrated();
    let ended = with_access_control_and_panic_in("key refresh timer", &folder).wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("`key refresh timer` ended unexpectedly"), "{ended:?}");
    folder.wait_until_unused();
}

#[tokio::test]
async fn a_panic_in_the_denial_log_ends_the_service() {
    let folder = Folder::migrated();
    let service = with_access_control_and_panic_in("denial log", &folder).start();
    assert_eq!(service.client.get("/v1/accounts").await.status(), 401);
    let ended = service.process.wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("`denial log` ended unexpectedly"), "{ended:?}");
    folder.wait_until_unused();
}

#[tokio::test]
async fn a_panic_in_a_connection_is_logged_and_ends_only_this_connection() {
    let folder = Folder::migrated();
    let service = with_panic_in("http connection", Passbook::in_folder(&folder));
    let service = service.set("PASSBOOK_LOG_FORMAT", "json").start();
    for _ in 0..2 {
        let url = format!("{}/livez", service.client.base_url());
        assert!(passbook_testkit::http_client().build().unwrap().get(url).send().await.is_err());
    }
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let lines = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let logged: Vec<Value> = lines.filter(|line| line["message"] == "connection panicked").collect();
    // The HTTP client may retry on a second connection.
    assert!(logged.len() >= 2, "{ended:?}");
    assert!(logged.iter().all(|line| line["level"] == "ERROR" && line["panic"] == "injected panic"), "{logged:?}");
}

#[tokio::test]
async fn a_panic_in_the_supervisor_of_postgres_ends_the_service() {
    let folder = Folder::migrated();
    let service = with_panic_in("pg-supervisor", Passbook::in_folder(&folder));
    let ended = match service.try_start() {
        Ok(service) => service.process.wait_for_exit(),
        Err(process) => process.wait_for_exit(),
    };
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    folder.wait_until_unused();
    let service = Passbook::in_folder(&folder).start();
    service.client.wait_until_ready().await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}
