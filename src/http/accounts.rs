//! The account resource: `POST /v1/accounts`, `GET /v1/accounts` and `GET /v1/accounts/{account_id}`.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    commands::{ApiCommand, accounts::OpenAccount, execute},
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        command::{CommandOptions, CommandRequest, RetryHeader},
        conditions::{etag, none_match},
        cursor,
        parameters::{PathId, QueryParameters, currency, limit, min_position, owner, time},
        search::{MetadataParameters, QueryWithMetadata, balance_range, search_text, sort},
    },
    openapi::PositionText,
    problem::Problem,
    response::{AccountPage, Page, json_view, position_header},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::AccountReceipt;
use passbook_domain::{Metadata, Status};
use passbook_event_store::Position;
use passbook_read_model::{
    Finality, Moment, Positioned,
    accounts::{AccountView, Filter, SORTED_ACCOUNTS_MAX, Sort},
};

/// The query parameters of an account.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountQuery {
    /// Read the account as it was at this time (RFC 3339, such as `2026-01-31T12:00:00Z`, not later than now), events recorded at
    /// it included. The answer is final.
    #[param(format = DateTime, nullable = false)]
    as_of: Option<String>,
    /// Read the account as it was at this version, included. The answer is final.
    #[param(example = 1, minimum = 0, nullable = false)]
    as_of_version: Option<i64>,
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(value_type = Option<PositionText>, nullable = false)]
    min_position: Option<String>,
}

impl AccountQuery {
    /// The moment to read at; `None`: now.
    fn moment(&self) -> Result<Option<Moment>, Problem> {
        let invalid = |detail| Err(Problem::invalid_parameter("as_of_version", detail));
        match (time("as_of", self.as_of.as_deref())?, self.as_of_version) {
            (Some(_), Some(_)) => invalid("as_of and as_of_version must not be sent together."),
            (None, Some(..0)) => invalid("as_of_version must be 0 or more."),
            (None, Some(version)) => Ok(Some(Moment::Version(version))),
            (Some(time), None) => Ok(Some(Moment::Time(time))),
            (None, None) => Ok(None),
        }
    }
}

/// The query parameters of the list of accounts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountsQuery {
    /// Only accounts of this owner.
    #[param(example = "customer-17", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$", nullable = false)]
    owner: Option<String>,
    /// Only accounts with this status.
    #[param(inline, nullable = false)]
    status: Option<Status>,
    /// Only accounts in this currency (ISO 4217).
    #[param(example = "EUR", pattern = "^[A-Z]{3}$", nullable = false)]
    currency: Option<String>,
    /// Only accounts whose owner begins with this text, or whose id contains it, from four hexadecimal digits on. Upper and lower case
    /// do not differ, and hyphens of an id do not count.
    #[param(example = "customer-1", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$", nullable = false)]
    q: Option<String>,
    /// Only accounts with at least this balance, in minor units. Needs `currency`.
    #[param(example = 0, minimum = -9007199254740991i64, maximum = 9007199254740991i64, nullable = false)]
    min_balance: Option<i64>,
    /// Only accounts with at most this balance, in minor units. Needs `currency`.
    #[param(example = 1000000, minimum = -9007199254740991i64, maximum = 9007199254740991i64, nullable = false)]
    max_balance: Option<i64>,
    /// The order of the list, in place of the newest opening first. Needs `currency` and filters that at most 10 000 accounts match.
    #[param(inline, value_type = Option<SortOrder>, nullable = false)]
    sort: Option<String>,
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

/// The orders of a list of accounts. `-`: the greatest value first.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the derive reads it")]
pub enum SortOrder {
    /// By balance.
    #[schema(rename = "balance")]
    Balance,
    /// By balance, descending.
    #[schema(rename = "-balance")]
    BalanceDescending,
    /// By the time of the last event.
    #[schema(rename = "last_activity_at")]
    LastActivity,
    /// By the time of the last event, descending.
    #[schema(rename = "-last_activity_at")]
    LastActivityDescending,
}

impl AccountsQuery {
    fn filter(self, caller: &Caller, metadata: Metadata) -> Result<(Filter, Option<Sort>), Problem> {
        let Self { min_balance, max_balance, .. } = self;
        let sort = self.sort.as_deref().map(sort).transpose()?;
        let currency = self.currency.as_deref().map(currency).transpose()?.map(|currency| currency.code().to_owned());
        balance_range(min_balance, max_balance)?;
        if currency.is_none() && (sort.is_some() || min_balance.is_some() || max_balance.is_some()) {
            let detail = "currency must be sent with sort, min_balance and max_balance, because balances of different \
                currencies cannot be compared.";
            return Err(Problem::invalid_parameter("currency", detail));
        }
        let text = self.q.map(search_text).transpose()?;
        let owner = listed_owner(caller, self.owner.map(owner).transpose()?)?;
        Ok((Filter { owner, status: self.status, currency, text, min_balance, max_balance, metadata }, sort))
    }
}

/// The owner whose accounts are listed; `None`: all accounts, which only a caller with the scope for any account may list.
pub(super) fn listed_owner(caller: &Caller, requested: Option<String>) -> Result<Option<String>, Problem> {
    match requested {
        Some(owner) if *owner == **caller.subject() => Ok(Some(owner)),
        Some(owner) => {
            caller.require(Scope::AccountsReadAny)?;
            Ok(Some(owner))
        }
        None if caller.may(Scope::AccountsReadAny) => Ok(None),
        None => Ok(Some(caller.subject().to_string())),
    }
}

/// Open an account
///
/// Opens an account in one currency, with an optional initial deposit. `Location` is the path of the account. With an
/// `Idempotency-Key`, a retry never opens a second account.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "Commands", security(("bearer" = ["accounts:write"])), params(CommandOptions, RetryHeader),
    request_body(content = OpenAccount, examples(
        ("1. an account with money" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000001", "currency": "EUR", "owner": "customer-17", "initial_deposit": 10000
        }))),
        ("2. an account to transfer to" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000002", "currency": "EUR", "owner": "customer-18"
        }))),
        ("3. an account to be closed" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000003", "currency": "EUR", "owner": "customer-19"
        }))),
        ("4. an account with a hold" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000004", "currency": "EUR", "owner": "customer-20", "initial_deposit": 10000,
            "metadata": {"branch": "17"}
        }))),
    )),
    responses(
        (status = 201, description = "The account was opened.", body = AccountReceipt, headers(
            ("Location" = String, description = "The path of the account."),
        )),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = AccountReceipt),
    ),
)]
pub async fn open_account(
    State(app): State<AppState>,
    caller: Caller,
    request: CommandRequest<OpenAccount>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, ApiCommand::Open).await
}

/// Get an account
///
/// The account in the view, now or at an earlier moment since its opening. `ETag` is its version. With `If-None-Match`, the
/// response for an unchanged account is 304.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        AccountQuery,
        ("If-None-Match" = Option<String>, Header, nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, description = "The ETag of the representation that the client has."),
    ),
    responses(
        (status = 200, description = "The account.", body = AccountView),
        (status = 304, description = "The account has not changed."),
    ),
)]
pub async fn get_account(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<AccountQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let minimum = min_position(query.min_position.as_deref())?;
    let account = match query.moment()? {
        Some(moment) => account_as_of(&app, &caller, account_id, moment, minimum.as_ref()).await?,
        None => require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?,
    };
    let AccountView { version, unrecorded_expiries, .. } = account.value;
    let etag = [(header::ETAG, etag(version, account.generation, unrecorded_expiries))];
    if none_match(&headers, &etag[0].1)? {
        return Ok((StatusCode::NOT_MODIFIED, position_header(&account.position), etag).into_response());
    }
    Ok((etag, json_view(account)).into_response())
}

/// The account at a moment, once that answer can no longer change.
async fn account_as_of(
    app: &AppState,
    caller: &Caller,
    account_id: Uuid,
    moment: Moment,
    minimum: Option<&Position>,
) -> Result<Positioned<AccountView>, Problem> {
    match app.read_model.finality(account_id, moment, minimum).await? {
        Finality::Settled(position) => {
            require_visible(caller, app.read_model.account_as_of(account_id, moment, Some(&position)).await?)
        }
        Finality::Future => Err(Problem::invalid_parameter("as_of", "as_of must not be later than now.")),
        Finality::BeyondLastVersion(position) => {
            let account = app.read_model.account(account_id, Some(&position)).await?;
            let Positioned { position, .. } = require_visible(caller, account)?;
            Err(Problem::at_position(ErrorCode::VersionNotFound, &position))
        }
    }
}

/// List accounts
///
/// The accounts that match all filters, newest opening first or sorted. Without the scope `accounts:read:any`, only the caller's own
/// accounts. `metadata.<key>=<value>` selects accounts that were opened with this pair. With filters, a page can be short or empty
/// although more pages follow: only `next: null` ends the list. While a client reads the pages of a sorted list, an account whose value
/// changes can be in two pages or in none; all others are in exactly one.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        AccountsQuery,
        ("metadata" = inline(Option<MetadataParameters>), Query, style = Form, explode, nullable = false,
            description = "Only accounts with this metadata: a parameter `metadata.<key>` for each pair.",
            example = json!({"metadata.branch": "17"})),
    ),
    responses(
        (status = 200, description = "A page of accounts.", body = AccountPage),
    ),
)]
pub async fn list_accounts(
    State(app): State<AppState>,
    caller: Caller,
    QueryWithMetadata { parameters: query, metadata }: QueryWithMetadata<AccountsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let limit = limit(query.limit)?;
    let minimum = min_position(query.min_position.as_deref())?;
    let after = query.after.clone();
    let (filter, sort) = query.filter(&caller, metadata)?;
    let Some(sort) = sort else {
        let after = after.as_deref().map(cursor::parse_account).transpose()?;
        let view = app.read_model.accounts(&filter, after, limit, minimum.as_ref()).await?;
        return Ok(json_view(view.map(|page| Page::of(page, cursor::after_account))));
    };
    let after = after.as_deref().map(|cursor| cursor::parse_sorted(sort, cursor)).transpose()?;
    let Positioned { value, position, generation } =
        app.read_model.sorted_accounts(&filter, sort, (after, limit), minimum.as_ref()).await?;
    let Some(page) = value else {
        let detail =
            format!("More accounts match than can be sorted ({SORTED_ACCOUNTS_MAX}). Send more filters, or no sort.");
        return Err(Problem::invalid_parameter("sort", detail));
    };
    let page = Page::of(page, |key| cursor::after_sorted(sort, key));
    Ok(json_view(Positioned { value: page, position, generation }))
}
