//! An account's statement in several formats, written page by page as fast as the client reads it.

mod body;
mod camt053;
mod content;
mod csv;
mod format;
mod hledger;
mod html;
mod json;
mod mt940;
mod ofx;
mod xml;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use self::{body::StatementBody, content::Content, format::Format};
use super::{
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        content_negotiation::preferred,
        parameters::{PathId, QueryParameters, min_position, require_ordered, required_day},
    },
    openapi::PositionText,
    problem::Problem,
    response::position_header,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_domain::Currency;
use passbook_event_store::{Position, timestamp};
use passbook_read_model::{
    Moment, Positioned,
    accounts::AccountView,
    transactions::statement::{Lines, Period, Statement},
};

/// The query parameters of a statement.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatementQuery {
    /// The first day, in UTC.
    #[param(example = "2026-01-01", format = Date, required = true, nullable = false)]
    from: Option<String>,
    /// The day after the last, in UTC.
    #[param(example = "2026-02-01", format = Date, required = true, nullable = false)]
    to: Option<String>,
    /// The format. Without it, the header `Accept` decides.
    #[param(inline, value_type = Option<Format>, nullable = false)]
    format: Option<String>,
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(value_type = Option<PositionText>, nullable = false)]
    min_position: Option<String>,
}

impl StatementQuery {
    fn period(&self) -> Result<Period, Problem> {
        let (from, to) = (required_day("from", self.from.as_deref())?, required_day("to", self.to.as_deref())?);
        require_ordered(Some(from), Some(to))?;
        Ok(Period { from, to })
    }

    /// The format that the parameter names, or the one that `Accept` prefers.
    fn format(&self, headers: &HeaderMap) -> Result<Format, Problem> {
        let Some(name) = &self.format else {
            let media_types = Format::ALL.map(Format::media_type);
            let preferred = preferred(headers, &media_types);
            let format = Format::ALL.into_iter().find(|format| preferred == Some(format.media_type()));
            return format.ok_or_else(|| Problem::from_code(ErrorCode::NotAcceptable));
        };
        Format::from_name(name).ok_or_else(|| {
            let names = Format::ALL.map(Format::name).join(", ");
            Problem::invalid_parameter("format", format!("The parameter format must be one of {names}."))
        })
    }
}

/// Get an account's statement
///
/// Every movement of money in a period of days, oldest first, between the opening and the closing balance. Statements of
/// consecutive periods join without gap or overlap. The statement of a period that is over is final: it contains every event of
/// the period, and no later request gets another one. With a `to` in the future it contains no event recorded after `position`;
/// pass `min_position` to include the events that you know of. A long statement is streamed; one that ends before its totals or
/// closing balance is incomplete and must be discarded.
///
/// The parameter `format` or the header `Accept` selects the format: `json`; `csv` for spreadsheets, where a text that would be
/// executed as a formula starts with an apostrophe; `camt053` (ISO 20022, camt.053.001.08); `mt940` (SWIFT); `ofx` (2.2);
/// `hledger`; `html` to be printed. Amounts are in minor units in JSON and in major units elsewhere. An amount that a format cannot
/// contain is 406, or ends the response early.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/statement", tag = "Queries",
    security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        StatementQuery,
    ),
    responses(
        (status = 200, description = "The statement.", content(
            (json::StatementSchema = "application/json"),
            (String = "text/csv"),
            (String = "application/vnd.iso20022.camt.053+xml"),
            (String = "text/x-mt940"),
            (String = "application/x-ofx"),
            (String = "text/x-hledger"),
            (String = "text/html"),
        ), headers(
            ("Content-Disposition" = String, description = "The name of the file, for formats that a browser does not show."),
        )),
    ),
)]
pub async fn get_statement(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<StatementQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let period = query.period()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let format = query.format(&headers)?;
    let minimum = app.read_model.settled_before(account_id, Some(period.end()), minimum).await?;
    let account = require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?.value;
    let Positioned { value, position, .. } = app.read_model.statement(account_id, period, minimum.as_ref()).await?;
    let statement = value.ok_or_else(|| Problem::at_position(ErrorCode::AccountNotFound, &position))?;
    let available_balance = match format.has_available_balance() {
        true => available_balance(&app, &statement, &account, &position).await?,
        false => 0,
    };
    let currency =
        Currency::from_code(&statement.currency).ok_or_else(|| Problem::from_code(ErrorCode::InternalError))?;
    let lines = app.read_model.lines(&statement, format.has_batch_ids());
    let content = Content {
        statement,
        currency,
        owner: account.owner,
        available_balance,
        position,
        created_at: timestamp::now(),
    };
    statement_response(content, lines, format).await
}

/// What debits and holds could use at the end of the period, or now if that is earlier, in minor units.
async fn available_balance(
    app: &AppState,
    statement: &Statement,
    now: &AccountView,
    position: &Position,
) -> Result<i64, Problem> {
    let end = statement.period.end();
    if end > timestamp::now() {
        return Ok(statement.closing_balance - now.held + now.overdraft);
    }
    let moment = Moment::before(end);
    let account = app.read_model.account_as_of(statement.account_id, moment, Some(position)).await?.value;
    Ok(account.map_or(0, |account| account.available))
}

async fn statement_response(content: Content, lines: Lines, format: Format) -> Result<Response, Problem> {
    let position_header = position_header(&content.position);
    let file_name = format.extension().map(|extension| file_name(&content.statement, extension));
    let body = StatementBody { format: format.writer(content), lines }.into_body().await?;
    let mut response = (position_header, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Some(file_name) = file_name {
        headers.insert(header::CONTENT_DISPOSITION, file_name);
    }
    Ok(response)
}

fn file_name(statement: &Statement, extension: &str) -> HeaderValue {
    let Statement { account_id, period: Period { from, to }, .. } = statement;
    let file = format!("attachment; filename=\"statement-{account_id}-{from}-{to}.{extension}\"");
    HeaderValue::try_from(file).unwrap_or(HeaderValue::from_static("attachment"))
}
