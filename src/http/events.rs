//! The events as recorded: of one account by version, and of the whole log by position.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error_code::ErrorCode,
    extract::{
        cursor,
        parameters::{PathId, QueryParameters, limit, time},
    },
    problem::Problem,
    response::{AccountEventPage, Page},
    state::AppState,
};
use passbook_audit::{Cursor, EventFilter, EventRecord};
use passbook_auth::{Caller, Scope};
use passbook_domain::EventType;

/// The query parameters of the list of an account's events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountEventsQuery {
    /// Only events after this version, the `next` of the previous page.
    #[param(example = 1, minimum = 0, nullable = false)]
    after_version: Option<i64>,
    /// The most events of the page.
    #[param(example = 100, minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<i64>,
}

impl AccountEventsQuery {
    fn after_version(&self) -> Result<i64, Problem> {
        match self.after_version.unwrap_or(0) {
            version @ 0.. => Ok(version),
            ..0 => Err(Problem::invalid_parameter("after_version", "after_version must be 0 or more.")),
        }
    }
}

/// The query parameters of the list of all events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
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
    /// The most events of the page.
    #[param(example = 100, minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<i64>,
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// The events. With a `type`, the page may be short or empty although more events follow after `next`.
    data: Vec<EventRecord>,
    /// The cursor of the next page, to be passed as `after`, now or later. It is never `null`, because the log continues.
    #[schema(value_type = Cursor)]
    next: String,
}

/// List an account's events
///
/// All events of the account as recorded, oldest first.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/events", tag = "Audit", security(("bearer" = ["audit:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        AccountEventsQuery,
    ),
    responses((status = 200, description = "A page of events.", body = AccountEventPage)),
)]
pub async fn list_account_events(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<AccountEventsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let limit = limit(query.limit)?;
    let history = app.feed.reader().account_events(account_id, query.after_version()?, limit).await?;
    let (data, has_more) = history.ok_or(Problem::from_code(ErrorCode::AccountNotFound))?;
    Ok(Json(Page::new(data, has_more, |last| last.version.to_string())).into_response())
}

/// List all events
///
/// The log in the order in which events became visible. Positions have no gaps, and no event appears later before one that was
/// already read. With several partitions, this order holds within each partition, and a cursor has a position in each of them.
/// Continue with `next`, also after an empty page. A cursor of another history of the log, as after a restore, is rejected.
#[utoipa::path(
    get, path = "/v1/events", tag = "Audit", security(("bearer" = ["audit:read"])), params(EventsQuery),
    responses((status = 200, description = "A page of the log.", body = EventPage)),
)]
pub async fn list_events(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<EventsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let limit = limit(query.limit)?;
    let after = cursor::parse_log("after", query.after.as_deref())?;
    let filter = EventFilter { event_type: query.event_type, since: time("since", query.since.as_deref())? };
    let begin = app.feed.reader().start(&after, &filter).await?;
    let page = app.feed.reader().page(&begin, &filter, limit).await?;
    Ok(Json(EventPage { data: page.events, next: page.next.to_string() }).into_response())
}
