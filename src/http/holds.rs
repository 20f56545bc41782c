//! The holds of an account: place, capture, void, and the queries for them.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    commands::{
        ApiCommand, execute,
        holds::{CaptureHoldBody, PlaceHoldBody, VoidHoldBody},
    },
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        cursor,
        nested_path::PathHold,
        parameters::{Freshness, PathId, QueryParameters, limit, min_position},
    },
    openapi::PositionText,
    problem::Problem,
    response::{CommandReceipt, HoldPage, Page, json_view},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::AccountReceipt;
use passbook_domain::HoldStatus;
use passbook_read_model::{
    Positioned,
    holds::{HoldFilter, HoldView},
};

/// The query parameters of the list of holds.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HoldsQuery {
    /// Only holds with this status.
    #[param(inline, nullable = false)]
    status: Option<HoldStatus>,
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

/// Place a hold
///
/// Sets money of an open account aside for a payment. A hold lowers what is `available`, not the balance. It is over at the moment
/// `expires_at`. `Location` is the path of the hold.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/holds", tag = "Commands", security(("bearer" = ["accounts:holds"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000004"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = PlaceHoldBody, example = json!({
        "amount": 500, "currency": "EUR", "expires_in_seconds": 604800, "reference": "order 2026-17", "metadata": {"order": "2026-17"}
    })),
    responses(
        (status = 201, description = "The hold was placed.", body = AccountReceipt, headers(
            ("Location" = String, description = "The path of the hold."),
        )),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = AccountReceipt),
    ),
)]
pub async fn place_hold(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<PlaceHoldBody>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::PlaceHold(account_id, body)).await
}

/// Capture a hold
///
/// Takes money of an active hold, at most what it has left: pays it out, or transfers it to the account `to`. The rest is released,
/// or stays held with `"final": false`. Limits and `available` are not checked again.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/holds/{hold_id}/capture", tag = "Commands", security(("bearer" = ["accounts:holds"])),
    params(
        ("account_id" = Uuid, Path, description = "The account that the hold is on.", example = "01900000-0000-7000-8000-000000000004"),
        ("hold_id" = Uuid, Path, description = "The id of the hold, from the receipt of its placement."),
        CommandOptions, RetryHeader, ConditionHeader,
    ),
    request_body(content = CaptureHoldBody, examples(
        ("1. a part, paid out" = (value = json!({"amount": 100, "final": false, "reference": "parcel 1"}))),
        ("2. a part, transferred" = (value = json!({
            "amount": 200, "final": false, "to": "01900000-0000-7000-8000-000000000002", "reference": "parcel 2"
        }))),
    )),
    responses(
        (status = 201, description = "The capture was recorded. With `to`, the receipt is that of a transfer.", body = CommandReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = CommandReceipt),
    ),
)]
pub async fn capture_hold(
    State(app): State<AppState>,
    caller: Caller,
    path: PathHold,
    request: CommandRequest<CaptureHoldBody>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::CaptureHold(path, body)).await
}

/// Void a hold
///
/// Ends an active hold, so that its money is available again. The holds of a frozen account can be voided, too.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/holds/{hold_id}/void", tag = "Commands", security(("bearer" = ["accounts:holds"])),
    params(
        ("account_id" = Uuid, Path, description = "The account that the hold is on.", example = "01900000-0000-7000-8000-000000000004"),
        ("hold_id" = Uuid, Path, description = "The id of the hold, from the receipt of its placement."),
        CommandOptions, RetryHeader, ConditionHeader,
    ),
    request_body(content = VoidHoldBody, example = json!({"reason": "order cancelled"})),
    responses(
        (status = 200, description = "The hold was voided.", body = AccountReceipt),
    ),
)]
pub async fn void_hold(
    State(app): State<AppState>,
    caller: Caller,
    path: PathHold,
    request: CommandRequest<VoidHoldBody>,
) -> Result<Response, Problem> {
    execute(&app.bank, &caller, request, |body| ApiCommand::VoidHold(path, body)).await
}

/// List an account's holds
///
/// The holds of the account, newest first, active or over. A hold is over at the moment `expires_at`, whether its expiry is recorded
/// or not.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/holds", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000004"),
        HoldsQuery,
    ),
    responses(
        (status = 200, description = "A page of holds.", body = HoldPage),
    ),
)]
pub async fn list_holds(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    QueryParameters(query): QueryParameters<HoldsQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let limit = limit(query.limit)?;
    let before = query.after.as_deref().map(cursor::parse_hold).transpose()?;
    let minimum = min_position(query.min_position.as_deref())?;
    require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let filter = HoldFilter { status: query.status };
    let view = app.read_model.holds(account_id, filter, before, limit, minimum.as_ref()).await?;
    let cursor = |last: &HoldView| cursor::after_hold(last.version);
    Ok(json_view(view.map(|(data, has_more)| Page::new(data, has_more, cursor))))
}

/// Get a hold
///
/// One hold of the account, active or over.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/holds/{hold_id}", tag = "Queries", security(("bearer" = ["accounts:read"])),
    params(
        ("account_id" = Uuid, Path, description = "The account that the hold is on.", example = "01900000-0000-7000-8000-000000000004"),
        ("hold_id" = Uuid, Path, description = "The id of the hold, from the receipt of its placement."),
        Freshness,
    ),
    responses(
        (status = 200, description = "The hold.", body = HoldView),
    ),
)]
pub async fn get_hold(
    State(app): State<AppState>,
    caller: Caller,
    PathHold { account_id, hold_id }: PathHold,
    QueryParameters(query): QueryParameters<Freshness>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsRead)?;
    let minimum = query.min_position()?;
    require_visible(&caller, app.read_model.account(account_id, minimum.as_ref()).await?)?;
    let Positioned { value, position, generation } = app.read_model.hold(account_id, hold_id, minimum.as_ref()).await?;
    match value {
        Some(value) => Ok(json_view(Positioned { value, position, generation })),
        None => Err(Problem::at_position(ErrorCode::HoldNotFound, &position)),
    }
}
