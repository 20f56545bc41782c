//! The event stream: all events of the log as Server-Sent Events.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    connection::StreamingFlag,
    extract::{
        caller::{bearer_token, end_of_authority},
        cursor,
        parameters::{QueryParameters, time},
    },
    header_names::X_ACCEL_BUFFERING,
    problem::Problem,
    state::AppState,
};
use passbook_audit::{self as audit, Cursor, CursorParam, EventFilter, EventRecord};
use passbook_auth::{Caller, Scope};
use passbook_domain::EventType;

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The query parameters of the event stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Only events after this cursor (`next` of a page, `id` of a streamed event) or position; default: from the first event.
    #[param(value_type = Option<Cursor>, nullable = false)]
    after: Option<String>,
    /// Only events of this type.
    #[serde(rename = "type")]
    #[param(inline, nullable = false)]
    event_type: Option<EventType>,
    /// Only events recorded at this time (RFC 3339) or later. With `after`, the later of the two applies.
    #[param(example = "2026-01-31T12:00:00Z", format = DateTime, nullable = false)]
    since: Option<String>,
}

/// Stream all events
///
/// The same events as the list, as Server-Sent Events without an end: `id` is the event's cursor, `event` its type, `data` the
/// event. `Last-Event-ID`, which an `EventSource` sends when it reconnects, takes precedence over `after`. A comment is sent
/// after 15 s without an event, with the cursor up to which events were filtered out. The service ends a stream when the client
/// reads too slowly, when the token expires or its key is withdrawn, and on shutdown: reconnect with the last `id`, and no event is missing or repeated.
/// While the database is unavailable, the stream pauses.
#[utoipa::path(
    get, path = "/v1/events/stream", tag = "Audit", security(("bearer" = ["audit:read"])),
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<Cursor>, Header, nullable = false, description = "The `id` of the last event that the client has."),
    ),
    responses(
        (status = 200, description = "The events, for as long as the client reads.", body = EventRecord, content_type = "text/event-stream"),
    ),
)]
pub async fn stream_events(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<StreamQuery>,
    headers: HeaderMap,
    Extension(streaming): Extension<StreamingFlag>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let token = bearer_token(&headers).ok().map(str::to_owned);
    let filter = EventFilter { event_type: query.event_type, since: time("since", query.since.as_deref())? };
    let after = cursor::parse_log("after", query.after.as_deref())?;
    let events = match last_event_id(&headers)? {
        Some(last) => app.feed.subscribe(last, filter).await.map_err(invalid_last_event_id)?,
        None => app.feed.subscribe(after, filter).await?,
    };
    streaming.set();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(events.take_until(end_of_stream(app.clone(), caller, token)))).into_response())
}

/// Completes when the caller's token expires or is refused for another reason; never without access control.
async fn end_of_stream(app: AppState, caller: Caller, token: Option<String>) {
    let subject = Arc::clone(caller.subject());
    if let Some(reason) = end_of_authority(app, caller, token).await {
        tracing::info!(caller = &*subject, %reason, "event stream ended; its token is no longer accepted");
    }
}

/// The cursor in `Last-Event-ID`; `None` without the header.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<CursorParam>, Problem> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Several values, or one that is not text, are not a cursor. The parser rejects the empty text in their place.
    let text = value.to_str().ok().filter(|_| values.next().is_none()).unwrap_or_default();
    cursor::parse_log(LAST_EVENT_ID, Some(text)).map(Some)
}

/// Names the header in place of the query parameter.
fn invalid_last_event_id(error: audit::Error) -> Problem {
    match error {
        audit::Error::InvalidCursorPosition(error) => Problem::invalid_parameter(LAST_EVENT_ID, error.to_string()),
        other => other.into(),
    }
}
