//! A bank on cqrs-es and postgres-es, for the benchmark. It implements the part of Passbook's HTTP API that these crates
//! support, and is built like their own demo.

mod account;

use std::collections::HashMap;
use std::env;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use cqrs_es::AggregateError;
use cqrs_es::persist::{GenericQuery, PersistenceError, ViewRepository};
use postgres_es::{
    PostgresCqrs, PostgresViewRepository, postgres_aggregate_cqrs, postgres_cqrs, postgres_snapshot_cqrs,
};
use serde::Deserialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::account::{Account, AccountView, Command, Rejection};

// The same allocator as Passbook's, so that the allocator does not affect the comparison.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TABLES: &str = include_str!("tables.sql");
/// The fastest of the crate's three stores.
const DEFAULT_STORE: &str = "aggregates";
const SNAPSHOT_EVERY_EVENTS: usize = 100;
const CONNECTIONS_MAX: u32 = 20;

type Views = PostgresViewRepository<AccountView, Account>;

#[derive(Clone)]
struct Bank {
    cqrs: Arc<PostgresCqrs<Account>>,
    views: Arc<Views>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("PEER_DATABASE_URL").context("PEER_DATABASE_URL is not set")?;
    let listen = env::var("PEER_LISTEN").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let store = env::var("PEER_STORE").unwrap_or_else(|_| DEFAULT_STORE.to_owned());
    let pool = pool(&url).await.context("cannot connect to the database")?;
    sqlx::raw_sql(TABLES).execute(&pool).await.context("cannot create the tables")?;
    let bank = Bank::new(&pool, &store)?;

    let shutdown = shutdown_signal()?;
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router(bank)).with_graceful_shutdown(shutdown).await?;
    pool.close().await;
    Ok(())
}

/// A pool that is faster than `default_postgress_pool`. 20 connections instead of 10 gave about 6 % more deposits. A command
/// acquires four connections one after another, and the default pool tests each of them first: four more round trips.
async fn pool(url: &str) -> sqlx::Result<PgPool> {
    PgPoolOptions::new().max_connections(CONNECTIONS_MAX).test_before_acquire(false).connect(url).await
}

fn router(bank: Bank) -> Router {
    Router::new()
        .route("/v1/accounts", post(open))
        .route("/v1/accounts/{account_id}", get(view))
        .route("/v1/accounts/{account_id}/deposits", post(deposit))
        .route("/v1/accounts/{account_id}/withdrawals", post(withdraw))
        .route("/livez", get(|| async {}))
        .with_state(bank)
}

#[derive(Deserialize)]
struct Opening {
    account_id: String,
    currency: String,
    #[serde(default)]
    initial_deposit: u64,
}

#[derive(Deserialize)]
struct Movement {
    amount: u64,
}

async fn open(State(bank): State<Bank>, Json(body): Json<Opening>) -> Result<StatusCode, Refusal> {
    let Opening { account_id, currency, initial_deposit } = body;
    bank.execute(&account_id, Command::Open { currency, initial_deposit }).await
}

async fn deposit(
    State(bank): State<Bank>,
    Path(account_id): Path<String>,
    Json(Movement { amount }): Json<Movement>,
) -> Result<StatusCode, Refusal> {
    bank.execute(&account_id, Command::Deposit { amount }).await
}

async fn withdraw(
    State(bank): State<Bank>,
    Path(account_id): Path<String>,
    Json(Movement { amount }): Json<Movement>,
) -> Result<StatusCode, Refusal> {
    bank.execute(&account_id, Command::Withdraw { amount }).await
}

async fn view(State(bank): State<Bank>, Path(account_id): Path<String>) -> Result<Json<AccountView>, Refusal> {
    let view = bank.views.load(&account_id).await?;
    Ok(Json(view.ok_or(AggregateError::UserError(Rejection::AccountNotFound))?))
}

impl Bank {
    fn new(pool: &PgPool, store: &str) -> Result<Self> {
        let views = Arc::new(Views::new("account_view", pool.clone()));
        let mut query = GenericQuery::new(Arc::clone(&views));
        query.use_error_handler(Box::new(|error| eprintln!("cannot update the view: {error}")));
        let (pool, queries) = (pool.clone(), vec![Box::new(query) as _]);
        let cqrs = match store {
            "events" => postgres_cqrs(pool, queries, ()),
            "snapshots" => postgres_snapshot_cqrs(pool, queries, SNAPSHOT_EVERY_EVENTS, ()),
            "aggregates" => postgres_aggregate_cqrs(pool, queries, ()),
            other => bail!("PEER_STORE must be events, snapshots or aggregates, but is {other}"),
        };
        Ok(Self { cqrs: Arc::new(cqrs), views })
    }

    async fn execute(&self, account_id: &str, command: Command) -> Result<StatusCode, Refusal> {
        let time = chrono::Utc::now().to_rfc3339();
        let metadata = HashMap::from([("time".to_owned(), time)]);
        self.cqrs.execute_with_metadata(account_id, command, metadata).await?;
        Ok(StatusCode::CREATED)
    }
}

struct Refusal(AggregateError<Rejection>);

impl From<AggregateError<Rejection>> for Refusal {
    fn from(error: AggregateError<Rejection>) -> Self {
        Self(error)
    }
}

impl From<PersistenceError> for Refusal {
    fn from(error: PersistenceError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            AggregateError::UserError(Rejection::AccountNotFound) => StatusCode::NOT_FOUND,
            AggregateError::UserError(Rejection::AccountExists) | AggregateError::AggregateConflict => {
                StatusCode::CONFLICT
            }
            AggregateError::UserError(
                Rejection::InvalidAmount | Rejection::InsufficientFunds | Rejection::BalanceLimitExceeded,
            ) => StatusCode::UNPROCESSABLE_ENTITY,
            AggregateError::DatabaseConnectionError(error)
            | AggregateError::DeserializationError(error)
            | AggregateError::UnexpectedError(error) => {
                eprintln!("a request failed: {error}");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        (status, self.0.to_string()).into_response()
    }
}

/// Completes on SIGINT or SIGTERM.
fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
