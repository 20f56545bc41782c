//! Metrics in the text format of Prometheus: of the service, and of a process without an API such as the relay.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::FutureExt;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::{
    connection::{ACCEPT_RETRY_MS, ConnectionContext, HEADER_READ_MS_MAX, connection_service, http1, run_connection},
    connection_timeouts::{ReadLimits, TimedStream},
    extract::{
        client_ip::PeerAddr,
        parameters::{NoParameters, QueryParameters},
    },
    middleware::response_budget::ResponseBudget,
    problem::Problem,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_telemetry::metrics::METRICS;

/// The media type of the text format.
const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The states of a view.
const STATES: [&str; 5] = ["building", "live", "stopped", "retired", "failed"];
/// How long a connection of a process without an API may be idle, in milliseconds: longer than the interval of a scraper.
const IDLE_MS_MAX: u64 = 75_000;
/// The most connections of a process without an API. Further ones are closed at once.
const CONNECTIONS_MAX: usize = 16;

/// Get the metrics
///
/// All metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "Service", security(("bearer" = ["operations"])),
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")),
)]
pub async fn get_metrics(
    State(app): State<AppState>,
    caller: Caller,
    _: QueryParameters<NoParameters>,
) -> Result<Response, Problem> {
    caller.require(Scope::Operations)?;
    collect_gauges(&app).await;
    Ok(([(header::CONTENT_TYPE, TEXT_0_0_4)], METRICS.text()).into_response())
}

/// Sets the gauges that are read on request. While the database is unavailable, the lag keeps its last value, and the projector's
/// heartbeat shows the outage.
async fn collect_gauges(app: &AppState) {
    METRICS.queued_commands.set(app.bank.waiting() as i64);
    let (idle, used) = app.read_model.connections();
    METRICS.pool_connections.with_label_values(&["idle"]).set(idle);
    METRICS.pool_connections.with_label_values(&["used"]).set(used);
    let Ok(projections) = app.read_model.projections(None).await else { return };
    for state in STATES {
        let count = projections.value.iter().filter(|view| view.state == state).count();
        METRICS.projections.with_label_values(&[state]).set(count as i64);
    }
    for view in projections.value.iter().filter(|view| view.state == "live" || view.state == "stopped") {
        METRICS.projection_lag_events.with_label_values(&[&view.name]).set(view.lag_events);
        METRICS.projection_lag_seconds.with_label_values(&[&view.name]).set(view.lag_seconds);
    }
}

/// Serves `GET /metrics` on `listener` until the future is dropped, for a process without an API.
pub async fn serve_metrics(listener: TcpListener) {
    let metrics = get(async || ([(header::CONTENT_TYPE, TEXT_0_0_4)], METRICS.text()));
    let router = Router::new().route("/metrics", metrics);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let budget = ResponseBudget::new();
    let limits =
        ReadLimits { idle: Duration::from_millis(IDLE_MS_MAX), headers: Duration::from_millis(HEADER_READ_MS_MAX) };
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let context = ConnectionContext::new(PeerAddr(peer), budget.for_connection());
        let stream = TokioIo::new(TimedStream::new(stream, context.phase.clone(), context.budget.clone(), limits));
        let connection = http1().serve_connection(stream, connection_service(router.clone(), context));
        tokio::spawn(async move {
            // A connection error concerns only its client.
            run_connection(connection.map(drop)).await;
            drop(slot);
        });
    }
}
