//! The holds of an account: place, capture, void, and the queries for them.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    error_code::ErrorCode,
    extract::{
        caller::require_visible,
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        cursor,
        metadata::MetadataBody,
        nested_path::PathHold,
        parameters::{CurrencyCode, Freshness, MinorUnits, PathId, QueryParameters, limit, min_position, text, uuid},
    },
    movements::movement,
    openapi::PositionText,
    problem::Problem,
    response::{
        CommandReceipt, HoldPage, Page, created_receipt, created_receipt_on, json_view, ok_receipt, with_location,
    },
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{AccountAccess, AccountReceipt};
use passbook_domain::{
    AccountCommand, Command, HoldStatus, Metadata,
    command::{CaptureHold, CaptureTo, PlaceHold},
    holds::{HOLD_SECONDS_DEFAULT, HOLD_SECONDS_MAX},
};
use passbook_read_model::{
    Positioned,
    holds::{HoldFilter, HoldView},
};

/// Sets money aside for a payment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PlaceHold)]
pub struct PlaceHoldBody {
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The expected currency of the account; the command is rejected if the account has another one.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// The seconds until the hold expires, at most 365 days; default: 604800 (7 days).
    #[schema(example = 604800, minimum = 1, maximum = 31536000)]
    expires_in_seconds: Option<i64>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "order 2026-17", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
    /// Pairs of texts of the caller, stored for ever; no personal data.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<MetadataBody>,
}

impl PlaceHoldBody {
    fn into_account_command(self) -> Result<AccountCommand, Problem> {
        let movement = movement(self.amount, self.currency.as_ref(), self.reference, self.metadata)?;
        let expires_in_seconds = expiry_seconds(self.expires_in_seconds)?;
        Ok(AccountCommand::PlaceHold(PlaceHold { unique: Uuid::now_v7(), movement, expires_in_seconds }))
    }
}

/// The seconds until a hold expires.
fn expiry_seconds(sent: Option<i64>) -> Result<u32, Problem> {
    let Some(sent) = sent else { return Ok(HOLD_SECONDS_DEFAULT) };
    let seconds = u32::try_from(sent).ok().filter(|seconds| (1..=HOLD_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| {
        let detail = format!("expires_in_seconds must be from 1 to {HOLD_SECONDS_MAX}.");
        Problem::invalid_parameter("expires_in_seconds", detail)
    })
}

/// Takes money of a hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CaptureHold)]
pub struct CaptureHoldBody {
    /// The amount, in minor units, at most what the hold has left; default: all of it.
    #[schema(value_type = Option<i64>, example = 300, minimum = 1, maximum = 9007199254740991i64)]
    amount: Option<MinorUnits>,
    /// Whether the hold ends, which releases what it has left; default: `true`.
    #[serde(rename = "final")]
    is_final: Option<bool>,
    /// The account that is paid; default: the money is paid out.
    #[schema(format = Uuid)]
    to: Option<String>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "parcel 1", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
}

impl CaptureHoldBody {
    /// The capture, and the account that it pays; `None` if the money is paid out.
    fn into_capture(self, PathHold { account_id, hold_id }: PathHold) -> Result<(CaptureHold, Option<Uuid>), Problem> {
        let amount = self.amount.map(MinorUnits::amount).transpose()?;
        let to = self.to.as_deref().map(|to| uuid("to", to)).transpose()?;
        if to == Some(account_id) {
            let detail =
                "`to` must be another account than the one that the hold is on. Leave it out to pay the money out.";
            return Err(Problem::field(ErrorCode::SameAccount, "to", detail));
        }
        let reference = text("reference", self.reference)?;
        let is_final = self.is_final.unwrap_or(true);
        // The write side reads from the log whether the hold was placed.
        Ok((CaptureHold { hold_id, was_placed: false, amount, is_final, reference }, to))
    }
}

/// Ends a hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VoidHold)]
pub struct VoidHoldBody {
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "order cancelled", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

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
    caller.require(Scope::AccountsHolds)?;
    let request = request.with_access(AccountAccess::Any);
    let dry_run = request.context.dry_run;
    let outcome = request.execute_on(&app.bank, account_id, PlaceHoldBody::into_account_command).await?;
    let response = created_receipt(&outcome, dry_run);
    Ok(match outcome.receipt.hold() {
        Some(hold) => with_location(response, &format!("/v1/accounts/{account_id}/holds/{}", hold.hold_id)),
        None => response,
    })
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
    caller.require(Scope::AccountsHolds)?;
    let request = request.with_access(AccountAccess::Any);
    let (account_id, dry_run) = (path.account_id, request.context.dry_run);
    let make_command = |body: CaptureHoldBody| {
        let (capture, to) = body.into_capture(path)?;
        Ok(match to {
            None => Command::Account { account_id, command: AccountCommand::CaptureHold(capture) },
            Some(to) => {
                let transfer_id = app.bank.new_transfer_id(account_id);
                Command::CaptureTo(CaptureTo { transfer_id, from: account_id, to, capture })
            }
        })
    };
    let outcome = request.execute(&app.bank, make_command).await?;
    Ok(created_receipt_on(account_id, &outcome, dry_run))
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
    caller.require(Scope::AccountsHolds)?;
    let request = request.with_access(AccountAccess::Any);
    let PathHold { account_id, hold_id } = path;
    let make_command = |body: VoidHoldBody| {
        let reason = text("reason", body.reason)?;
        // The write side reads from the log whether the hold was placed.
        Ok(AccountCommand::VoidHold { hold_id, was_placed: false, reason })
    };
    let outcome = request.execute_on(&app.bank, account_id, make_command).await?;
    Ok(ok_receipt(&outcome))
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
