//! The list of an account's daily balances.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    extract::{
        caller::require_visible,
        cursor,
        parameters::{PathId, QueryParameters, date, limit, min_position, require_ordered},
    },
    openapi::PositionText,
    problem::Problem,
    response::{DailyBalancePage, Page, json_view},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::daily_balances::{DailyBalance, Period};

/// The query parameters of the list of daily balances.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DailyBalancesQuery {
    /// Only this day or later days (UTC).
    #[param(example = "2026-01-01", format = Date, nullable = false)]
    from: Option<String>,
    /// Only days before this day (UTC).
    #[param(example = "2100-01-01", format = Date, nullable = false)]
    to: Option<String>,
    /// The most rows of the page, from 1 to 1000; default: 100.
    #[param(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<i64>,
    /// Continue after this cursor, the `next` of the previous page.
    #[param(nullable = false)]
    after: Option<String>,
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(value_type = Option<PositionText>, nullable = false)]
    min_position: Option<String>,
}

impl DailyBalancesQuery {
    fn period(&self) -> Result<Period, Problem> {
        let period = Period { from: date("from", self.from.as_deref())?, to: date("to", self.to.as_deref())? };
        require_ordered(period.from, period.to)?;
        Ok(period)
    }
}

/// List an account's daily balances
///
/// For each day (UTC) with movements of money: the opening and closing balance, and the sums that came in and went out. Oldest
/// day first.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/daily-balances", tag = "Queries",
    security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        DailyBalancesQuery,
    ),
    responses(
        (status = 200, description = "A page of days.", body = DailyBalancePage),
    ),
)]
pub async fn list_daily_balances(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<DailyBalancesQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let period = query.period()?;
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(cursor::parse_day).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let minimum = app.read_model.settled_before(account_id, period.end(), minimum).await?;
    require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let view = app.read_model.daily_balances(account_id, period, after, limit, minimum.as_ref()).await?;
    let cursor = |last: &DailyBalance| cursor::after_day(last.date);
    Ok(json_view(view.map(|(data, has_more)| Page::new(data, has_more, cursor))))
}
