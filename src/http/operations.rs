//! For whoever runs the service: is it alive, is it ready, how far are the views.

use std::sync::atomic::Ordering;

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::view,
    openapi::{ListProblems, RebuildProblems, StatusProblems},
    parameters::{Nothing, Parameters},
    problem::{Code, Problem},
    queries::Freshness,
};
use passbook_auth::{Access, Caller, Scope};
use passbook_read_model::status::{Begun, ProjectionStatus};
use passbook_telemetry::metrics::METRICS;

/// The media type of Prometheus's text format.
pub(super) const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a view can be.
const STATES: [&str; 5] = ["building", "live", "stopped", "retired", "failed"];

/// A service that answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

/// How it is rebuilt.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RebuildQuery {
    /// Compare every row with the log before it goes live, in place of a sample of accounts.
    #[param(nullable = false)]
    verify: Option<bool>,
}

/// A rebuild that has begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct RebuildStarted {
    /// The view.
    #[schema(example = "accounts")]
    name: String,
    /// The generation that is being built.
    #[schema(example = 2)]
    generation: i16,
    /// `building`
    #[schema(example = "building")]
    state: &'static str,
}

/// All views.
#[derive(Debug, Serialize, ToSchema)]
pub struct Projections {
    /// One row a view and generation.
    data: Vec<ProjectionStatus>,
}

/// Is the process alive
///
/// Answers as long as the process can answer at all; says nothing of the database.
#[utoipa::path(get, path = "/livez", tag = "Service", responses((status = 200, description = "Alive.", body = Health)))]
pub async fn livez(_: Parameters<Nothing>) -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// Is the service ready
///
/// Answers 200 when commands and queries can be answered: the database is there with its schema, this release can read
/// the log, the executor and the projector run, and no view stands still. A view that is new to the log is not waited for:
/// until it has caught up, its own queries answer 503. Otherwise 503 with the reason.
#[utoipa::path(
    get, path = "/readyz", tag = "Service",
    responses((status = 200, description = "Ready.", body = Health), StatusProblems),
)]
pub async fn readyz(State(app): State<App>, _: Parameters<Nothing>) -> Result<Response, Problem> {
    if app.is_leaving.load(Ordering::Relaxed) {
        return Err(Problem::new(Code::Overloaded, "this instance is ending: ask another one"));
    }
    if let Some(outage) = app.bank.outage() {
        return Err(Problem::new(Code::StorageUnavailable, outage));
    }
    if let Access::Tokens(authority) = &app.access
        && !authority.has_keys()
    {
        return Err(Problem::new(Code::StorageUnavailable, "there are no keys to verify access tokens with yet"));
    }
    let unreachable = || Problem::new(Code::StorageUnavailable, "the database cannot be reached");
    let projections = app.read_model.probe().await.ok_or_else(unreachable)?;
    if !app.bank.is_running() {
        return Err(Problem::new(Code::StorageUnavailable, "the executor has ended"));
    }
    if !app.read_model.is_projecting() {
        return Err(Problem::new(Code::ProjectionBehind, "the projector has ended"));
    }
    if projections.is_empty() {
        return Err(Problem::new(Code::ProjectionBehind, "no view has been begun"));
    }
    // What is built or taken down beside live views disturbs nobody: a view that is new to a log answers for itself.
    let serves = projections.iter().any(|view| view.state == "live");
    match projections.iter().find(|view| view.state == "stopped" || !serves) {
        Some(waiting) => {
            let detail = format!("degraded: the view {} is {}; commands are carried out", waiting.name, waiting.state);
            Err(Problem::new(Code::ProjectionBehind, detail))
        }
        None => Ok(Json(Health { status: "ok" }).into_response()),
    }
}

/// What is measured
///
/// In Prometheus's text format, for its scraper.
#[utoipa::path(
    get, path = "/metrics", tag = "Service", security(("bearer" = ["operations"])),
    responses((status = 200, description = "Everything that is measured.", body = String, content_type = "text/plain"), StatusProblems),
)]
pub async fn metrics(State(app): State<App>, caller: Caller, _: Parameters<Nothing>) -> Result<Response, Problem> {
    caller.require(Scope::Operations)?;
    look(&app).await;
    Ok(([(header::CONTENT_TYPE, TEXT_0_0_4)], METRICS.text()).into_response())
}

/// What is not counted as it happens is looked at when it is asked for. Where the database is away, the lag stays what it was
/// and the heartbeat tells.
async fn look(app: &App) {
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

/// List projections
///
/// How far each view has read, measured against the log's head.
#[utoipa::path(
    get, path = "/v1/projections", tag = "Service", security(("bearer" = ["operations"])), params(Freshness),
    responses(
        (status = 200, description = "All views.", body = Projections, headers(
            ("Passbook-Position" = String, description = "How far the view that is furthest behind has read."),
        )),
        ListProblems,
    ),
)]
pub async fn list_projections(
    State(app): State<App>,
    caller: Caller,
    Parameters(query): Parameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::Operations)?;
    let minimum = query.min_position()?;
    Ok(view(app.read_model.projections(minimum.as_ref()).await?.map(|data| Projections { data })))
}

/// Rebuild a projection
///
/// Builds the view's next generation from the log beside the live one, checks it and lets it take over, while reads and
/// writes go on. Follow it in `GET /v1/projections`. A view is rebuilt once at a time.
#[utoipa::path(
    post, path = "/v1/projections/{name}/rebuild", tag = "Service", security(("bearer" = ["operations"])),
    params(
        ("name" = String, Path, description = "The view.", example = "accounts"),
        RebuildQuery,
    ),
    responses((status = 202, description = "It is being built.", body = RebuildStarted), RebuildProblems),
)]
pub async fn rebuild(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Parameters(query): Parameters<RebuildQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Operations)?;
    let check_all = query.verify.unwrap_or(false);
    match app.read_model.rebuild(&name, check_all).await? {
        Some(Begun::Started(generation)) => {
            Ok((StatusCode::ACCEPTED, Json(RebuildStarted { name, generation, state: "building" })).into_response())
        }
        Some(Begun::Running) => Err(Problem::new(
            Code::RebuildRunning,
            format!("{name} is being rebuilt already: GET /v1/projections tells how far it is"),
        )),
        None => Err(Problem::new(Code::NotFound, format!("there is no projection {name:?}"))),
    }
}
