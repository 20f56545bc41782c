//! Access control as the operator configures it: development tokens, contradictory settings, the log lines of refused
//! requests, and secrets that must not appear in any output.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
};

use nix::sys::signal::Signal;
use passbook_testkit::{
    folder::Folder,
    process::{Passbook, Running},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Creates a token with `passbook token`, signed by the folder's development key.
#[track_caller]
pub fn create_token(folder: &Folder, subject: &str, scope: &str) -> String {
    let command = Passbook::in_folder(folder).argument("token").argument("--sub").argument(subject);
    let ended = command.argument("--scope").argument(scope).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let jwks = folder.data().join("development.jwks.json");
    assert!(ended.stderr.contains(&format!("PASSBOOK_AUTH_JWKS_FILE={}", jwks.display())), "{ended:?}");
    ended.stdout[0].clone()
}

/// A service that accepts the tokens of [`create_token`].
pub fn with_access_control(folder: &Folder) -> Passbook {
    Passbook::in_folder(folder).set("PASSBOOK_AUTH_JWKS_FILE", folder.data().join("development.jwks.json"))
}

async fn send(service: &Running, method: Method, path: &str, token: &str, body: &Value) -> StatusCode {
    let http = passbook_testkit::http_client().build().unwrap();
    let request = http.request(method, format!("{}{path}", service.client.base_url())).bearer_auth(token).json(body);
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_service_accepts_tokens_of_its_folders_development_key() {
    let folder = Folder::empty();
    let alice = create_token(&folder, "alice", "accounts:read accounts:write");
    let key = folder.data().join("development.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let key_bytes = fs::read(&key).unwrap();
    let service = with_access_control(&folder).set("PASSBOOK_LISTEN", "0.0.0.0:0").start();
    let euros = json!({"currency": "EUR"});
    assert_eq!(send(&service, Method::POST, "/v1/accounts", &alice, &euros).await, 201);
    assert_eq!(send(&service, Method::POST, "/v1/accounts", "nonsense", &euros).await, 401);
    assert_eq!(service.client.get("/v1/accounts").await.status(), 401);
    // A second token does not replace the key.
    let ben = create_token(&folder, "ben", "accounts:read");
    assert_eq!(fs::read(&key).unwrap(), key_bytes);
    assert_eq!(send(&service, Method::GET, "/v1/accounts", &ben, &json!(null)).await, 200);
    assert_eq!(send(&service, Method::POST, "/v1/accounts", &ben, &euros).await, 403);
}

#[test]
fn token_refuses_an_unknown_scope_and_an_invalid_key_file() {
    let folder = Folder::empty();
    let ended = Passbook::in_folder(&folder)
        .argument("token")
        .argument("--sub=a")
        .argument("--scope=accounts:reed")
        .wait_for_exit();
    assert!(
        ended.error_message().contains("accounts:reed") && ended.error_message().contains("accounts:read:any"),
        "{ended:?}"
    );
    assert!(!folder.data().exists());
    let other = folder.join("other.key");
    fs::write(&other, "not a key").unwrap();
    let key = format!("--key={}", other.display());
    let ended = Passbook::in_folder(&folder).argument("token").argument("--sub=a").argument(&key).wait_for_exit();
    assert!(ended.error_message().contains("--key"), "{ended:?}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "not a key");
}

#[tokio::test]
async fn every_refusal_is_logged_with_caller_path_and_reason_but_no_token() {
    let folder = Folder::migrated();
    let [alice, ben] = ["alice", "ben"].map(|subject| create_token(&folder, subject, "accounts:read accounts:write"));
    let service = with_access_control(&folder).set("PASSBOOK_LOG_FORMAT", "json").set("PASSBOOK_LOG", "trace").start();
    let http = passbook_testkit::http_client().build().unwrap();
    let opened = http.post(format!("{}/v1/accounts", service.client.base_url())).bearer_auth(&alice);
    let opened: Value = opened.json(&json!({"currency": "EUR"})).send().await.unwrap().json().await.unwrap();
    let account = format!("/v1/accounts/{}", opened["account_id"].as_str().unwrap());
    let read = format!("{account}?min_position={}", opened["position"].as_str().unwrap());
    let deposits = format!("{account}/deposits");
    let (message, _) = ben.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", "A".repeat(86));

    assert_eq!(service.client.get("/v1/accounts").await.status(), 401);
    assert_eq!(send(&service, Method::GET, "/v1/accounts", &forged, &json!(null)).await, 401);
    assert_eq!(send(&service, Method::GET, "/v1/events", &ben, &json!(null)).await, 403);
    assert_eq!(send(&service, Method::GET, &read, &ben, &json!(null)).await, 404);
    assert_eq!(send(&service, Method::POST, &deposits, &ben, &json!({"amount": 1})).await, 404);
    assert_eq!(send(&service, Method::GET, "/nowhere", &ben, &json!(null)).await, 404);

    let stderr = service.stop(Signal::SIGTERM).stderr;
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused: Vec<Value> = lines.filter(|line| line["message"] == "access denied").collect();
    let logged: Vec<_> = refused
        .iter()
        .map(|line| ["caller", "method", "path", "reason"].map(|field| line[field].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ["unknown", "GET", "/v1/accounts", "The request has no bearer token."],
        [
            "unknown",
            "GET",
            "/v1/accounts",
            "The access token is invalid: the token's signature does not match its key.",
        ],
        ["ben", "GET", "/v1/events", "The token lacks the scope audit:read."],
        ["ben", "GET", &account, "the account belongs to another owner"],
        ["ben", "POST", &deposits, "the account belongs to another owner"],
    ];
    assert_eq!(logged, expected, "{refused:?}");
    assert!(refused.iter().all(|line| line["request_id"].is_string() && line["level"] == "WARN"), "{refused:?}");
    assert!(refused.iter().all(|line| line["address"] == "127.0.0.1"), "{refused:?}");
    for token in [&alice, &ben, &forged] {
        for part in token.split('.').skip(1) {
            assert!(!stderr.contains(part), "a part of a token was logged");
        }
    }
}

#[test]
fn contradictory_settings_are_refused_with_one_sentence() {
    let folder = Folder::empty();
    let ended = Passbook::in_folder(&folder)
        .set("PASSBOOK_AUTH", "off")
        .set("PASSBOOK_AUTH_JWKS_FILE", "/nowhere")
        .wait_for_exit();
    assert!(ended.error_message().contains("PASSBOOK_AUTH=off"), "{ended:?}");
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_AUTH_ISSUER", "https://id.example").wait_for_exit();
    assert!(ended.error_message().contains("PASSBOOK_AUTH_AUDIENCE"), "{ended:?}");
    let ended = Passbook::in_folder(&folder).set("PASSBOOK_AUTH_JWKS_FILE", folder.join("none")).wait_for_exit();
    assert!(ended.error_message().contains(folder.join("none").to_str().unwrap()), "{ended:?}");
    assert!(!folder.data().exists(), "Postgres was started");
}

#[test]
fn a_trusted_proxy_that_is_not_a_network_is_refused() {
    let folder = Folder::empty();
    let ended =
        Passbook::in_folder(&folder).set("PASSBOOK_TRUSTED_PROXIES", "10.0.0.0/8,proxy.example").wait_for_exit();
    assert!(ended.status.code() == Some(2) && ended.stderr.contains("proxy.example"), "{ended:?}");
}

/// SIGABRT makes the kernel write a core dump unless the process has disabled it.
#[tokio::test]
async fn an_aborted_process_writes_no_core_dump() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).with_core_dumps().start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.process.id())).unwrap_or_default();
    if let Some(limit) = limits.lines().find(|line| line.starts_with("Max core file size")) {
        assert_eq!(limit.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{limit}");
    }
    let ended = service.stop(Signal::SIGABRT);
    assert_eq!(ended.status.signal(), Some(Signal::SIGABRT as i32), "{ended:?}");
    assert!(!ended.status.core_dumped(), "{ended:?}");
}

#[tokio::test]
async fn a_service_without_access_control_prints_a_warning() {
    let folder = Folder::migrated();
    let ended = Passbook::in_folder(&folder).start().stop(Signal::SIGTERM);
    assert!(ended.stderr.contains("access control is off"), "{}", ended.stderr);
    assert!(ended.stderr.contains("OFF: every program on this machine has every permission"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_database_url_is_read_from_a_file_and_its_password_not_printed() {
    let folder = Folder::migrated();
    let first = Passbook::in_folder(&folder).start();
    let file = folder.join("url");
    fs::write(&file, format!("{}\n", folder.database_url())).unwrap();
    let second = Passbook::without_settings()
        .set("PASSBOOK_DATABASE_URL_FILE", &file)
        .set("PASSBOOK_LISTEN", "127.0.0.1:0")
        .start();
    second.client.wait_until_ready().await;
    drop((second, first));

    fs::write(&file, "postgres://teller:hunter2@127.0.0.1:1/bank").unwrap();
    let ended = Passbook::without_settings()
        .set("PASSBOOK_DATABASE_URL_FILE", &file)
        .set("PASSBOOK_LOG", "trace")
        .argument("migrate")
        .wait_for_exit();
    assert!(ended.error_message().contains("cannot be reached") && !ended.stderr.contains("hunter2"), "{ended:?}");
    let ended = Passbook::with_database("postgres:///bank")
        .set("PASSBOOK_DATABASE_URL_FILE", &file)
        .argument("migrate")
        .wait_for_exit();
    assert!(ended.error_message().contains("PASSBOOK_DATABASE_URL_FILE"), "{ended:?}");
    let ended = Passbook::without_settings()
        .set("PASSBOOK_DATABASE_URL_FILE", folder.join("none"))
        .argument("migrate")
        .wait_for_exit();
    assert!(ended.error_message().contains("PASSBOOK_DATABASE_URL_FILE"), "{ended:?}");
}

#[tokio::test]
async fn a_repeated_refusal_gets_few_lines_with_its_count() {
    const REFUSALS: u64 = 300;
    let folder = Folder::migrated();
    create_token(&folder, "alice", "accounts:read");
    let service = with_access_control(&folder).set("PASSBOOK_LOG_FORMAT", "json").start();
    for _ in 0..REFUSALS {
        assert_eq!(service.client.get("/v1/accounts").await.status(), 401);
    }
    // The end of the service does not wait for the pause between two lines.
    let stderr = service.stop(Signal::SIGTERM).stderr;
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused: Vec<Value> = lines.filter(|line| line["message"] == "access denied").collect();
    let repeated: u64 = refused.iter().map(|line| line["repeated"].as_u64().unwrap()).sum();
    // Each refusal is counted: the first with its own line, the others as repetitions.
    let first = refused.iter().filter(|line| line["repeated"] == 0).count() as u64;
    assert_eq!(first + repeated, REFUSALS, "{refused:?}");
    assert!(refused.len() < 20, "{} lines", refused.len());
}
