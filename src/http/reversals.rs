//! The reversal of a transaction: `POST /v1/accounts/{account_id}/transactions/{version}/reversal`.

use axum::{extract::State, response::Response};

use super::{
    commands::{ApiCommand, execute, movements::ReverseTransaction},
    extract::{
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        nested_path::PathTransaction,
    },
    problem::Problem,
    response::CommandReceipt,
    state::AppState,
};
use passbook_auth::Caller;

/// Reverse a transaction
///
/// Pays back a deposit, an opening deposit, a withdrawal, a capture or a transfer, in part or whole, never more than its amount in
/// sum. A transfer is addressed on either of its accounts; both change in one transaction. The account that pays needs the money
/// `available`. A reversal cannot be reversed.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/transactions/{version}/reversal", tag = "Commands", security(("bearer" = ["accounts:reverse"])),
    params(
        ("account_id" = Uuid, Path, description = "The account of the transaction.", example = "01900000-0000-7000-8000-000000000004"),
        ("version" = i64, Path, minimum = 1, description = "The `version` of the transaction.", example = 1),
        CommandOptions, RetryHeader, ConditionHeader,
    ),
    request_body(content = ReverseTransaction, example = json!({"amount": 300, "reason": "goods returned"})),
    responses(
        (status = 201, description = "The reversal was recorded. The receipt of a transfer's reversal is that of a transfer: `from` is the account that pays back.", body = CommandReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = CommandReceipt),
    ),
)]
pub async fn reverse_transaction(
    State(app): State<AppState>,
    caller: Caller,
    path: PathTransaction,
    request: CommandRequest<ReverseTransaction>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::Reverse(path, body)).await
}
