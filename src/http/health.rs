//! The probes: `/livez` for the process, `/readyz` for everything that requests need.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error_code::ErrorCode,
    extract::parameters::{NoParameters, QueryParameters},
    problem::Problem,
    state::AppState,
};
use passbook_auth::Access;
use passbook_read_model::status::ProjectionStatus;
use passbook_telemetry::supervision;

/// A service that answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

/// Check liveness
///
/// Answers 200 while the process can answer at all. It does not check the database.
#[utoipa::path(get, path = "/livez", tag = "Service", responses((status = 200, description = "Alive.", body = Health)))]
pub async fn get_liveness(_: QueryParameters<NoParameters>) -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// Check readiness
///
/// Answers 200 if commands and queries can be answered: the database executes the statements of queries, this release can read the
/// log, the executor and the projector run, and no view is stopped. Otherwise 503 with the reason. A view that is new to the log
/// does not delay readiness: until it has caught up, its own queries answer 503.
#[utoipa::path(
    get, path = "/readyz", tag = "Service",
    responses((status = 200, description = "Ready.", body = Health)),
)]
pub async fn get_readiness(State(app): State<AppState>, _: QueryParameters<NoParameters>) -> Result<Response, Problem> {
    if let Some(failed) = supervision::failure() {
        let detail = format!("The background task `{}` has failed. This instance exits.", failed.name);
        return Err(Problem::new(ErrorCode::StorageUnavailable, detail));
    }
    check_commands(&app)?;
    let projections = app.read_model.readiness_snapshot().await;
    let projections = projections.map_err(|failure| Problem::new(ErrorCode::StorageUnavailable, failure.sentence()))?;
    check_tasks(&app)?;
    check_views(&projections)?;
    Ok(Json(Health { status: "ok" }).into_response())
}

fn check_commands(app: &AppState) -> Result<(), Problem> {
    if app.draining.is_cancelled() {
        let detail = "This instance is shutting down. Send the request to another instance.";
        return Err(Problem::new(ErrorCode::Overloaded, detail));
    }
    if let Some(outage) = app.bank.outage() {
        let code = if app.bank.is_clock_skewed() { ErrorCode::ClockSkewed } else { ErrorCode::StorageUnavailable };
        return Err(Problem::new(code, outage));
    }
    match &app.access {
        Access::Tokens(verifier) if !verifier.has_keys() => {
            let detail = "There are no keys that verify access tokens.";
            Err(Problem::new(ErrorCode::StorageUnavailable, detail))
        }
        Access::Tokens(_) | Access::Loopback | Access::Off => Ok(()),
    }
}

fn check_tasks(app: &AppState) -> Result<(), Problem> {
    if !app.bank.is_running() {
        return Err(Problem::new(ErrorCode::StorageUnavailable, "The executor has ended. Restart this instance."));
    }
    if !app.read_model.is_projecting() {
        return Err(Problem::new(ErrorCode::ProjectionBehind, "The projector has ended. Restart this instance."));
    }
    Ok(())
}

/// Views that are built or retired beside live views do not matter: a view that is new to the log answers its own queries 503.
fn check_views(projections: &[ProjectionStatus]) -> Result<(), Problem> {
    if projections.is_empty() {
        return Err(Problem::new(ErrorCode::ProjectionBehind, "No view has been registered yet."));
    }
    let has_live_view = projections.iter().any(|view| view.state == "live");
    match projections.iter().find(|view| view.state == "stopped" || !has_live_view) {
        Some(view) => {
            // Load balancers match the first word (`ops/haproxy.cfg`): they keep a degraded instance.
            let detail = format!("degraded: The view {} is {}. Commands are still executed.", view.name, view.state);
            Err(Problem::new(ErrorCode::ProjectionBehind, detail))
        }
        None => Ok(()),
    }
}
