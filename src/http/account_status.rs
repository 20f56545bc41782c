//! The commands that change an account's status: freeze, unfreeze and close.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    extract::{
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        parameters::{PathId, text},
    },
    problem::Problem,
    response::ok_receipt,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{AccountAccess, AccountReceipt};
use passbook_domain::AccountCommand;

/// The reason for a change of the account's status.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeAccountStatus)]
pub struct Reason {
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "lost card", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

/// Freeze an account
///
/// Blocks all movements of money until the account is unfrozen.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/freeze", tag = "Commands", security(("bearer" = ["accounts:freeze"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = Reason, example = json!({"reason": "lost card"})),
    responses(
        (status = 200, description = "The account was frozen.", body = AccountReceipt),
    ),
)]
pub async fn freeze_account(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<Reason>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsFreeze)?;
    let request = request.with_access(AccountAccess::Any);
    change_status(&app, account_id, request, |reason| AccountCommand::Freeze { reason }).await
}

/// Unfreeze an account
///
/// Allows movements of money again.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/unfreeze", tag = "Commands", security(("bearer" = ["accounts:freeze"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = Reason, example = json!({"reason": "card found"})),
    responses(
        (status = 200, description = "The account was unfrozen.", body = AccountReceipt),
    ),
)]
pub async fn unfreeze_account(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<Reason>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsFreeze)?;
    let request = request.with_access(AccountAccess::Any);
    change_status(&app, account_id, request, |reason| AccountCommand::Unfreeze { reason }).await
}

/// Close an account
///
/// Closes an open account with balance 0 permanently.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/close", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000003"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = Reason, example = json!({"reason": "requested by the owner"})),
    responses(
        (status = 200, description = "The account was closed.", body = AccountReceipt),
    ),
)]
pub async fn close_account(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<Reason>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    change_status(&app, account_id, request, |reason| AccountCommand::Close { reason }).await
}

async fn change_status(
    app: &AppState,
    account_id: Uuid,
    request: CommandRequest<Reason>,
    make_command: impl FnOnce(Option<String>) -> AccountCommand,
) -> Result<Response, Problem> {
    let make_command = |body: Reason| Ok(make_command(text("reason", body.reason)?));
    let outcome = request.execute_on(&app.bank, account_id, make_command).await?;
    Ok(ok_receipt(&outcome))
}
