//! The reversal of a transaction: `POST /v1/accounts/{account_id}/transactions/{version}/reversal`.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    extract::{
        command::{CommandOptions, CommandRequest, ConditionHeader, RetryHeader},
        nested_path::PathTransaction,
        parameters::{MinorUnits, text},
    },
    problem::Problem,
    response::{CommandReceipt, created_receipt_on},
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{AccountAccess, Reversal};

/// Pays a transaction back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReverseTransaction {
    /// The amount, in minor units, at most what is left of the transaction; default: all of it.
    #[schema(value_type = Option<i64>, example = 300, minimum = 1, maximum = 9007199254740991i64)]
    amount: Option<MinorUnits>,
    /// A text of the caller, stored for ever; no personal data.
    #[schema(example = "goods returned", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

/// Reverse a transaction
///
/// Pays back a deposit, an opening deposit, a withdrawal, a capture or a transfer, in part or whole, never more than its amount in
/// sum. A transfer is addressed on either of its accounts; both change in one transaction. The account that pays needs the money
/// `available`. A reversal cannot be reversed.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/transactions/{version}/reversal", tag = "Commands", security(("bearer" = ["accounts:reverse"])),
    params(
        ("account_id" = Uuid, Path, description = "The account of the transaction.", example = "01900000-0000-7000-8000-000000000004"),
        ("version" = i64, Path, minimum = 1, description = "The `version` of the transaction.", example = 1),
        CommandOptions, RetryHeader, ConditionHeader,
    ),
    request_body(content = ReverseTransaction, example = json!({"amount": 300, "reason": "goods returned"})),
    responses(
        (status = 201, description = "The reversal was recorded. The receipt of a transfer's reversal is that of a transfer: `from` is the account that pays back.", body = CommandReceipt),
        (status = 200, description = "The receipt that the command would have; nothing was recorded (`dry_run`).", body = CommandReceipt),
    ),
)]
pub async fn reverse_transaction(
    State(app): State<AppState>,
    caller: Caller,
    PathTransaction { account_id, version }: PathTransaction,
    request: CommandRequest<ReverseTransaction>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsReverse)?;
    let request = request.with_access(AccountAccess::Any);
    let dry_run = request.context.dry_run;
    let make_reversal = |body: ReverseTransaction| {
        let amount = body.amount.map(MinorUnits::amount).transpose()?;
        Ok(Reversal { account_id, version, amount, reason: text("reason", body.reason)? })
    };
    let outcome = request.reverse(&app.bank, make_reversal).await?;
    Ok(created_receipt_on(account_id, &outcome, dry_run))
}
