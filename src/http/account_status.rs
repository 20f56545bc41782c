//! The commands that change an account's status: freeze, unfreeze and close.

use axum::{extract::State, response::Response};

use super::{
    commands::{ApiCommand, accounts::Reason, execute},
    extract::{
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        parameters::PathId,
    },
    problem::Problem,
    state::AppState,
};
use passbook_auth::Caller;
use passbook_bank::AccountReceipt;

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
    execute(&app.bank, &caller, request, |body| ApiCommand::Freeze(account_id, body)).await
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
    execute(&app.bank, &caller, request, |body| ApiCommand::Unfreeze(account_id, body)).await
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
    execute(&app.bank, &caller, request, |body| ApiCommand::Close(account_id, body)).await
}
