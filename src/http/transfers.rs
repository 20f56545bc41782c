//! The command over two accounts.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    App,
    accounts::movement,
    answer::{created, located},
    ask::{Ask, Options},
    openapi::{RetryHeader, TransferProblems},
    parameters::{CurrencyCode, MinorUnits, uuid},
    problem::{Code, Problem},
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{Receipt, TransferReceipt};
use passbook_domain::{Command, Transfer};

/// Moves money from one account to another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferMoney {
    /// The account that pays.
    #[schema(format = Uuid)]
    from: String,
    /// The account that is paid.
    #[schema(format = Uuid)]
    to: String,
    /// How much, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The currency that both accounts are believed to have; another one is refused.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// The caller's own words, kept for ever; no personal data.
    #[schema(example = "rent", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
}

/// Transfer money
///
/// Moves money between two open accounts of one currency. Both change in one transaction, or neither does. Money may be
/// sent to any open account; of one that is not the caller's the receipt shows only the id, and whatever it refuses is
/// `account_not_found`.
#[utoipa::path(
    post, path = "/v1/transfers", tag = "Commands", security(("bearer" = ["accounts:write"])), params(Options, RetryHeader),
    request_body(content = TransferMoney, example = json!({
        "from": "01900000-0000-7000-8000-000000000001", "to": "01900000-0000-7000-8000-000000000002", "amount": 500, "currency": "EUR", "reference": "rent"
    })),
    responses(
        (status = 201, description = "Recorded on both accounts.", body = TransferReceipt, headers(
            ("Location" = String, description = "Where the transfer can be read."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        (status = 200, description = "What the command would do; nothing was recorded (`dry_run`).", body = TransferReceipt),
        TransferProblems,
    ),
)]
pub async fn transfer(State(app): State<App>, caller: Caller, ask: Ask<TransferMoney>) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    let Ask { body, request } = ask.without_condition()?;
    let (from, to) = (uuid("from", &body.from)?, uuid("to", &body.to)?);
    if from == to {
        return Err(Problem::of(Code::SameAccount));
    }
    let movement = movement(body.amount, body.currency.as_ref(), body.reference)?;
    let command = Command::Transfer(Transfer { transfer_id: app.bank.new_transfer_id(from), from, to, movement });
    let dry_run = request.dry_run;
    let answer = app.bank.execute(command, request).await?;
    let response = created(&answer, dry_run);
    Ok(match &answer.receipt {
        Receipt::Transfer(transfer) => located(response, &format!("/v1/transfers/{}", transfer.transfer_id)),
        Receipt::Account(_) => response,
    })
}
