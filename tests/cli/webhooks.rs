//! Webhooks of the real binary: instances that are killed, TLS, and signatures that the libraries of others verify.

use std::{
    collections::HashMap,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap};
use nix::sys::signal::Signal;
use passbook_testkit::{
    Rng, WAIT_S_MAX,
    folder::Folder,
    postgres_server::PostgresServer,
    process::{Passbook, Running},
    repository_root,
    service_client::Client,
    tls::Identity,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

/// The kills of `make test`. `PASSBOOK_TEST_WEBHOOK_KILLS` chooses another number.
const KILLS: u64 = 10;
const KEY: &str = "dGhlIGZpcnN0IGtleSBvZiB0aGVzZSB0ZXN0cyEhISE=\n";

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// An endpoint that accepts everything, and its URL.
async fn receiver() -> (String, Received) {
    let received = Received::default();
    let accept = async |State(received): State<Received>, headers: HeaderMap, body: Bytes| {
        received.lock().unwrap().push((headers, body));
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let router = Router::new().fallback(accept).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

async fn wait_until(what: &str, is_reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    while !is_reached() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn register(client: &Client, url: &str) -> Value {
    let body = json!({"url": url, "after": "0"});
    let http = passbook_testkit::http_client().build().unwrap();
    let response = http.post(format!("{}/v1/webhooks", client.base_url())).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201, "{:?}", response.text().await);
    response.json().await.unwrap()
}

/// An instance whose pauses and leases are a fifth of those of a service.
fn start(database_url: &str, key_file: &Path) -> Running {
    Passbook::with_database(database_url)
        .set("PASSBOOK_KEY_FILE", key_file)
        .set("PASSBOOK_WEBHOOKS_ALLOW_PRIVATE", "true")
        .set("PASSBOOK_TEST_WEBHOOK_TIME_DIVISOR", "5")
        .start()
}

fn key_file(folder: &Folder) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("wrapping.key");
    fs::write(&path, KEY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_instances_skip_no_event_and_keep_the_order_of_each_account() {
    let kills = env::var("PASSBOOK_TEST_WEBHOOK_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let folder = Folder::empty();
    let postgres = PostgresServer::start(&folder).await;
    let key_file = key_file(&folder);
    let (url, received) = receiver().await;
    let mut instances = vec![start(&postgres.url(), &key_file), start(&postgres.url(), &key_file)];
    register(&instances[0].client, &url).await;
    let mut accounts = Vec::new();
    for index in 0..3 {
        let opened =
            instances[0].client.post("/v1/accounts", &format!("open-{index}"), &json!({"currency": "EUR"})).await;
        accounts.push(opened.unwrap().json::<Value>().await.unwrap()["account_id"].as_str().unwrap().to_owned());
    }
    let mut rng = Rng::new(7);
    let mut sent: HashMap<String, i64> = accounts.iter().map(|account| (account.clone(), 1)).collect();
    for kill in 0..kills {
        let victim = usize::from(rng.below(2) == 1);
        let other = instances[1 - victim].client.clone();
        for number in 0..30 {
            let account = &accounts[number % accounts.len()];
            let path = format!("/v1/accounts/{account}/deposits");
            let deposited = other.post(&path, &format!("{kill}-{number}"), &json!({"amount": 1})).await.unwrap();
            assert_eq!(deposited.status(), 201);
            *sent.get_mut(account).unwrap() += 1;
            if number == 15 {
                sleep(Duration::from_millis(rng.below(300))).await;
                instances[victim].process.signal(Signal::SIGKILL);
            }
        }
        instances.remove(victim).process.wait_for_exit();
        instances.insert(victim, start(&postgres.url(), &key_file));
    }
    let versions = |account: &str| {
        let mut versions: Vec<i64> = Vec::new();
        for (_, body) in &*received.lock().unwrap() {
            let event: Value = serde_json::from_slice(body).unwrap();
            let version = event["version"].as_i64().unwrap();
            if event["aggregate_id"] == account && !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    };
    for account in &accounts {
        wait_until("every event of an account", || versions(account).len() as i64 == sent[account]).await;
        assert_eq!(versions(account), (1..=sent[account]).collect::<Vec<_>>(), "in order, none skipped");
    }
    for instance in instances {
        assert_eq!(instance.stop(Signal::SIGTERM).status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_sent_by_https_only_to_a_trusted_endpoint() {
    let identity = Identity::self_signed();
    let (url, received) = receiver().await;
    let address = url["http://".len()..].split('/').next().unwrap().parse().unwrap();
    let secured = format!("https://localhost:{}/hooks", identity.proxy_to(address).await.port());
    let folder = Folder::migrated();
    let start = |is_trusted: bool| {
        let service = Passbook::in_folder(&folder)
            .set("PASSBOOK_WEBHOOKS_ALLOW_PRIVATE", "true")
            .set("PASSBOOK_TEST_WEBHOOK_TIME_DIVISOR", "10");
        match is_trusted {
            true => service.set("SSL_CERT_FILE", identity.certificate()).start(),
            false => service.start(),
        }
    };
    let service = start(false);
    let id = register(&service.client, &secured).await["webhook_id"].as_str().unwrap().to_owned();
    service.client.open_account().await;
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    let refused = loop {
        let webhook: Value = service.client.get(&format!("/v1/webhooks/{id}")).await.json().await.unwrap();
        if let Some(error) = webhook["last_error"].as_str() {
            break error.to_owned();
        }
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(20)).await;
    };
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
    assert_eq!(received.lock().unwrap().len(), 0);
    let service = start(true);
    wait_until("both events", || received.lock().unwrap().len() >= 2).await;
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

/// The folder in which `scripts/install-deps --test` installs the libraries.
fn tools() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from)
}

fn verify(program: &Path, arguments: &[&Path]) -> Value {
    let output = Command::new(program).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {} ({error}): run `scripts/install-deps --test`", program.display())
    });
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_of_others_verify_the_signature() {
    let folder = Folder::migrated();
    let (url, received) = receiver().await;
    let service = Passbook::in_folder(&folder).set("PASSBOOK_WEBHOOKS_ALLOW_PRIVATE", "true").start();
    let registered = register(&service.client, &url).await;
    let body = json!({"account_id": uuid::Uuid::now_v7(), "currency": "EUR", "metadata": {"Zoë": "\"Café\" €"}});
    assert_eq!(service.client.post("/v1/accounts", "open", &body).await.unwrap().status(), 201);
    let opened = || {
        received.lock().unwrap().iter().find(|(_, body)| body.starts_with(b"{") && find(body, "AccountOpened")).cloned()
    };
    wait_until("the opening", || opened().is_some()).await;
    let (headers, body) = opened().unwrap();
    let headers: HashMap<&str, &str> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let text = std::str::from_utf8(&body).unwrap();
    let delivery = folder.join("delivery.json");
    let written = json!({"secret": registered["secret"], "headers": headers, "body": text});
    fs::write(&delivery, written.to_string()).unwrap();
    let event: Value = serde_json::from_slice(&body).unwrap();
    let scripts = repository_root().join("tests/webhooks");
    assert_eq!(verify(&tools().join("standardwebhooks/bin/python"), &[&scripts.join("verify.py"), &delivery]), event);
    // Node finds packages beside the script.
    let script = folder.join("verify.mjs");
    fs::copy(scripts.join("verify.mjs"), &script).unwrap();
    symlink(tools().join("clients/node_modules"), folder.join("node_modules")).unwrap();
    assert_eq!(verify(Path::new("node"), &[&script, &delivery]), event);
    assert_eq!(service.stop(Signal::SIGTERM).status.code(), Some(0));
}

fn find(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}
