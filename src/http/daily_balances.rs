//! The query over an account's days.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    answer::{Page, view},
    caller::visible,
    cursor,
    openapi::QueryProblems,
    parameters::{Id, Parameters, date, limit, min_position},
    problem::{Code, Problem},
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::daily_balances::{DailyBalance, Period};

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DailyBalancesQuery {
    /// This day or later (UTC).
    #[param(example = "2026-01-01", format = Date, nullable = false)]
    from: Option<String>,
    /// Before this day (UTC).
    #[param(example = "2100-01-01", format = Date, nullable = false)]
    to: Option<String>,
    /// How many rows, from 1 to 1000; default: 100.
    #[param(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<i64>,
    /// Go on behind this cursor, the `next` of the page before.
    #[param(nullable = false)]
    after: Option<String>,
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(pattern = "^[0-9]{1,18}$", nullable = false)]
    min_position: Option<String>,
}

impl DailyBalancesQuery {
    fn period(&self) -> Result<Period, Problem> {
        let period = Period { from: date("from", self.from.as_deref())?, to: date("to", self.to.as_deref())? };
        match period {
            Period { from: Some(from), to: Some(to) } if from > to => {
                Err(Problem::field(Code::InvalidParameter, "from", "from is later than to"))
            }
            period => Ok(period),
        }
    }
}

/// List an account's days
///
/// For each day (UTC) on which money moved: what the account had before and after, and what came in and went out. Oldest
/// first.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/daily-balances", tag = "Queries",
    security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        DailyBalancesQuery,
    ),
    responses(
        (status = 200, description = "A page of days.", body = Page<DailyBalance>, headers(
            ("Passbook-Position" = String, description = "How far the view has read."),
        )),
        QueryProblems,
    ),
)]
pub async fn list_daily_balances(
    State(app): State<App>,
    caller: Caller,
    Id(account_id): Id,
    Parameters(query): Parameters<DailyBalancesQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let period = query.period()?;
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(cursor::day).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let seen = app.read_model.daily_balances(account_id, period, after, limit, minimum.as_ref()).await?;
    Ok(view(seen.map(|(data, more)| {
        let next = data.last().filter(|_| more).map(|day| cursor::after_day(day.date));
        Page { data, next }
    })))
}
