//! The limits of an account: `PUT` and `GET /v1/accounts/{account_id}/limits`.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        parameters::{Freshness, MinorUnits, PathId, QueryParameters},
    },
    problem::Problem,
    response::{json_view, ok_receipt},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{AccountAccess, AccountReceipt};
use passbook_domain::{AccountCommand, Limits};
use passbook_read_model::{Positioned, accounts::LimitsView};

/// Replaces the overdraft and all limits of an account. A limit that is left out is removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// How far the balance may go below zero, in minor units; default: 0.
    #[schema(value_type = Option<i64>, example = 20000, minimum = 0, maximum = 9007199254740991i64)]
    overdraft: Option<MinorUnits>,
    /// The largest single withdrawal, transfer out or hold, in minor units; default: no limit.
    #[schema(value_type = Option<i64>, example = 100000, minimum = 0, maximum = 9007199254740991i64)]
    per_movement: Option<MinorUnits>,
    /// What may leave the account in one UTC day, in minor units; default: no limit.
    #[schema(value_type = Option<i64>, example = 200000, minimum = 0, maximum = 9007199254740991i64)]
    out_per_day: Option<MinorUnits>,
    /// What may leave the account in one UTC month, in minor units; default: no limit.
    #[schema(value_type = Option<i64>, example = 1000000, minimum = 0, maximum = 9007199254740991i64)]
    out_per_month: Option<MinorUnits>,
}

impl SetLimits {
    fn into_account_command(self) -> Result<AccountCommand, Problem> {
        let limit = |field, sent: Option<MinorUnits>| sent.map(|sent| sent.zero_or_more(field)).transpose();
        Ok(AccountCommand::SetLimits(Limits {
            overdraft: limit("overdraft", self.overdraft)?.unwrap_or(0),
            per_movement: limit("per_movement", self.per_movement)?,
            out_per_day: limit("out_per_day", self.out_per_day)?,
            out_per_month: limit("out_per_month", self.out_per_month)?,
        }))
    }
}

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
    caller.require(Scope::AccountsLimits)?;
    let request = request.with_access(AccountAccess::Any);
    let outcome = request.execute_on(&app.bank, account_id, SetLimits::into_account_command).await?;
    Ok(ok_receipt(&outcome))
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
