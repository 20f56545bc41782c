//! The log as it grows, as Server-Sent Events.

use std::future::pending;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::sleep;
use utoipa::IntoParams;

use super::{
    App, cursor,
    openapi::ListProblems,
    parameters::{Parameters, time},
    problem::{Code, Problem},
    serve::Endless,
};
use passbook_audit::{self as audit, Bookmark, Filter};
use passbook_auth::{Caller, Scope};
use passbook_domain::EventType;

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Tells a proxy of the nginx kind to pass on each piece as it comes.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Which events of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Behind this cursor (`next` of a page, `id` of a streamed event) or position; without it, from the first event on.
    #[param(example = "1", pattern = "^[0-9]{1,18}(-[0-9a-f]{8})?$", nullable = false)]
    after: Option<String>,
    /// Of this type.
    #[serde(rename = "type")]
    #[param(inline, nullable = false)]
    event_type: Option<EventType>,
    /// Recorded at this time (RFC 3339) or later. With `after`, whichever is later.
    #[param(example = "2026-01-31T12:00:00Z", format = DateTime, nullable = false)]
    since: Option<String>,
}

/// Follow all events
///
/// The same as the list, as Server-Sent Events and without an end: `id` is the event's cursor, `event` its type, `data` the
/// event. `Last-Event-ID`, which an `EventSource` sends by itself when it comes back, goes before `after`. A comment comes
/// every 15 s without an event, with the cursor of what was passed over. A reader that does not keep up is ended, as all are
/// when the service stops: come back with the last `id`, and nothing is missing or twice there. So is one whose token has ended. When the database is away
/// the stream pauses.
#[utoipa::path(
    get, path = "/v1/events/stream", tag = "Audit", security(("bearer" = ["audit:read"])),
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, nullable = false, pattern = "^[0-9]{1,18}(-[0-9a-f]{8})?$", description = "The `id` of the last event that the caller has."),
    ),
    responses(
        (status = 200, description = "Events, as long as the caller reads.", body = String, content_type = "text/event-stream"),
        ListProblems,
    ),
)]
pub async fn stream_events(
    State(app): State<App>,
    caller: Caller,
    Parameters(query): Parameters<StreamQuery>,
    headers: HeaderMap,
    Extension(endless): Extension<Endless>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let filter = Filter { event_type: query.event_type, since: time("since", query.since.as_deref())? };
    let after = cursor::log("after", query.after.as_deref())?;
    let stream = match last_event_id(&headers)? {
        Some(last) => app.feed.follow(last, filter).await.map_err(misplaced_id)?,
        None => app.feed.follow(after, filter).await?,
    };
    endless.set();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(stream.take_until(end_of(caller)))).into_response())
}

/// Comes when the caller's token ends, and never for somebody without one.
async fn end_of(caller: Caller) {
    match caller.lasts() {
        Some(lasts) => sleep(lasts).await,
        None => pending().await,
    }
}

pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<Bookmark>, Problem> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // What is no text is no cursor either.
    let text = value.to_str().ok().filter(|_| values.next().is_none()).unwrap_or_default();
    cursor::log(LAST_EVENT_ID, Some(text)).map(Some)
}

fn misplaced_id(error: audit::Error) -> Problem {
    match error {
        audit::Error::Misplaced(misplaced) => {
            Problem::field(Code::InvalidParameter, LAST_EVENT_ID, misplaced.to_string())
        }
        other => other.into(),
    }
}
