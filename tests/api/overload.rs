//! Commands that wait too long or find a full queue: the response says whether anything was done.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use passbook::http::{AppState, Services, TrustedProxies, serve};
use passbook_audit::{Audit, EventReader, feed::Feed};
use passbook_auth::Access;
use passbook_bank::{AccountAccess, Bank, CommandContext, Error, QUEUE_COMMANDS_MAX, Settings};
use passbook_checkpoint::Checkpoints;
use passbook_database::Database;
use passbook_domain::{AccountCommand, Amount, Command, Metadata, command::Movement};
use passbook_keys::{Keys, Unavailable};
use passbook_read_model::{Progress, QueryRouter, ReadModel};
use passbook_testkit::{ApiClient, App, Response, eventually, spawn_app, spawn_app_with};
use passbook_webhooks::{SystemLookUp, Targets, Timing, Webhooks};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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

/// Starts an HTTP server on the database of `app` and returns its `Bank`, so that the test can send commands without
/// HTTP.
async fn serve_with_bank(app: &App, shutdown: CancellationToken) -> (JoinHandle<()>, ApiClient, Bank) {
    let database = Database::open(&app.config().database()).await.unwrap();
    let partitions = app.partitions();
    let settings = Settings {
        partitions,
        is_distributed: false,
        command_timeout: Duration::from_secs(10),
        snapshot_every: 100,
        cache_accounts: 100,
        clock_skew_max: Duration::from_secs(5),
    };
    let unsupported_event = Arc::new(watch::Sender::new(None));
    let (bank, _) =
        Bank::start(settings, database.writer(), Arc::default(), unsupported_event, CancellationToken::new());
    let queries = database.queries();
    let progress = |_| Progress { projected: watch::channel(0).1, reader_waiting: Arc::default() };
    let read_model = ReadModel::new(
        QueryRouter::new(queries.clone(), None, partitions),
        partitions,
        partitions.all().map(progress).collect(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let appended = partitions.all().map(|_| watch::channel(0).1).collect();
    let reader = EventReader::new(database.log_pages(partitions), database.feed(), partitions);
    let keys = Keys::Unavailable(Unavailable::NotNamed { is_recorded: false });
    let (webhooks, _) = Webhooks::new(passbook_webhooks::Settings {
        partitions,
        writer: database.writer(),
        pool: database.webhooks(partitions),
        reader: reader.clone(),
        keys: keys.clone(),
        targets: Targets::new(Arc::new(SystemLookUp), false),
        timing: Timing::default(),
    });
    let feed = Feed::new(reader, database.feed(), appended, shutdown.clone());
    let audit = Audit::new(queries, partitions);
    let services = Services {
        bank: bank.clone(),
        read_model,
        audit,
        feed,
        checkpoints: Checkpoints::new(database.log_pages(partitions), partitions, keys.clone()),
        keys,
        webhooks,
        access: Access::Off,
        sign_in: None,
        rate_limiter: None,
        trusted_proxies: TrustedProxies::default(),
        idle_timeout: Duration::from_secs(75),
        draining: CancellationToken::new(),
        shutdown: CancellationToken::new(),
    };
    let server = tokio::spawn(serve(listener, AppState::new(services), shutdown));
    (server, ApiClient::new(passbook_testkit::http_client().build().unwrap(), url), bank)
}

/// Sends a deposit to the bank without HTTP.
async fn deposit(bank: &Bank, account_id: Uuid) -> Result<passbook_bank::CommandOutcome, Error> {
    let amount = Amount::try_from(1).unwrap();
    let command = AccountCommand::Deposit(
        Movement { amount, currency: None, reference: None, metadata: Metadata::default() },
        None,
    );
    let context = CommandContext {
        caller: Arc::from("direct"),
        access: AccountAccess::Any,
        visibility: AccountAccess::Any,
        correlation_id: Arc::from("direct"),
        causation_id: Uuid::now_v7(),
        idempotency_key: None,
        if_match: None,
        dry_run: false,
        batch_id: None,
    };
    bank.execute(Command::Account { account_id, command }, context).await
}

#[tokio::test]
async fn full_queue_refuses_commands_at_once() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let shutdown = CancellationToken::new();
    let (server, client, bank) = serve_with_bank(&app, shutdown.clone()).await;
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
    shutdown.cancel();
    server.await.unwrap();
}
