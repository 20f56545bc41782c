//! The list of an account's transactions.

use axum::{extract::State, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    extract::{
        caller::require_visible,
        cursor,
        parameters::{PathId, QueryParameters, limit, min_position, require_ordered, time},
    },
    openapi::PositionText,
    problem::Problem,
    response::{Page, TransactionPage, json_view},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::transactions::{Filter, Kind};

/// The query parameters of the list of transactions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TransactionsQuery {
    /// Only transactions recorded at this time or later (RFC 3339).
    #[param(format = DateTime, nullable = false)]
    from: Option<String>,
    /// Only transactions recorded before this time (RFC 3339).
    #[param(format = DateTime, nullable = false)]
    to: Option<String>,
    /// Only transactions of this kind.
    #[param(inline, nullable = false)]
    kind: Option<Kind>,
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

impl TransactionsQuery {
    fn filter(&self) -> Result<Filter, Problem> {
        let (from, to) = (time("from", self.from.as_deref())?, time("to", self.to.as_deref())?);
        require_ordered(from, to)?;
        Ok(Filter { from: from.map(round_up_to_microsecond), to: to.map(round_up_to_microsecond), kind: self.kind })
    }
}

/// List an account's transactions
///
/// Every movement of money on the account, newest first, with the balance after it. With `kind`, a page can be short or empty
/// although more pages follow: only `next: null` ends the list.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/transactions", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        TransactionsQuery,
    ),
    responses(
        (status = 200, description = "A page of transactions.", body = TransactionPage),
    ),
)]
pub async fn list_transactions(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<TransactionsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let limit = limit(query.limit)?;
    let before = query.after.as_deref().map(cursor::parse_transaction).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let filter = query.filter()?;
    let minimum = app.read_model.settled_before(account_id, filter.to, minimum).await?;
    require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let view = app.read_model.transactions(account_id, filter, before, limit, minimum.as_ref()).await?;
    Ok(json_view(view.map(|page| Page::of(page, cursor::after_transaction))))
}

/// Times are stored in microseconds, so a finer bound selects the same rows as the next microsecond.
fn round_up_to_microsecond(bound: DateTime<Utc>) -> DateTime<Utc> {
    match bound.timestamp_subsec_nanos() % 1_000 {
        0 => bound,
        nanos => bound.checked_add_signed(TimeDelta::nanoseconds(i64::from(1_000 - nanos))).unwrap_or(bound),
    }
}
