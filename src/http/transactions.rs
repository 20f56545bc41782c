//! The lists of transactions: of an account, and of all accounts.

use axum::{extract::State, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    accounts::listed_owner,
    extract::{
        caller::require_visible,
        cursor,
        parameters::{PathId, QueryParameters, currency, limit, min_position, owner, reference, require_ordered, time},
        search::amount_range,
    },
    openapi::PositionText,
    problem::Problem,
    response::{AccountTransactionPage, Page, TransactionPage, json_view},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::transactions::{Filter, Kind, SearchFilter};

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
    /// Only transactions whose reference begins with this text. Upper and lower case do not differ.
    #[param(example = "invoice", min_length = 1, max_length = 500, pattern = r"^[^\u0000]*$", nullable = false)]
    reference: Option<String>,
    /// Only transactions of at least this amount, in minor units.
    #[param(example = 1, minimum = 0, maximum = 9007199254740991i64, nullable = false)]
    min_amount: Option<i64>,
    /// Only transactions of at most this amount, in minor units.
    #[param(example = 1000000, minimum = 0, maximum = 9007199254740991i64, nullable = false)]
    max_amount: Option<i64>,
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
    fn filter(self) -> Result<Filter, Problem> {
        let Self { kind, min_amount, max_amount, .. } = self;
        let [from, to] = period(self.from.as_deref(), self.to.as_deref())?;
        amount_range(min_amount, max_amount)?;
        Ok(Filter { from, to, kind, reference: self.reference.map(reference).transpose()?, min_amount, max_amount })
    }
}

/// The query parameters of the list of the transactions of all accounts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Only transactions whose reference begins with this text. Upper and lower case do not differ.
    #[param(example = "invoice", min_length = 1, max_length = 500, pattern = r"^[^\u0000]*$", nullable = false)]
    reference: Option<String>,
    /// Only transactions of the accounts of this owner.
    #[param(example = "customer-17", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$", nullable = false)]
    owner: Option<String>,
    /// Only transactions of at least this amount, in minor units.
    #[param(example = 1, minimum = 0, maximum = 9007199254740991i64, nullable = false)]
    min_amount: Option<i64>,
    /// Only transactions of at most this amount, in minor units.
    #[param(example = 1000000, minimum = 0, maximum = 9007199254740991i64, nullable = false)]
    max_amount: Option<i64>,
    /// Only transactions of accounts in this currency (ISO 4217).
    #[param(example = "EUR", pattern = "^[A-Z]{3}$", nullable = false)]
    currency: Option<String>,
    /// Only transactions recorded at this time or later (RFC 3339).
    #[param(format = DateTime, nullable = false)]
    from: Option<String>,
    /// Only transactions recorded before this time (RFC 3339).
    #[param(format = DateTime, nullable = false)]
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

impl SearchQuery {
    fn filter(self, caller: &Caller) -> Result<SearchFilter, Problem> {
        let Self { min_amount, max_amount, .. } = self;
        let [from, to] = period(self.from.as_deref(), self.to.as_deref())?;
        amount_range(min_amount, max_amount)?;
        let reference = self.reference.map(reference).transpose()?;
        let currency = self.currency.as_deref().map(currency).transpose()?.map(|currency| currency.code().to_owned());
        let owner = listed_owner(caller, self.owner.map(owner).transpose()?)?;
        Ok(SearchFilter { reference, owner, currency, min_amount, max_amount, from, to })
    }
}

/// The beginning and the end of a period, of which one or both can be absent.
fn period(from: Option<&str>, to: Option<&str>) -> Result<[Option<DateTime<Utc>>; 2], Problem> {
    let (from, to) = (time("from", from)?, time("to", to)?);
    require_ordered(from, to)?;
    Ok([from, to].map(|time| time.map(round_up_to_microsecond)))
}

/// List an account's transactions
///
/// Every movement of money on the account, newest first, with the balance after it. With filters, a page can be short or empty
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
    let view = app.read_model.transactions(account_id, &filter, before, limit, minimum.as_ref()).await?;
    Ok(json_view(view.map(|page| Page::of(page, cursor::after_transaction))))
}

/// List the transactions of all accounts
///
/// The movements of money that match all filters, newest first, each with its account. Without the scope `accounts:read:any`, only
/// those of the caller's own accounts. With filters, a page can be short or empty although more pages follow: only `next: null` ends
/// the list.
#[utoipa::path(
    get, path = "/v1/transactions", tag = "Queries", security(("bearer" = ["accounts:read"])), params(SearchQuery),
    responses(
        (status = 200, description = "A page of transactions.", body = AccountTransactionPage),
    ),
)]
pub async fn search_transactions(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<SearchQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(cursor::parse_log_key).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let filter = query.filter(&caller)?;
    let view = app.read_model.search_transactions(&filter, after, limit, minimum.as_ref()).await?;
    Ok(json_view(view.map(|page| Page::of(page, cursor::after_log_key))))
}

/// Times are stored in microseconds, so a finer bound selects the same rows as the next microsecond.
fn round_up_to_microsecond(bound: DateTime<Utc>) -> DateTime<Utc> {
    match bound.timestamp_subsec_nanos() % 1_000 {
        0 => bound,
        nanos => bound.checked_add_signed(TimeDelta::nanoseconds(i64::from(1_000 - nanos))).unwrap_or(bound),
    }
}
