//! The limits of an account: `PUT` and `GET /v1/accounts/{account_id}/limits`.

use axum::{extract::State, response::Response};

use super::{
    commands::{ApiCommand, accounts::SetLimits, execute},
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        parameters::{Freshness, PathId, QueryParameters},
    },
    problem::Problem,
    response::json_view,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::AccountReceipt;
use passbook_read_model::{Positioned, accounts::LimitsView};

/// Set an account's limits
///
/// Replaces the overdraft and all limits of the account. The limits per day and month count what left the account since the start of
/// the period in UTC, also before the limit was set. A lower overdraft than the one in use stops further debits only.
#[utoipa::path(
    put, path = "/v1/accounts/{account_id}/limits", tag = "Commands", security(("bearer" = ["accounts:limits"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000004"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = SetLimits, example = json!({"overdraft": 20000, "per_movement": 100000, "out_per_day": 200000, "out_per_month": 1000000})),
    responses(
        (status = 200, description = "The limits were set.", body = AccountReceipt),
    ),
)]
pub async fn set_limits(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<SetLimits>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::SetLimits(account_id, body)).await
}

/// Get an account's limits
///
/// The overdraft and the limits of the account, each with what is used of it and when it counts from 0 again; `null` for a limit that
/// is not set.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/limits", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000004"), Freshness),
    responses(
        (status = 200, description = "The limits and their usage.", body = LimitsView),
    ),
)]
pub async fn get_limits(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let minimum = query.min_position()?;
    require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let Positioned { value, position, generation } = app.read_model.limits(account_id, minimum.as_ref()).await?;
    match value {
        Some(value) => Ok(json_view(Positioned { value, position, generation })),
        None => Err(Problem::at_position(ErrorCode::AccountNotFound, &position)),
    }
}
