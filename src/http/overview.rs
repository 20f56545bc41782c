//! The overview of the whole bank.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    extract::parameters::{Freshness, QueryParameters},
    problem::Problem,
    response::json_view,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::CommandStatsBucket;
use passbook_read_model::{
    MoneySum,
    bank_totals::{AccountsByStatus, Totals},
};

/// The whole bank.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The number of accounts by status.
    accounts: AccountsByStatus,
    /// The sum of all balances by currency, in minor units, for each currency ever used.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"EUR": "1250000"}))]
    money: BTreeMap<String, MoneySum>,
    /// What active holds set aside by currency, in minor units, for each currency ever used.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"EUR": "500"}))]
    held: BTreeMap<String, MoneySum>,
    /// The commands of the last ten minutes that this instance executed or rejected by the account's state, in buckets of ten
    /// seconds, oldest first. Dry runs and malformed requests are not counted.
    commands: Vec<CommandStatsBucket>,
}

/// Get the overview
///
/// Accounts by status, money by currency, and the rate and duration of the commands of this instance.
#[utoipa::path(
    get, path = "/v1/overview", tag = "Queries", security(("bearer" = ["accounts:read:any"])), params(Freshness),
    responses(
        (status = 200, description = "The overview.", body = Overview),
    ),
)]
pub async fn get_overview(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsReadAny)?;
    let view = app.read_model.totals(query.min_position()?.as_ref()).await?;
    Ok(json_view(view.map(|Totals { accounts, money, held }| Overview {
        accounts,
        money,
        held,
        commands: app.bank.command_stats(),
    })))
}
