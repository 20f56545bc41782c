//! The query over an account's movements.

use axum::{extract::State, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    answer::{Page, view},
    caller::visible,
    cursor,
    openapi::QueryProblems,
    parameters::{Id, Parameters, limit, min_position, time},
    problem::Problem,
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::transactions::{self, Kind, TransactionView};

/// Which movements.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TransactionsQuery {
    /// Recorded at this time or later (RFC 3339).
    #[param(format = DateTime, nullable = false)]
    from: Option<String>,
    /// Recorded before this time (RFC 3339).
    #[param(format = DateTime, nullable = false)]
    to: Option<String>,
    /// Of this kind.
    #[param(inline, nullable = false)]
    kind: Option<Kind>,
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

/// List an account's transactions
///
/// Every movement of money on the account, newest first, with the balance after it.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/transactions", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        TransactionsQuery,
    ),
    responses(
        (status = 200, description = "A page of movements.", body = Page<TransactionView>, headers(
            ("Passbook-Position" = String, description = "How far the view has read."),
        )),
        QueryProblems,
    ),
)]
pub async fn list_transactions(
    State(app): State<App>,
    caller: Caller,
    Id(account_id): Id,
    Parameters(query): Parameters<TransactionsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let limit = limit(query.limit)?;
    let before = query.after.as_deref().map(cursor::movement).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let filter = transactions::Filter {
        from: time("from", query.from.as_deref())?.map(from_microsecond),
        to: time("to", query.to.as_deref())?.map(from_microsecond),
        kind: query.kind,
    };
    visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let seen = app.read_model.transactions(account_id, filter, before, limit, minimum.as_ref()).await?;
    Ok(view(seen.map(|(data, more)| {
        let next = data.last().filter(|_| more).map(|movement| cursor::after_movement(movement.version));
        Page { data, next }
    })))
}

/// Times are kept in microseconds: nothing is recorded between this one and the next that follows a finer bound.
fn from_microsecond(bound: DateTime<Utc>) -> DateTime<Utc> {
    let finer = bound.timestamp_subsec_nanos() % 1_000;
    match finer {
        0 => bound,
        _ => bound.checked_add_signed(TimeDelta::nanoseconds(i64::from(1_000 - finer))).unwrap_or(bound),
    }
}
