//! An account's statement as JSON or CSV, written page by page as fast as the client reads it.

mod body;
mod csv;
mod json;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::NaiveDate;
use serde::Deserialize;
use utoipa::IntoParams;

use self::{
    body::{StatementBody, StatementFormat},
    csv::Csv,
    json::Json,
};
use super::{
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        content_negotiation::preferred,
        parameters::{PathId, QueryParameters, date, min_position, require_ordered},
    },
    openapi::PositionText,
    problem::Problem,
    response::position_header,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_event_store::Position;
use passbook_read_model::{
    Positioned,
    transactions::statement::{Lines, Period, Statement},
};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

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
}

fn required_day(field: &'static str, text: Option<&str>) -> Result<NaiveDate, Problem> {
    let missing = || {
        let detail = format!("The parameter {field} is missing. Send a day in UTC such as 2026-01-31.");
        Problem::invalid_parameter(field, detail)
    };
    date(field, text)?.ok_or_else(missing)
}

/// Get an account's statement
///
/// Every movement of money in a period of days, oldest first, between the opening and the closing balance. Statements of
/// consecutive periods join without gap or overlap. The statement of a period that is over is final: it contains every event of
/// the period, and no later request gets another one. With a `to` in the future it contains no event recorded after `position`;
/// pass `min_position` to include the events that you know of. With `Accept: text/csv`, the statement has one row per line
/// between the rows `opening_balance`, `total_in`, `total_out` and `closing_balance`. A text that a spreadsheet would execute as
/// a formula starts with an apostrophe. A long statement is streamed; one that ends before its totals is incomplete and must be
/// discarded.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/statement", tag = "Queries",
    security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        StatementQuery,
    ),
    responses(
        (status = 200, description = "The statement.", content((json::StatementSchema = "application/json"), (String = "text/csv")), headers(
            ("Content-Disposition" = String, description = "The name of the file, for CSV."),
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
    let media_type = preferred(&headers, &[JSON, CSV]).ok_or_else(|| Problem::from_code(ErrorCode::NotAcceptable))?;
    let minimum = app.read_model.settled_before(account_id, Some(period.end()), minimum).await?;
    require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let Positioned { value, position, .. } = app.read_model.statement(account_id, period, minimum.as_ref()).await?;
    let statement = value.ok_or_else(|| Problem::at_position(ErrorCode::AccountNotFound, &position))?;
    let lines = app.read_model.lines(&statement);
    statement_response(statement, lines, position, media_type).await
}

async fn statement_response(
    statement: Statement,
    lines: Lines,
    position: Position,
    media_type: &str,
) -> Result<Response, Problem> {
    let position_header = position_header(&position);
    let file_name = (media_type == CSV).then(|| file_name(&statement));
    let format: Box<dyn StatementFormat> = match media_type {
        CSV => Box::new(Csv(statement)),
        _ => Box::new(Json::new(statement, position)),
    };
    let content_type = HeaderValue::from_static(format.content_type());
    let mut response = (position_header, StatementBody { format, lines }.into_body().await?).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Some(file_name) = file_name {
        headers.insert(header::CONTENT_DISPOSITION, file_name);
    }
    Ok(response)
}

fn file_name(statement: &Statement) -> HeaderValue {
    let Statement { account_id, period: Period { from, to }, .. } = statement;
    let file = format!("attachment; filename=\"statement-{account_id}-{from}-{to}.csv\"");
    HeaderValue::try_from(file).unwrap_or(HeaderValue::from_static("attachment"))
}
