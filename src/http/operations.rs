//! For whoever runs the service: is it alive, is it ready, how far are the views.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    openapi::StatusProblems,
    problem::{Code, Problem},
};
use crate::read_model::status::ProjectionStatus;

/// A service that answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
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
pub async fn livez() -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// Is the service ready
///
/// Answers 200 when commands and queries can be answered: the database is there with its schema, the executor and the
/// projector run, and every view has caught up once. Otherwise 503 with the reason.
#[utoipa::path(
    get, path = "/readyz", tag = "Service",
    responses((status = 200, description = "Ready.", body = Health), StatusProblems),
)]
pub async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    if let Some(outage) = app.bank.outage() {
        return Err(Problem::new(Code::StorageUnavailable, outage));
    }
    let projections = app.read_model.projections().await?;
    if !app.bank.is_running() {
        return Err(Problem::new(Code::StorageUnavailable, "the executor has ended"));
    }
    if !app.read_model.is_projecting() {
        return Err(Problem::new(Code::ProjectionBehind, "the projector has ended"));
    }
    match projections.iter().find(|projection| projection.state != "live") {
        Some(waiting) => {
            let detail = format!("degraded: the view {} is {}; commands are carried out", waiting.name, waiting.state);
            Err(Problem::new(Code::ProjectionBehind, detail))
        }
        None => Ok(Json(Health { status: "ok" }).into_response()),
    }
}

/// List projections
///
/// How far each view has read, measured against the log's head.
#[utoipa::path(
    get, path = "/v1/projections", tag = "Service",
    responses((status = 200, description = "All views.", body = Projections), StatusProblems),
)]
pub async fn list_projections(State(app): State<App>) -> Result<Response, Problem> {
    let data = app.read_model.projections().await?;
    Ok(Json(Projections { data }).into_response())
}
