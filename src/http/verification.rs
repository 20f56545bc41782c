//! The hash chain: the head of the log, and the verification of one account.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error_code::ErrorCode,
    extract::parameters::{NoParameters, PathId, QueryParameters},
    problem::Problem,
    state::AppState,
};
use passbook_audit::{LogHead, Verification};
use passbook_auth::{Caller, Scope};

/// The heads of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogHeads {
    /// One row per partition.
    data: Vec<LogHead>,
}

/// Verify an account
///
/// Recomputes the account's hashes in the hash chain, and compares its view with the fold of its events at the same moment. An
/// account with a million events takes a few seconds.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/verification", tag = "Audit", security(("bearer" = ["audit:read"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001")),
    responses((status = 200, description = "The findings.", body = Verification)),
)]
pub async fn verify_account(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    _: QueryParameters<NoParameters>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let verification = app.audit.verify_account(account_id).await?;
    Ok(Json(verification.ok_or(Problem::from_code(ErrorCode::AccountNotFound))?).into_response())
}

/// Get the head of the log
///
/// The position and hash of the last event of each partition. Store them outside of the database:
/// `passbook verify --expect-head <position>-<hash>` proves later that the log still contains the same events up to this position.
#[utoipa::path(
    get, path = "/v1/log/head", tag = "Audit", security(("bearer" = ["audit:read"])),
    responses((status = 200, description = "The head of each partition.", body = LogHeads)),
)]
pub async fn get_log_head(
    State(app): State<AppState>,
    caller: Caller,
    _: QueryParameters<NoParameters>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    Ok(Json(LogHeads { data: app.audit.heads().await? }).into_response())
}
