//! The problems of each operation: one table of codes, from which the responses and the schema of the operation's problems follow.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::{
    AllOfBuilder, Content, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema, Type, path::Operation,
};

use super::{AccessControl, capitalized};
use crate::http::{
    error_code::ErrorCode::{self, *},
    middleware::rate_limit::is_probe,
    problem::PROBLEM_JSON,
};

/// The codes of every operation.
const ANY: &[ErrorCode] = &[MalformedRequest, InvalidParameter, PayloadTooLarge, InternalError, Overloaded];
/// The codes of a read of the log.
const LOG: &[ErrorCode] = &[StorageUnavailable];
/// The codes of a read of a view.
const VIEW: &[ErrorCode] = &[StorageUnavailable, ProjectionBehind];
/// The codes of every command.
const COMMAND: &[ErrorCode] = &[
    InvalidIdempotencyKey,
    RequestTimeout,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    StorageUnavailable,
    ClockSkewed,
    OutcomeUnknown,
];
/// The codes of a command on an existing account.
const ON_ACCOUNT: &[ErrorCode] = &[AccountNotFound, AccountClosed];
/// The codes of a command that moves money.
const MOVEMENT: &[ErrorCode] = &[InvalidAmount, InvalidCurrency, AccountFrozen, CurrencyMismatch];

/// The codes of a command that takes money out of an account, or sets it aside.
const PAY_OUT: &[ErrorCode] = &[InsufficientFunds, LimitExceeded];
/// The codes of a command on a hold.
const ON_HOLD: &[ErrorCode] = &[VersionMismatch, HoldNotFound, HoldNotActive];

/// The codes of a command on webhooks.
const WEBHOOK: &[ErrorCode] =
    &[InvalidIdempotencyKey, RequestTimeout, UnsupportedMediaType, StorageUnavailable, ClockSkewed, OutcomeUnknown];

/// The error codes that this operation can return, besides those that every operation can return. No codes: the operation has no
/// entry, which a test reports.
fn codes_of(operation_id: &str) -> &'static [&'static [ErrorCode]] {
    match operation_id {
        "openAccount" => &[COMMAND, &[InvalidAmount, InvalidCurrency, AccountExists]],
        "createDeposit" => &[COMMAND, ON_ACCOUNT, MOVEMENT, &[VersionMismatch, BalanceLimitExceeded]],
        "createWithdrawal" => &[COMMAND, ON_ACCOUNT, MOVEMENT, PAY_OUT, &[VersionMismatch]],
        "createTransfer" => &[COMMAND, ON_ACCOUNT, MOVEMENT, PAY_OUT, &[SameAccount, BalanceLimitExceeded]],
        "placeHold" => &[COMMAND, ON_ACCOUNT, MOVEMENT, PAY_OUT, &[VersionMismatch, TooManyHolds]],
        "captureHold" => &[
            COMMAND,
            ON_ACCOUNT,
            ON_HOLD,
            &[InvalidAmount, SameAccount, AccountFrozen, CurrencyMismatch, ExceedsHold, BalanceLimitExceeded],
        ],
        "voidHold" => &[COMMAND, ON_ACCOUNT, ON_HOLD],
        "reverseTransaction" => &[
            COMMAND,
            ON_ACCOUNT,
            &[VersionMismatch, InvalidAmount, TransactionNotFound, AccountFrozen],
            &[NotReversible, AlreadyReversed, ExceedsReversible, InsufficientFunds, BalanceLimitExceeded],
        ],
        "setLimits" => &[COMMAND, ON_ACCOUNT, &[VersionMismatch, InvalidAmount, BalanceLimitExceeded]],
        "freezeAccount" => &[COMMAND, ON_ACCOUNT, &[VersionMismatch, AccountFrozen]],
        "unfreezeAccount" => &[COMMAND, ON_ACCOUNT, &[VersionMismatch, AccountNotFrozen]],
        "closeAccount" => &[COMMAND, ON_ACCOUNT, &[VersionMismatch, AccountFrozen, HoldsActive, BalanceNotZero]],
        "executeBatch" => &[
            COMMAND,
            ON_ACCOUNT,
            MOVEMENT,
            PAY_OUT,
            &[
                Forbidden,
                SameAccount,
                AccountExists,
                AccountNotFrozen,
                BalanceNotZero,
                BalanceLimitExceeded,
                HoldsActive,
            ],
            &[HoldNotFound, HoldNotActive, ExceedsHold, TooManyHolds],
            &[TransactionNotFound, NotReversible, AlreadyReversed, ExceedsReversible],
        ],
        "getAccount" => &[VIEW, &[AccountNotFound, VersionNotFound]],
        "listAccounts" | "searchTransactions" => &[VIEW, &[InvalidCurrency]],
        "listTransactions" | "listDailyBalances" | "listHolds" | "getLimits" => &[VIEW, &[AccountNotFound]],
        "getHold" => &[VIEW, &[AccountNotFound, HoldNotFound]],
        "getStatement" => &[VIEW, &[AccountNotFound, NotAcceptable]],
        "getJournal" => &[VIEW, &[NotAcceptable]],
        "getTransfer" => &[VIEW, &[NotFound]],
        "getOverview" | "getTrialBalance" | "listProjections" => &[VIEW],
        "rebuildProjection" => &[LOG, &[NotFound, RebuildRunning]],
        "registerWebhook" => &[WEBHOOK, &[WebhookExists, LimitExceeded]],
        "pauseWebhook"
        | "resumeWebhook"
        | "deleteWebhook"
        | "replayWebhook"
        | "rotateWebhookSecret"
        | "sendWebhookTest" => &[WEBHOOK, &[NotFound]],
        "listWebhooks" => &[LOG],
        "getWebhook" | "listWebhookDeliveries" => &[LOG, &[NotFound]],
        "listAccountEvents" | "verifyAccount" => &[LOG, &[AccountNotFound]],
        "listEvents" | "streamEvents" | "getLogHead" | "getLogCheckpoint" | "listLogKeys" => &[LOG],
        "getReadiness" => &[VIEW, &[ClockSkewed]],
        "getLiveness" | "getMetrics" | "listCurrencies" => &[&[]],
        _ => &[],
    }
}

/// Adds a response for each status of the operation's problems. Returns the name and the schema of these problems.
pub fn add_problems(operation: &mut Operation, path: &str, access: AccessControl) -> (String, RefOr<Schema>) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let name = format!("{}Problem", capitalized(&id));
    let codes: BTreeSet<_> =
        codes(&id, path, operation, access).into_iter().map(|code| (code.status(), code)).collect();
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (status, code) in &codes {
        let line = format!("`{}`: {}", code.as_str(), code.spec().help);
        by_status.entry(status.as_u16()).or_default().push(line);
    }
    for (status, lines) in by_status {
        let content = Content::new(Some(Ref::from_schema_name(&name)));
        let response = ResponseBuilder::new().description(lines.join("\n\n")).content(PROBLEM_JSON, content).build();
        operation.responses.responses.insert(status.to_string(), response.into());
    }
    let names = codes.iter().map(|(_, code)| code.as_str());
    let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
    let narrowed = ObjectBuilder::new().property("code", code).required("code");
    let description = format!("A problem of the operation `{id}`.");
    let schema =
        AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(narrowed).description(Some(description));
    (name, schema.into())
}

fn codes(id: &str, path: &str, operation: &Operation, access: AccessControl) -> Vec<ErrorCode> {
    let own = codes_of(id);
    let mut codes = own.concat();
    if !own.is_empty() {
        codes.extend(ANY);
    }
    if !is_probe(path) {
        codes.push(RateLimited);
    }
    // Without access control, requests of pages of other sites are forbidden; with it, those whose token lacks a scope.
    let scopes = operation.security.iter().flatten().filter_map(super::scope_of).count();
    if access != AccessControl::On || scopes > 0 {
        codes.push(Forbidden);
    }
    if operation.security.is_some() {
        codes.push(Unauthenticated);
    }
    codes
}
