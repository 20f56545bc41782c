//! Commands on one account.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App,
    answer::{changed, created, located},
    ask::{Ask, Options},
    openapi::{CommandProblems, ConditionHeader, OpenProblems, RetryHeader},
    parameters::{CurrencyCode, Id, MinorUnits, channel, owner, text, uuid},
    problem::Problem,
};
use passbook_auth::{Caller, Scope};
use passbook_bank::{AccountReceipt, Reach};
use passbook_domain::{Action, Channel, Command, command::Movement};

/// Opens an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenAccount {
    /// The account's currency for life (ISO 4217).
    #[schema(value_type = String, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: CurrencyCode,
    /// An opaque customer id without personal data; default: the caller.
    #[schema(example = "customer-17", min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$")]
    owner: Option<String>,
    /// Paid in at the opening, in minor units; default: 0.
    #[schema(value_type = Option<i64>, example = 10000, minimum = 0, maximum = 9007199254740991i64)]
    initial_deposit: Option<MinorUnits>,
    /// The account's id; default: a new one.
    #[schema(format = Uuid)]
    account_id: Option<String>,
}

/// Moves money in or out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveMoney {
    /// How much, in minor units (12550 is 125.50 EUR).
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    amount: MinorUnits,
    /// The currency that the account is believed to have; another one is refused.
    #[schema(value_type = Option<String>, example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<CurrencyCode>,
    /// The caller's own words, kept for ever; no personal data.
    #[schema(example = "invoice 2026-17", max_length = 500, pattern = r"^[^\u0000]*$")]
    reference: Option<String>,
    /// Where the money is paid in or out; default: unknown.
    #[schema(value_type = Option<Channel>, example = "branch")]
    channel: Option<String>,
}

/// Why the account's status changes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The caller's own words, kept for ever; no personal data.
    #[schema(example = "lost card", max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: Option<String>,
}

/// Open an account
///
/// Opens an account in one currency, with an initial deposit where one is given. The answer is its receipt, and
/// `Location` says where it can be read. With an `Idempotency-Key` a retry never opens a second account.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "Commands", security(("bearer" = ["accounts:write"])), params(Options, RetryHeader),
    request_body(content = OpenAccount, examples(
        ("an account with money" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000001", "currency": "EUR", "owner": "customer-17", "initial_deposit": 10000
        }))),
        ("an account to transfer to" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000002", "currency": "EUR", "owner": "customer-18"
        }))),
        ("an account to be closed" = (value = json!({
            "account_id": "01900000-0000-7000-8000-000000000003", "currency": "EUR", "owner": "customer-19"
        }))),
    )),
    responses(
        (status = 201, description = "Opened.", body = AccountReceipt, headers(
            ("Location" = String, description = "Where the account can be read."),
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        (status = 200, description = "What the command would do; nothing was recorded (`dry_run`).", body = AccountReceipt),
        OpenProblems,
    ),
)]
pub async fn open(State(app): State<App>, caller: Caller, ask: Ask<OpenAccount>) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    let Ask { body, request } = ask.without_condition()?;
    if body.account_id.is_some() || body.owner.as_deref().is_some_and(|owner| *owner != **caller.subject()) {
        // A chosen id would tell whether an account has it.
        caller.require(Scope::AccountsWriteAny)?;
    }
    let account_id = match &body.account_id {
        Some(id) => uuid("account_id", id)?,
        None => app.bank.new_account_id(&request),
    };
    let owner = body.owner.map(owner).transpose()?.map_or_else(|| request.caller.clone(), Into::into);
    let initial_deposit = body.initial_deposit.map_or(Ok(0), MinorUnits::initial_deposit)?;
    let action = Action::Open { owner, currency: body.currency.currency()?, initial_deposit };
    let dry_run = request.dry_run;
    let answer = app.bank.execute(Command::Account { account_id, action }, request).await?;
    // A replay tells of the account that was opened then.
    let opened = answer.receipt.account_id().unwrap_or(account_id);
    Ok(located(created(&answer, dry_run), &format!("/v1/accounts/{opened}")))
}

/// Deposit money
///
/// Pays money into an open account.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/deposits", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), Options, RetryHeader, ConditionHeader),
    request_body(content = MoveMoney, example = json!({"amount": 5000, "currency": "EUR", "reference": "salary", "channel": "branch"})),
    responses(
        (status = 201, description = "Recorded.", body = AccountReceipt, headers(
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        (status = 200, description = "What the command would do; nothing was recorded (`dry_run`).", body = AccountReceipt),
        CommandProblems,
    ),
)]
pub async fn deposit(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    ask: Ask<MoveMoney>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    move_money(&app, id, ask, Action::Deposit).await
}

/// Withdraw money
///
/// Pays money out of an open account; never more than its balance.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/withdrawals", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000001"), Options, RetryHeader, ConditionHeader),
    request_body(content = MoveMoney, example = json!({"amount": 2000, "currency": "EUR", "reference": "cash", "channel": "atm"})),
    responses(
        (status = 201, description = "Recorded.", body = AccountReceipt, headers(
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        (status = 200, description = "What the command would do; nothing was recorded (`dry_run`).", body = AccountReceipt),
        CommandProblems,
    ),
)]
pub async fn withdraw(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    ask: Ask<MoveMoney>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    move_money(&app, id, ask, Action::Withdraw).await
}

/// Freeze an account
///
/// Stops all movements of money until the account is unfrozen.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/freeze", tag = "Commands", security(("bearer" = ["accounts:freeze"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000002"), Options, RetryHeader, ConditionHeader),
    request_body(content = Reason, example = json!({"reason": "lost card"})),
    responses(
        (status = 200, description = "Frozen.", body = AccountReceipt, headers(
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        CommandProblems,
    ),
)]
pub async fn freeze(State(app): State<App>, caller: Caller, Id(id): Id, ask: Ask<Reason>) -> Result<Response, Problem> {
    caller.require(Scope::AccountsFreeze)?;
    let ask = ask.reaching(Reach::Any);
    change_status(&app, id, ask, |reason| Action::Freeze { reason }).await
}

/// Unfreeze an account
///
/// Lets money move again.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/unfreeze", tag = "Commands", security(("bearer" = ["accounts:freeze"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000002"), Options, RetryHeader, ConditionHeader),
    request_body(content = Reason, example = json!({"reason": "card found"})),
    responses(
        (status = 200, description = "Unfrozen.", body = AccountReceipt, headers(
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        CommandProblems,
    ),
)]
pub async fn unfreeze(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id,
    ask: Ask<Reason>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsFreeze)?;
    let ask = ask.reaching(Reach::Any);
    change_status(&app, id, ask, |reason| Action::Unfreeze { reason }).await
}

/// Close an account
///
/// Closes an open account with balance 0, for ever.
#[utoipa::path(
    post, path = "/v1/accounts/{account_id}/close", tag = "Commands", security(("bearer" = ["accounts:write"])),
    params(("account_id" = Uuid, Path, description = "The account.", example = "01900000-0000-7000-8000-000000000003"), Options, RetryHeader, ConditionHeader),
    request_body(content = Reason, example = json!({"reason": "asked by its owner"})),
    responses(
        (status = 200, description = "Closed.", body = AccountReceipt, headers(
            ("ETag" = String, description = "The account's version in quotes."),
            ("Passbook-Position" = String, description = "Pass it as `min_position` to read your own write."),
        )),
        CommandProblems,
    ),
)]
pub async fn close(State(app): State<App>, caller: Caller, Id(id): Id, ask: Ask<Reason>) -> Result<Response, Problem> {
    caller.require(Scope::AccountsWrite)?;
    change_status(&app, id, ask, |reason| Action::Close { reason }).await
}

async fn move_money(
    app: &App,
    account_id: Uuid,
    ask: Ask<MoveMoney>,
    action: impl Fn(Movement, Option<Channel>) -> Action,
) -> Result<Response, Problem> {
    let Ask { body, request } = ask;
    let movement = movement(body.amount, body.currency.as_ref(), body.reference)?;
    let action = action(movement, body.channel.as_deref().map(channel).transpose()?);
    let dry_run = request.dry_run;
    let answer = app.bank.execute(Command::Account { account_id, action }, request).await?;
    Ok(created(&answer, dry_run))
}

async fn change_status(
    app: &App,
    account_id: Uuid,
    ask: Ask<Reason>,
    action: impl Fn(Option<String>) -> Action,
) -> Result<Response, Problem> {
    let action = action(text("reason", ask.body.reason)?);
    let answer = app.bank.execute(Command::Account { account_id, action }, ask.request).await?;
    Ok(changed(&answer))
}

/// The amount first, then what else is said of it.
pub fn movement(
    amount: MinorUnits,
    currency: Option<&CurrencyCode>,
    reference: Option<String>,
) -> Result<Movement, Problem> {
    Ok(Movement {
        amount: amount.amount()?,
        currency: currency.map(CurrencyCode::currency).transpose()?,
        reference: text("reference", reference)?,
    })
}
