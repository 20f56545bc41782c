//! Questions about the log itself: where it ends, and whether an account's part of it is whole.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    openapi::{QueryProblems, StatusProblems},
    parameters::{Id, Nothing, Parameters},
    problem::{Code, Problem},
};
use passbook_audit::{LogHead, Verification};
use passbook_auth::{Caller, Scope};

/// Where the log ends.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogHeads {
    /// One row a partition.
    data: Vec<LogHead>,
}

/// Verify an account
///
/// Recomputes the account's links in the hash chain and compares its view with the fold of its events, all at one
/// moment. An account with a million events takes some seconds.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/verification", tag = "Audit", security(("bearer" = ["audit:read"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001")),
    responses((status = 200, description = "What was found.", body = Verification), QueryProblems),
)]
pub async fn verify_account(
    State(app): State<App>,
    caller: Caller,
    Id(account_id): Id,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let verification = app.audit.account(account_id).await?;
    Ok(Json(verification.ok_or(Problem::of(Code::AccountNotFound))?).into_response())
}

/// Read the log's head
///
/// The last event's position and hash, of each partition. Write them down somewhere else: `passbook verify --witness <position>-<hash>`
/// proves later that the log still contains what stood there then.
#[utoipa::path(
    get, path = "/v1/log/head", tag = "Audit", security(("bearer" = ["audit:read"])),
    responses((status = 200, description = "Where each partition's log ends.", body = LogHeads), StatusProblems),
)]
pub async fn log_head(State(app): State<App>, caller: Caller, _: Parameters<Nothing>) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    Ok(Json(LogHeads { data: app.audit.heads().await? }).into_response())
}
