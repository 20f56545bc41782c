//! The query over the whole bank.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, answer::view, openapi::ListProblems, parameters::Parameters, problem::Problem, queries::Freshness};
use passbook_auth::{Caller, Scope};
use passbook_bank::Slice;
use passbook_read_model::{
    Sum,
    bank_totals::{AccountsByStatus, Totals},
};

/// The bank at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// How many accounts there are.
    accounts: AccountsByStatus,
    /// What all accounts of a currency hold, in minor units, for each currency ever used.
    #[schema(value_type = BTreeMap<String, i128>, example = json!({"EUR": 1250000}))]
    money: BTreeMap<String, Sum>,
    /// The commands of the last ten minutes that this instance carried out or refused by the account's state, in slices of
    /// ten seconds, oldest first. Dry runs and what was not understood do not count.
    commands: Vec<Slice>,
}

/// The bank at a glance
///
/// Accounts by status, money by currency, and how many commands this instance carries out in how much time.
#[utoipa::path(
    get, path = "/v1/overview", tag = "Queries", security(("bearer" = ["accounts:read:any"])), params(Freshness),
    responses(
        (status = 200, description = "The whole bank.", body = Overview, headers(
            ("Passbook-Position" = String, description = "How far the view has read."),
        )),
        ListProblems,
    ),
)]
pub async fn get_overview(
    State(app): State<App>,
    caller: Caller,
    Parameters(query): Parameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsReadAny)?;
    let seen = app.read_model.totals(query.min_position()?.as_ref()).await?;
    Ok(view(seen.map(|Totals { accounts, money }| Overview { accounts, money, commands: app.bank.pace() })))
}
