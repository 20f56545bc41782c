//! Deposits and withdrawals of an account.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    extract::{
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        metadata::MetadataBody,
        parameters::{CurrencyCode, MinorUnits, PathId, channel, text},
    },
    problem::Problem,
    response::created_receipt,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::AccountReceipt;
use passbook_domain::{AccountCommand, Channel, Metadata, command::Movement};

/// Moves money into or out of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveMoney {
    /// The amount, in minor units (12550 is 125.50 EUR).
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The expected currency of the account; the command is rejected if the account has another one.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "invoice 2026-17", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
    /// The channel through which the money is paid; default: unknown.
    #[schema(value_type = Option<Channel>, example = "branch")]
    channel: Option<String>,
    /// Pairs of texts of the caller, stored for ever; no personal data.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<MetadataBody>,
}

/// Deposit money
///
/// Pays money into an open account.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/deposits", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = MoveMoney, example = json!({"amount": 5000, "currency": "EUR", "reference": "salary", "channel": "branch", "metadata": {"payroll": "2026-01"}})),
    responses(
        (status = 201, description = "The deposit was recorded.", body = AccountReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = AccountReceipt),
    ),
)]
pub async fn create_deposit(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<MoveMoney>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    move_money(&app, account_id, request, AccountCommand::Deposit).await
}

/// Withdraw money
///
/// Pays money out of an open account, at most what is `available`: its balance, less active holds, plus its overdraft.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/withdrawals", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), CommandOptions, RetryHeader, ConditionHeader),
    request_body(content = MoveMoney, example = json!({"amount": 2000, "currency": "EUR", "reference": "cash", "channel": "atm"})),
    responses(
        (status = 201, description = "The withdrawal was recorded.", body = AccountReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = AccountReceipt),
    ),
)]
pub async fn create_withdrawal(
    State(app): State<AppState>,
    caller: Caller,
    PathId(account_id): PathId,
    request: CommandRequest<MoveMoney>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    move_money(&app, account_id, request, AccountCommand::Withdraw).await
}

async fn move_money(
    app: &AppState,
    account_id: Uuid,
    request: CommandRequest<MoveMoney>,
    make_command: impl FnOnce(Movement, Option<Channel>) -> AccountCommand,
) -> Result<Response, Problem> {
    let dry_run = request.context.dry_run;
    let make_command = |body: MoveMoney| {
        let movement = movement(body.amount, body.currency.as_ref(), body.reference, body.metadata)?;
        Ok(make_command(movement, body.channel.as_deref().map(channel).transpose()?))
    };
    let outcome = request.execute_on(&app.bank, account_id, make_command).await?;
    Ok(created_receipt(&outcome, dry_run))
}

/// A movement from the fields of a body. The amount is validated first.
pub fn movement(
    amount: MinorUnits,
    currency: Option<&CurrencyCode>,
    reference: Option<String>,
    metadata: Option<MetadataBody>,
) -> Result<Movement, Problem> {
    Ok(Movement {
        amount: amount.amount()?,
        currency: currency.map(CurrencyCode::currency).transpose()?,
        reference: text("reference", reference)?,
        metadata: MetadataBody::metadata(metadata)?,
    })
}
