//! The transfer resource: `POST /v1/transfers` and `GET /v1/transfers/{transfer_id}`.

use axum::{extract::State, response::Response};

use super::{
    commands::{ApiCommand, execute, movements::TransferMoney},
    error_code::ErrorCode,
    extract::{
        command::{CommandOptions, CommandRequest, RetryHeader},
        parameters::{Freshness, PathId, QueryParameters},
    },
    problem::Problem,
    response::json_view,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::TransferReceipt;
use passbook_read_model::{Positioned, transactions::TransferView};

/// Transfer money
///
/// Moves money between two open accounts of one currency. Both accounts change in one transaction, or neither does. The
/// receiving account may belong to any owner. If the caller may not see it, the receipt shows only its id, and any rejection that
/// it causes is `account_not_found`.
#[utoipa::path(
    post, path = "/v1/transfers", tag = "Commands", security(("bearer" = ["accounts:write"])), params(CommandOptions, RetryHeader),
    request_body(content = TransferMoney, example = json!({
        "from": "01900000-0000-7000-8000-000000000001", "to": "01900000-0000-7000-8000-000000000002", "amount": 500, "currency": "EUR", "reference": "rent"
    })),
    responses(
        (status = 201, description = "The transfer was recorded on both accounts.", body = TransferReceipt, headers(
            ("Location" = String, description = "The path of the transfer."),
        )),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = TransferReceipt),
    ),
)]
pub async fn create_transfer(
    State(app): State<AppState>,
    caller: Caller,
    request: CommandRequest<TransferMoney>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, ApiCommand::Transfer).await
}

/// Get a transfer
///
/// Both accounts, the amount and the time of the transfer.
#[utoipa::path(
    get, path = "/v1/transfers/{transfer_id}", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(("transfer_id" = Uuid, Path, description = "The id in the receipt of the transfer."), Freshness),
    responses(
        (status = 200, description = "The transfer.", body = TransferView),
    ),
)]
pub async fn get_transfer(
    State(app): State<AppState>,
    caller: Caller,
    PathId(transfer_id): PathId,
    QueryParameters(query): QueryParameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let minimum = query.min_position()?;
    let Positioned { value, position, generation } = app.read_model.transfer(transfer_id, minimum.as_ref()).await?;
    let not_found = Problem::at_position(ErrorCode::NotFound, &position);
    match value {
        Some(value) if may_see(&app, &caller, &value).await? => {
            Ok(json_view(Positioned { value, position, generation }))
        }
        Some(_) => Err(not_found.with_audit_reason("both accounts of the transfer belong to other owners")),
        None => Err(not_found),
    }
}

/// Whether the caller may see one of the two accounts. They are read from the primary, because a replica may have read less of the
/// log than the view that returned the transfer.
async fn may_see(app: &AppState, caller: &Caller, transfer: &TransferView) -> Result<bool, Problem> {
    if caller.may(Scope::AccountsReadAny) {
        return Ok(true);
    }
    for account_id in [transfer.from, transfer.to] {
        let account = app.read_model.at_primary().account(account_id, None).await?.value;
        if account.is_some_and(|account| caller.sees(&account.owner)) {
            return Ok(true);
        }
    }
    Ok(false)
}
