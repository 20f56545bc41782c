//! What every request gets, and what whoever runs the service sees of it: health, ids, forms, and limits under load.

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use passbook::http::{self, Server, serve};
use passbook_audit::{Audit, Trail, feed::Feed};
use passbook_auth::Access;
use passbook_bank::{AccountAccess, Bank, CommandContext, Error, QUEUE_COMMANDS_MAX, Settings};
use passbook_database::Database;
use passbook_domain::{Action, Amount, Command, command::Movement};
use passbook_read_model::{Progress, ReadModel, Source};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use uuid::Uuid;

use crate::support::{
    ApiClient, App, Response, eventually,
    log::Event,
    response::{is_id, is_time},
    spawn_app, spawn_app_with, spawn_auth_app,
};

/// Reads the path until the response has this status.
async fn get_until(status: u16, client: &ApiClient, path: &str) -> Response {
    eventually(&format!("{status} of {path}"), async || {
        let response = client.get(path).await;
        (response.status == status).then_some(response)
    })
    .await
}

#[tokio::test]
async fn running_service_is_alive_and_becomes_ready() {
    let app = spawn_app().await;
    assert_eq!(app.client().get("/livez").await.expect(200).body, json!({"status": "ok"}));
    let ready = get_until(200, &app.client(), "/readyz").await;
    assert_eq!(ready.body, json!({"status": "ok"}));
}

#[tokio::test]
async fn service_is_unready_while_a_view_is_stopped() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    get_until(200, &client, "/readyz").await;
    app.sabotage("ALTER TABLE account_transaction RENAME TO elsewhere").await;
    client.deposit(account, 1).await.expect(201);
    let waiting = get_until(503, &client, "/readyz").await.expect_problem(503, "projection_behind");
    assert!(waiting.text("/detail").contains("is stopped"), "{}", waiting.body);
    client.get("/livez").await.expect(200);
    app.sabotage("ALTER TABLE elsewhere RENAME TO account_transaction").await;
    get_until(200, &client, "/readyz").await;
}

#[tokio::test]
async fn service_without_database_is_alive_and_unready() {
    let app = spawn_app().await;
    get_until(200, &app.client(), "/readyz").await;
    app.sabotage(
        "BEGIN;
         UPDATE pg_database SET datallowconn = false WHERE datname = current_database();
         COMMIT;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
    for _ in 0..3 {
        app.client().get("/readyz").await.expect_problem(503, "storage_unavailable");
        app.client().get("/livez").await.expect(200);
    }
}

#[tokio::test]
async fn valid_request_id_is_returned_and_others_are_replaced() {
    let app = spawn_app().await;
    let sent = |id: &str| app.client().with_header("x-request-id", id);
    for valid in ["17", "a/b?c=\"d\"", &"i".repeat(128)] {
        assert_eq!(sent(valid).get("/livez").await.header("x-request-id"), Some(valid));
        assert_eq!(sent(valid).get("/nowhere").await.expect_problem(404, "not_found").body["request_id"], valid);
    }
    for invalid in ["", "a b", "clé", &"i".repeat(129)] {
        let response = sent(invalid).get("/livez").await.expect(200);
        assert!(is_id(&json!(response.header("x-request-id"))), "{invalid}: {:?}", response.headers);
    }
    let made = [app.client().get("/livez").await, app.client().get("/livez").await];
    assert_ne!(made[0].header("x-request-id"), made[1].header("x-request-id"));
}

fn metadata(event: &Event) -> Value {
    serde_json::from_str(&event.metadata).unwrap()
}

#[tokio::test]
async fn event_metadata_names_user_request_and_command() {
    let app = spawn_app().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let opened = app.log().await.events.iter().map(metadata).collect::<Vec<_>>();
    client.with_header("x-request-id", "visit-17").transfer(from, to, 5).await.expect(201);
    let another = client.with_header("x-request-id", "\"invalid id\"").deposit(to, 5).await.expect(201);
    let events = app.log().await.events;
    let [sent, received, deposited] = [2, 3, 4].map(|index| metadata(&events[index]));
    let cause = &sent["causation_id"];
    assert!(is_id(cause), "{sent}");
    assert_eq!(sent, json!({"user_id": "anonymous", "correlation_id": "visit-17", "causation_id": cause}));
    assert_eq!(received, sent, "both events have the metadata of one command");
    assert_eq!(deposited["correlation_id"].as_str(), another.header("x-request-id"));
    assert!(is_id(&deposited["correlation_id"]), "{deposited}");
    for other in opened.iter().chain([&deposited]) {
        assert_ne!(other["causation_id"], *cause);
    }
}

#[tokio::test]
async fn response_is_compressed_if_the_client_accepts_gzip() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(10).await;
    let path = format!("/v1/accounts/{account}");
    let plain = app.client().get(&format!("{path}?min_position=1")).await.expect(200);
    assert_eq!(plain.header("content-encoding"), None);
    let packed = app.client().with_header("accept-encoding", "gzip").get(&path).await.expect(200);
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), (Some("gzip"), Some("accept-encoding")));
    assert_eq!(packed.bytes[..2], [0x1f, 0x8b]);
    // The default client of reqwest asks for gzip and decompresses the body.
    let unpacked = ApiClient::new(reqwest::Client::new(), app.url()).get(&path).await.expect(200);
    assert_eq!(unpacked.body, plain.body);
    let unasked = app.client().with_header("accept-encoding", "identity").get(&path).await.expect(200);
    assert_eq!((unasked.header("content-encoding"), &unasked.bytes), (None, &plain.bytes));
}

#[tokio::test]
async fn responses_have_no_cors_headers() {
    let auth = spawn_auth_app().await;
    let other_origin = auth.customer("ada").with_header("origin", "https://elsewhere.example");
    let preflight = other_origin.with_header("access-control-request-method", "POST");
    for response in [
        other_origin.get("/v1/accounts").await.expect(200),
        other_origin.open(json!({"currency": "EUR"})).await.expect(201),
        other_origin.get("/nowhere").await.expect(404),
        preflight.send(Method::OPTIONS, "/v1/accounts", "").await.expect(405),
    ] {
        let cors_header = response.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors_header, None);
    }
}

/// Asserts that a 5xx response contains no word about the service's internals.
#[track_caller]
fn assert_reveals_nothing(response: Response, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&response.expect_problem(status, code).bytes).to_lowercase();
    let internals = ["sql", "select", "relation", "constraint", "table", "event", "column", "elsewhere", "unheard"];
    for word in internals.into_iter().chain(["postgres", "passbook", ".rs", "/tmp", "src/", "panic"]) {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn server_errors_reveal_no_internals() {
    let mut app = spawn_app().await;
    let account = app.client().open_with_balance(10).await;
    app.client().get_account(account, "1").await.expect(200);

    app.sabotage("ALTER TABLE account_view RENAME TO elsewhere").await;
    assert_reveals_nothing(app.client().get("/v1/accounts").await, 503, "storage_unavailable");
    app.sabotage("ALTER TABLE projection RENAME TO elsewhere_too").await;
    assert_reveals_nothing(app.client().get("/readyz").await, 503, "storage_unavailable");

    app.sabotage("ALTER TABLE event ADD CONSTRAINT elsewhere CHECK (type <> 'MoneyDeposited')").await;
    assert_reveals_nothing(app.client().deposit(account, 1).await, 500, "internal_error");

    app.tamper("UPDATE event SET type = 'Unheard'").await;
    app.restart().await;
    assert_reveals_nothing(app.client().withdraw(account, 1).await, 500, "internal_error");

    app.sabotage("ALTER TABLE event RENAME TO elsewhere_as_well").await;
    assert_reveals_nothing(app.client().open(json!({"currency": "EUR"})).await, 503, "storage_unavailable");
}

#[tokio::test]
async fn openapi_document_and_swagger_ui_are_served() {
    let app = spawn_app().await;
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    let committed: Value = serde_json::from_str(&fs::read_to_string(committed).unwrap()).unwrap();
    assert_eq!(app.client().get("/openapi.json").await.expect(200).body, committed);
    for path in ["/swagger-ui", "/swagger-ui/"] {
        let shown = app.client().get(path).await.expect(200);
        assert!(shown.header("content-type").unwrap().starts_with("text/html"), "{:?}", shown.headers);
        assert!(String::from_utf8(shown.bytes).unwrap().contains("swagger-ui"));
    }
}

#[tokio::test]
async fn times_always_have_six_fractional_digits() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    client.get_account(account, "1").await.expect(200);
    app.sabotage(
        "UPDATE account_view SET opened_at = '2026-01-31T12:00:00Z', last_activity_at = '2026-01-31T12:00:00.5Z'",
    )
    .await;
    app.sabotage("UPDATE account_transaction SET recorded_at = '2026-01-31T13:00:00+01:00'").await;
    let seen = client.get(&format!("/v1/accounts/{account}")).await.expect(200).body;
    assert_eq!(seen["opened_at"], "2026-01-31T12:00:00.000000Z");
    assert_eq!(seen["last_activity_at"], "2026-01-31T12:00:00.500000Z");
    assert!(is_time(&seen["opened_at"]) && seen["closed_at"].is_null());
    let listed = client.get(&format!("/v1/accounts/{account}/transactions")).await.expect(200);
    assert_eq!(listed.data()[0]["recorded_at"], "2026-01-31T12:00:00.000000Z");
}

/// Opens an account and retries until the outcome is known.
async fn open_with_retries(client: &ApiClient) -> Uuid {
    let keyed = client.with_key("open");
    retry_until_known(async || keyed.open(json!({"currency": "EUR"})).await).await.account_id()
}

/// Repeats a command with an idempotency key until its outcome is known.
async fn retry_until_known(send: impl AsyncFn() -> Response) -> Response {
    eventually("a known outcome", async || Some(send().await).filter(|response| response.status != 503)).await
}

#[tokio::test]
async fn timed_out_command_can_be_resolved_by_its_key() {
    let app = spawn_app_with(&["--command-timeout-ms=300"]).await;
    let account = open_with_retries(&app.client()).await;
    let log_head_lock = app.lock_log_heads().await;
    let keyed = app.client().with_key("deposit");
    keyed.deposit(account, 5).await.expect_problem(503, "outcome_unknown");
    assert_eq!(app.log().await.head.position, 1);
    drop(log_head_lock);
    let resolved = retry_until_known(async || keyed.deposit(account, 5).await).await;
    assert_eq!((resolved.status, &resolved.body["balance"]), (201, &json!(5)));
    assert_eq!(app.log().await.head.position, 2);
}

/// Starts an HTTP server on the database of `app` and returns its `Bank`, so that the test can send commands without HTTP.
async fn serve_with_bank(app: &App) -> (Server, ApiClient, Bank) {
    let database = Database::open(&app.config().database()).await.unwrap();
    let partitions = app.partitions();
    let settings =
        Settings { partitions, command_timeout: Duration::from_secs(10), snapshot_every: 100, cache_accounts: 100 };
    let (bank, _) = Bank::start(settings, database.writer(), Arc::default(), Arc::new(watch::Sender::new(None)));
    let queries = database.queries();
    let progress = |_| Progress { projected: watch::channel(0).1, awaited: Arc::default() };
    let read_model = ReadModel::new(
        Source::new(queries.clone(), None, partitions),
        partitions,
        partitions.all().map(progress).collect(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let appended = partitions.all().map(|_| watch::channel(0).1).collect();
    let feed = Feed::new(Trail::new(database.trail(), partitions), partitions, database.feed(), appended);
    let audit = Audit::new(queries, partitions);
    let server = serve(listener, http::Rooms::new(bank.clone(), read_model, audit, feed, Access::Off));
    (server, ApiClient::new(reqwest::Client::new(), url), bank)
}

/// Sends a deposit to the bank without HTTP.
async fn deposit(bank: &Bank, account_id: Uuid) -> Result<passbook_bank::CommandOutcome, Error> {
    let amount = Amount::try_from(1).unwrap();
    let action = Action::Deposit(Movement { amount, currency: None, reference: None }, None);
    let context = CommandContext {
        caller: Arc::from("direct"),
        access: AccountAccess::Any,
        correlation_id: Arc::from("direct"),
        causation_id: Uuid::now_v7(),
        idempotency_key: None,
        if_match: None,
        dry_run: false,
    };
    bank.execute(Command::Account { account_id, action }, context).await
}

#[tokio::test]
async fn full_queue_refuses_commands_at_once() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let (server, client, bank) = serve_with_bank(&app).await;
    let log_head_lock = app.lock_log_heads().await;
    let fill_queue = async {
        app.wait_for_blocked_writer().await;
        let queued = join_all((0..QUEUE_COMMANDS_MAX).map(|_| deposit(&bank, account)));
        let refused = async {
            client.deposit(account, 1).await.expect_problem(503, "overloaded");
            drop(log_head_lock);
        };
        tokio::join!(queued, refused).0
    };
    let (first, queued) = tokio::join!(deposit(&bank, account), fill_queue);
    assert!(first.is_ok() && queued.iter().all(Result::is_ok));
    let last = client.deposit(account, 1).await.expect(201);
    assert_eq!(last.body["balance"], 1 + QUEUE_COMMANDS_MAX + 1);
    server.stop().await;
}
