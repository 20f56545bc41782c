//! The log as it was recorded: an account's events by version, and all events in order.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Page,
    cursor,
    openapi::{ListProblems, QueryProblems},
    parameters::{Id, Parameters, limit, time},
    problem::{Code, Problem},
};
use passbook_audit::{EventRecord, Filter};
use passbook_auth::{Caller, Scope};
use passbook_domain::EventType;

/// Which events of an account.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountEventsQuery {
    /// Only those after this version; `next` of a page.
    #[param(example = 1, minimum = 0, nullable = false)]
    after_version: Option<i64>,
    /// How many at the most.
    #[param(example = 100, minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<i64>,
}

/// Which events of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
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
    /// How many at the most.
    #[param(example = 100, minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<i64>,
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// The events. With a `type` there may be few or none although more come behind `next`.
    data: Vec<EventRecord>,
    /// Pass it as `after` for what comes next, now or later. Never `null`: the log goes on.
    #[schema(example = "42-9f86d081")]
    next: String,
}

/// List an account's events
///
/// Everything that happened to the account, oldest first, as it was recorded.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/events", tag = "Audit", security(("bearer" = ["audit:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"),
        AccountEventsQuery,
    ),
    responses((status = 200, description = "A page of events.", body = Page<EventRecord>), QueryProblems),
)]
pub async fn list_account_events(
    State(app): State<App>,
    caller: Caller,
    Id(account_id): Id,
    Parameters(query): Parameters<AccountEventsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let limit = limit(query.limit)?;
    let version = after_version(query.after_version)?;
    let history = app.trail.history(account_id, version, limit).await?;
    let (data, more) = history.ok_or(Problem::of(Code::AccountNotFound))?;
    let next = data.last().filter(|_| more).map(|event| event.version.to_string());
    Ok(Json(Page { data, next }).into_response())
}

/// List all events
///
/// The log in the order in which it became visible: positions have no holes, and none appears later among those that were
/// read. Over several partitions that is the order within each, and a cursor has a place in all. Read on with `next`, also after a page that is empty. A cursor of another history of the log, as after a restore,
/// is refused.
#[utoipa::path(
    get, path = "/v1/events", tag = "Audit", security(("bearer" = ["audit:read"])), params(EventsQuery),
    responses((status = 200, description = "A page of the log.", body = EventPage), ListProblems),
)]
pub async fn list_events(
    State(app): State<App>,
    caller: Caller,
    Parameters(query): Parameters<EventsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AuditRead)?;
    let limit = limit(query.limit)?;
    let after = cursor::log("after", query.after.as_deref())?;
    let filter = Filter { event_type: query.event_type, since: time("since", query.since.as_deref())? };
    let begin = app.trail.begin(&after, &filter).await?;
    let page = app.trail.page(&begin, &filter, limit).await?;
    Ok(Json(EventPage { data: page.events, next: page.next.to_string() }).into_response())
}

fn after_version(version: Option<i64>) -> Result<i64, Problem> {
    match version.unwrap_or(0) {
        version @ 0.. => Ok(version),
        ..0 => Err(Problem::field(Code::InvalidParameter, "after_version", "after_version is a version, or 0")),
    }
}
