//! Deposits and withdrawals of an account.

use axum::{extract::State, response::Response};

use super::{
    commands::{ApiCommand, execute, movements::MoveMoney},
    extract::{
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        parameters::PathId,
    },
    problem::Problem,
    state::AppState,
};
use passbook_auth::Caller;
use passbook_bank::AccountReceipt;

/// Deposit money
///
/// Pays money into an open account.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/deposits", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = MoveMoney, example = json!({"amount": 5000, "currency": "EUR", "reference": "salary", "channel": "branch", "metadata": {"payroll": "2026-01"}})),
    responses(
        (status = 201, description = "The deposit was recorded.", body = AccountReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = AccountReceipt),
    ),
)]
pub async fn create_deposit(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<MoveMoney>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::Deposit(account_id, body)).await
}

/// Withdraw money
///
/// Pays money out of an open account, at most what is `available`: its balance, less active holds, plus its overdraft.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/withdrawals", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = MoveMoney, example = json!({"amount": 2000, "currency": "EUR", "reference": "cash", "channel": "atm"})),
    responses(
        (status = 201, description = "The withdrawal was recorded.", body = AccountReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = AccountReceipt),
    ),
)]
pub async fn create_withdrawal(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<MoveMoney>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::Withdraw(account_id, body)).await
}
