//! The projections of the read model: their progress, and their rebuilds.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error_code::ErrorCode,
    extract::parameters::{Freshness, PathText, QueryParameters},
    problem::Problem,
    response::json_view,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::status::{ProjectionStatus, RebuildStart};

/// The query parameters of a rebuild.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RebuildQuery {
    /// Compare every row with the log before the new generation goes live, instead of a sample of accounts.
    #[param(nullable = false)]
    verify: Option<bool>,
}

/// A rebuild that has started.
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

/// All projections.
#[derive(Debug, Serialize, ToSchema)]
pub struct Projections {
    /// One row per view and generation.
    data: Vec<ProjectionStatus>,
}

/// List projections
///
/// How far each view has read, measured against the head of the log.
#[utoipa::path(
    get, path = "/v1/projections", tag = "Service", security(("bearer" = ["operations"])), params(Freshness),
    responses(
        (status = 200, description = "All projections.", body = Projections),
    ),
)]
pub async fn list_projections(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::Operations)?;
    let minimum = query.min_position()?;
    Ok(json_view(app.read_model.projections(minimum.as_ref()).await?.map(|data| Projections { data })))
}

/// Rebuild a projection
///
/// Builds the next generation of the view from the log beside the live one, checks it, and makes it live. Reads and writes
/// continue meanwhile. `GET /v1/projections` shows the progress. A projection has at most one rebuild at a time.
#[utoipa::path(
    post, path = "/v1/projections/{name}/rebuild", tag = "Service", security(("bearer" = ["operations"])),
    params(
        ("name" = String, Path, description = "The name of the projection.", example = "accounts"),
        RebuildQuery,
    ),
    responses((status = 202, description = "The rebuild has started.", body = RebuildStarted)),
)]
pub async fn rebuild_projection(
    State(app): State<AppState>,
    caller: Caller,
    PathText(name): PathText,
    QueryParameters(query): QueryParameters<RebuildQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Operations)?;
    let verify_all = query.verify.unwrap_or(false);
    match app.read_model.rebuild(&name, verify_all).await? {
        Some(RebuildStart::Started(generation)) => {
            Ok((StatusCode::ACCEPTED, Json(RebuildStarted { name, generation, state: "building" })).into_response())
        }
        Some(RebuildStart::AlreadyRunning) => Err(rebuild_running(&name)),
        None => Err(Problem::new(ErrorCode::NotFound, format!("No projection has the name {name:?}."))),
    }
}

fn rebuild_running(name: &str) -> Problem {
    let detail = format!("The projection {name} is already being rebuilt. GET /v1/projections shows the progress.");
    Problem::new(ErrorCode::RebuildRunning, detail)
}
