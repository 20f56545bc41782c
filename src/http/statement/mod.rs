//! An account's statement, as JSON or as CSV, written page by page as fast as the client reads it.

mod csv;
mod json;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::NaiveDate;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use self::{csv::Csv, json::Json};
use super::{
    App,
    accept::preferred,
    answer::position,
    caller::visible,
    openapi::StatementProblems,
    parameters::{Id, Parameters, date, min_position},
    problem::{Code, Problem},
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::{
    Error, Seen,
    transactions::{
        Totals, TransactionView,
        statement::{Lines, Period, Statement},
    },
};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

/// Which days, and how fresh.
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
    #[param(example = "1", pattern = "^[0-9]{1,18}$", nullable = false)]
    min_position: Option<String>,
}

impl StatementQuery {
    fn period(&self) -> Result<Period, Problem> {
        let (from, to) = (day("from", self.from.as_deref())?, day("to", self.to.as_deref())?);
        match from <= to {
            true => Ok(Period { from, to }),
            false => Err(Problem::field(Code::InvalidParameter, "to", "to is before from")),
        }
    }
}

/// A day that must be said.
fn day(field: &'static str, text: Option<&str>) -> Result<NaiveDate, Problem> {
    let missing =
        || Problem::field(Code::InvalidParameter, field, format!("{field} is missing: a day such as 2026-01-31"));
    date(field, text)?.ok_or_else(missing)
}

/// Draw an account's statement
///
/// Every movement of money within some days, oldest first, between the balance before and the balance after. Statements
/// over consecutive days join without gap or overlap. It holds nothing that was recorded after `position`: pass
/// `min_position` to have at least what you know of, and for the last word on a day that is over the position of
/// `GET /v1/log/head`, asked some seconds after its end. With `Accept: text/csv` it has a row for each line between the rows
/// `opening_balance`, `total_in`, `total_out` and `closing_balance`; what a spreadsheet would take for a formula
/// in a text has an apostrophe before it. A long statement comes as it is read; one that ends before its totals was broken off and
/// says nothing.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/statement", tag = "Queries",
    security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        StatementQuery,
    ),
    responses(
        (status = 200, description = "The statement.", content((json::StatementBody = "application/json"), (String = "text/csv")), headers(
            ("Passbook-Position" = String, description = "How far the view has read; also in the body as `position`."),
            ("Content-Disposition" = String, description = "The name of the file, for CSV."),
        )),
        StatementProblems,
    ),
)]
pub async fn get_statement(
    State(app): State<App>,
    caller: Caller,
    Id(account_id): Id,
    Parameters(query): Parameters<StatementQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let period = query.period()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let media_type = preferred(&headers, &[JSON, CSV]).ok_or_else(|| Problem::of(Code::NotAcceptable))?;
    visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let Seen { value, position: seen_at, .. } = app.read_model.statement(account_id, period, minimum.as_ref()).await?;
    let statement = value.ok_or_else(|| Problem::seen_at(Code::AccountNotFound, &seen_at))?;
    let lines = app.read_model.lines(&statement);
    let file = file_name(&statement);
    let form: Box<dyn Form> = match media_type {
        CSV => Box::new(Csv(statement)),
        _ => Box::new(Json::new(statement, seen_at.clone())),
    };
    let content_type = HeaderValue::from_static(form.content_type());
    let mut response = (position(&seen_at), Writing { form, lines }.body().await?).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if media_type == CSV {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    Ok(response)
}

fn file_name(statement: &Statement) -> HeaderValue {
    let Statement { account_id, period: Period { from, to }, .. } = statement;
    let file = format!("attachment; filename=\"statement-{account_id}-{from}-{to}.csv\"");
    HeaderValue::try_from(file).unwrap_or(HeaderValue::from_static("attachment"))
}

/// How a statement is written.
trait Form: Send {
    /// The media type with its parameters.
    fn content_type(&self) -> &'static str;

    /// What comes before the lines.
    fn head(&mut self, bytes: &mut Vec<u8>);

    /// More of its lines.
    fn lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>);

    /// What comes behind the last line.
    fn end(&mut self, totals: Totals, bytes: &mut Vec<u8>);
}

/// A statement that is being written.
struct Writing {
    form: Box<dyn Form>,
    lines: Lines,
}

impl Writing {
    /// The body. What fails before its first page is read can still be told; afterwards it is broken off.
    async fn body(mut self) -> Result<Body, Error> {
        let mut first = Vec::new();
        self.form.head(&mut first);
        self.page(&mut first).await?;
        if self.lines.is_over() {
            return Ok(Body::from(first));
        }
        let rest = stream::try_unfold(self, |mut writing| async move {
            if writing.lines.is_over() {
                return Ok(None);
            }
            let mut page = Vec::new();
            let written = writing.page(&mut page).await;
            // The answer has begun: nobody else can tell.
            written.inspect_err(|error| tracing::error!(%error, "a statement is broken off"))?;
            Ok::<_, Error>(Some((page, writing)))
        });
        Ok(Body::from_stream(stream::once(async { Ok(first) }).chain(rest)))
    }

    /// Writes the next lines, and behind the last one what they come to.
    async fn page(&mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let lines = self.lines.next_page().await?;
        self.form.lines(&lines, bytes);
        if self.lines.is_over() {
            self.form.end(self.lines.totals(), bytes);
        }
        Ok(())
    }
}
