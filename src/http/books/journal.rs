//! The journal, written page by page as fast as the client reads it.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    http::{
        error_code::ErrorCode,
        extract::{
            content_negotiation::preferred,
            parameters::{QueryParameters, min_position, require_ordered, required_day},
        },
        openapi::PositionText,
        problem::Problem,
        response::position_header,
        state::AppState,
    },
    journal::{JournalFormat, JournalWriter},
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::{Error, JournalEntries, JournalEntry, JournalPeriod};

/// The query parameters of the journal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JournalQuery {
    /// The first day, in UTC.
    #[param(example = "2026-01-01", format = Date, required = true, nullable = false)]
    from: Option<String>,
    /// The day after the last, in UTC.
    #[param(example = "2026-02-01", format = Date, required = true, nullable = false)]
    to: Option<String>,
    /// The format. Without it, the header `Accept` decides.
    #[param(inline, value_type = Option<JournalFormat>, nullable = false)]
    format: Option<String>,
    /// A position (a `Passbook-Position`) that the log must have reached. The journal is read from the log, so it does not wait.
    #[param(value_type = Option<PositionText>, nullable = false)]
    min_position: Option<String>,
}

impl JournalQuery {
    fn period(&self) -> Result<JournalPeriod, Problem> {
        let (from, to) = (required_day("from", self.from.as_deref())?, required_day("to", self.to.as_deref())?);
        require_ordered(Some(from), Some(to))?;
        Ok(JournalPeriod { from: Some(from), to: Some(to) })
    }

    /// The format that the parameter names, or the one that `Accept` prefers.
    fn format(&self, headers: &HeaderMap) -> Result<JournalFormat, Problem> {
        let Some(name) = &self.format else {
            let media_types = JournalFormat::ALL.map(JournalFormat::media_type);
            let preferred = preferred(headers, &media_types);
            let mut formats = JournalFormat::ALL.into_iter();
            let format = formats.find(|format| preferred == Some(format.media_type()));
            return format.ok_or_else(|| Problem::from_code(ErrorCode::NotAcceptable));
        };
        JournalFormat::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = JournalFormat::ALL.map(JournalFormat::name).join(", ");
            Problem::invalid_parameter("format", format!("The parameter format must be one of {names}."))
        })
    }
}

/// Get the journal
///
/// Every movement of money in a period of days with its balanced postings, in the order of times; with several partitions, events
/// of equal times by partition. It is read from the log. The journal of a period that is over is final: it contains every event of
/// the period, and no later request gets another one. With a `to` in the future it contains no event recorded after
/// `Passbook-Position`.
///
/// The parameter `format` or the header `Accept` selects the format: `jsonl`, one JSON object a line with amounts in minor units,
/// or `hledger` with amounts in major units. The response is streamed; one that ends early is incomplete and must be discarded.
#[utoipa::path(
    get, path = "/v1/books/journal", tag = "Queries", security(("bearer" = ["accounts:read:any"])),
    params(JournalQuery),
    responses(
        (status = 200, description = "The journal.", content(
            (JournalEntry = "application/x-ndjson"),
            (String = "text/x-hledger"),
        ), headers(
            ("Content-Disposition" = String, description = "The name of the file."),
        )),
    ),
)]
pub async fn get_journal(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<JournalQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsReadAny)?;
    let period = query.period()?;
    let minimum = min_position(query.min_position.as_deref())?;
    let format = query.format(&headers)?;
    let (entries, position) = app.read_model.journal(period, minimum.as_ref()).await?;
    let body = JournalBody { entries, writer: JournalWriter::new(format) }.into_body(period).await?;
    let mut response = (position_header(&position), body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(header::CONTENT_DISPOSITION, file_name(period, format));
    Ok(response)
}

fn file_name(period: JournalPeriod, format: JournalFormat) -> HeaderValue {
    let [from, to] = [period.from, period.to].map(|day| day.unwrap_or_default());
    let file = format!("attachment; filename=\"journal-{from}-{to}.{}\"", format.extension());
    HeaderValue::try_from(file).unwrap_or(HeaderValue::from_static("attachment"))
}

/// The body of a journal, written page by page.
struct JournalBody {
    entries: JournalEntries,
    writer: JournalWriter,
}

impl JournalBody {
    /// Writes the first page at once, so that an error there is still a problem. After that, an error ends the body early.
    async fn into_body(mut self, period: JournalPeriod) -> Result<Body, Error> {
        let mut first = Vec::new();
        self.writer.write_head(period, &mut first);
        self.write_page(&mut first).await?;
        if self.entries.is_finished() {
            return Ok(Body::from(first));
        }
        let rest = stream::try_unfold(self, |mut body| async move {
            if body.entries.is_finished() {
                return Ok(None);
            }
            let mut page = Vec::new();
            let written = body.write_page(&mut page).await;
            // The status is already sent, so the log is the only place for the reason.
            written.inspect_err(|error| tracing::error!(%error, "journal was aborted"))?;
            Ok::<_, Error>(Some((page, body)))
        });
        Ok(Body::from_stream(stream::once(async { Ok(first) }).chain(rest)))
    }

    async fn write_page(&mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let entries = self.entries.next_page().await?;
        self.writer.write_entries(&entries, bytes);
        Ok(())
    }
}
