//! Queries over the read tables.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    answer::{Page, position, view},
    caller::visible,
    cursor,
    headers::{etag, none_match},
    openapi::{ListProblems, QueryProblems},
    parameters::{Id, Parameters, currency, limit, min_position, owner, time},
    problem::{Code, Problem},
};
use passbook_auth::{Caller, Scope};
use passbook_domain::Status;
use passbook_event_store::Position;
use passbook_read_model::{
    Seen,
    accounts::{self, AccountView, as_of::Moment},
    transactions::transfer::TransferView,
};

/// How fresh an answer must be.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Freshness {
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(example = "1", pattern = "^[0-9]{1,18}$", nullable = false)]
    min_position: Option<String>,
}

impl Freshness {
    /// The position that the answer must have reached, if one was asked for.
    pub fn min_position(&self) -> Result<Option<Position>, Problem> {
        min_position(self.min_position.as_deref())
    }
}

/// At which moment, and how fresh.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountQuery {
    /// As it was at this time (RFC 3339, such as `2026-01-31T12:00:00Z`), what was recorded at it included.
    #[param(format = DateTime, nullable = false)]
    as_of: Option<String>,
    /// As it was at this version of the account, included.
    #[param(example = 1, minimum = 0, nullable = false)]
    as_of_version: Option<i64>,
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(example = "1", pattern = "^[0-9]{1,18}$", nullable = false)]
    min_position: Option<String>,
}

impl AccountQuery {
    fn moment(&self) -> Result<Option<Moment>, Problem> {
        let wrong = |detail| Err(Problem::field(Code::InvalidParameter, "as_of_version", detail));
        match (time("as_of", self.as_of.as_deref())?, self.as_of_version) {
            (Some(_), Some(_)) => wrong("as_of and as_of_version both name a moment: send one of them"),
            (None, Some(..0)) => wrong("as_of_version is 0 or more"),
            (None, Some(version)) => Ok(Some(Moment::Version(version))),
            (Some(time), None) => Ok(Some(Moment::Time(time))),
            (None, None) => Ok(None),
        }
    }
}

/// Which accounts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountsQuery {
    /// Of this owner.
    #[param(example = "customer-17", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$", nullable = false)]
    owner: Option<String>,
    /// In this status.
    #[param(inline, nullable = false)]
    status: Option<Status>,
    /// In this currency (ISO 4217).
    #[param(example = "EUR", pattern = "^[A-Z]{3}$", nullable = false)]
    currency: Option<String>,
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

/// Read an account
///
/// The account as the view has it, now or at any moment since its opening. `ETag` is its version; with `If-None-Match` an
/// unchanged account is answered 304.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        AccountQuery,
        ("If-None-Match" = Option<String>, Header, nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, description = "The ETag of the representation that the caller has."),
    ),
    responses(
        (status = 200, description = "The account.", body = AccountView, headers(
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "How far the view has read."),
        )),
        (status = 304, description = "The account is as the caller has it."),
        QueryProblems,
    ),
)]
pub async fn get_account(
    State(app): State<App>,
    caller: Caller,
    Id(account_id): Id,
    Parameters(query): Parameters<AccountQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let minimum = min_position(query.min_position.as_deref())?;
    let seen = match query.moment()? {
        Some(moment) => app.read_model.account_as_of(account_id, moment, minimum.as_ref()).await?,
        None => app.read_model.account(account_id, minimum.as_ref()).await?,
    };
    let account = visible(&caller, seen)?;
    let tag = etag(account.value.version, account.generation);
    if none_match(&headers, &tag)? {
        let read = position(&account.position);
        return Ok((StatusCode::NOT_MODIFIED, read, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::ETAG, tag)], view(account)).into_response())
}

/// List accounts
///
/// Newest opening first. Filters can be combined. Without the scope `accounts:read:any` only the caller's own.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "Queries", security(("bearer" = ["accounts:read"])), params(AccountsQuery),
    responses(
        (status = 200, description = "A page of accounts.", body = Page<AccountView>, headers(
            ("Passbook-Position" = String, description = "How far the view has read."),
        )),
        ListProblems,
    ),
)]
pub async fn list_accounts(
    State(app): State<App>,
    caller: Caller,
    Parameters(query): Parameters<AccountsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(cursor::account).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let currency = query.currency.as_deref().map(currency).transpose()?.map(|currency| currency.code().to_owned());
    let owner = listed_owner(&caller, query.owner.map(owner).transpose()?)?;
    let filter = accounts::Filter { owner, status: query.status, currency };
    let seen = app.read_model.accounts(&filter, after, limit, minimum.as_ref()).await?;
    Ok(view(seen.map(|(data, more)| {
        let last = data.last().filter(|_| more);
        let next = last.map(|account| cursor::after_account((account.opened_at, account.account_id)));
        Page { data, next }
    })))
}

/// Read a transfer
///
/// Both accounts, the amount and the time.
#[utoipa::path(
    get, path = "/v1/transfers/{transfer_id}", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(("transfer_id" = Uuid, Path, description = "The transfer, by the id in its receipt."), Freshness),
    responses(
        (status = 200, description = "The transfer.", body = TransferView, headers(
            ("Passbook-Position" = String, description = "How far the view has read."),
        )),
        QueryProblems,
    ),
)]
pub async fn get_transfer(
    State(app): State<App>,
    caller: Caller,
    Id(transfer_id): Id,
    Parameters(query): Parameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let minimum = query.min_position()?;
    let seen = app.read_model.transfer(transfer_id, minimum.as_ref()).await?;
    let unknown = Problem::seen_at(Code::NotFound, &seen.position);
    match seen.value {
        Some(transfer) if takes_part(&app, &caller, &transfer).await? => {
            Ok(view(Seen { value: transfer, position: seen.position, generation: seen.generation }))
        }
        Some(_) => Err(unknown.because("the transfer is between accounts of others")),
        None => Err(unknown),
    }
}

/// Whose accounts a list holds: the caller's own, unless they may see others'.
fn listed_owner(caller: &Caller, asked: Option<String>) -> Result<Option<String>, Problem> {
    match asked {
        Some(owner) if *owner == **caller.subject() => Ok(Some(owner)),
        Some(owner) => {
            caller.require(Scope::AccountsReadAny)?;
            Ok(Some(owner))
        }
        None if caller.may(Scope::AccountsReadAny) => Ok(None),
        None => Ok(Some(caller.subject().to_string())),
    }
}

/// Whether the caller may see one of the two accounts. The transfer may have been seen before the replica knew of them.
async fn takes_part(app: &App, caller: &Caller, transfer: &TransferView) -> Result<bool, Problem> {
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
