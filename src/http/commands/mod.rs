//! Every command of the API, with its parsed body and the parameters of its path.
//!
//! The handlers of single commands and those of batches make the same [`ApiCommand`]. So both need the same scopes, accept the same
//! values and get the same status.

pub mod accounts;
pub mod holds;
mod kind;
pub mod movements;

use axum::response::Response;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::{
    accounts::{OpenAccount, Reason, SetLimits},
    holds::{CaptureHoldBody, PlaceHoldBody, VoidHoldBody},
    movements::{MoveMoney, ReverseTransaction, TransferMoney},
};
use super::{
    extract::{
        command::CommandRequest,
        nested_path::{PathHold, PathTransaction},
    },
    problem::Problem,
    response::receipt,
};
use passbook_auth::Caller;
use passbook_bank::{AccountAccess, Bank, BatchCommand, CommandContext, Request};
use passbook_domain::{AccountCommand, Command};

pub use kind::{CommandKind, Target};

/// A command whose body is parsed. Its values are not validated yet.
#[derive(Debug)]
pub enum ApiCommand {
    Open(OpenAccount),
    Deposit(Uuid, MoveMoney),
    Withdraw(Uuid, MoveMoney),
    Transfer(TransferMoney),
    Freeze(Uuid, Reason),
    Unfreeze(Uuid, Reason),
    Close(Uuid, Reason),
    PlaceHold(Uuid, PlaceHoldBody),
    CaptureHold(PathHold, CaptureHoldBody),
    VoidHold(PathHold, VoidHoldBody),
    Reverse(PathTransaction, ReverseTransaction),
    SetLimits(Uuid, SetLimits),
}

/// A command that only the state can refuse.
#[derive(Debug)]
pub struct ValidCommand {
    /// The command for the write side.
    pub command: BatchCommand,
    /// What its answer depends on.
    pub target: Target,
}

impl ApiCommand {
    /// Checks the caller's scopes, then the values.
    ///
    /// # Errors
    /// 403 `forbidden`, or the 400 of an invalid value.
    pub fn validate(self, caller: &Caller, context: CommandContext, bank: &Bank) -> Result<ValidCommand, Problem> {
        let (kind, account_id) = self.addressed();
        let scope = kind.scope();
        caller.require(scope)?;
        // A scope that exists only for any account does not depend on ownership.
        let access = if scope.on_any_account().is_none() { AccountAccess::Any } else { context.access };
        let context = CommandContext { access, ..context };
        let target = Target { kind, account_id, dry_run: context.dry_run };
        let request = self.into_request(caller, &context, bank)?;
        Ok(ValidCommand { command: BatchCommand { request, context }, target })
    }

    /// The kind, and the account that the path names.
    fn addressed(&self) -> (CommandKind, Option<Uuid>) {
        match self {
            Self::Open(_) => (CommandKind::Open, None),
            Self::Deposit(account_id, _) => (CommandKind::Deposit, Some(*account_id)),
            Self::Withdraw(account_id, _) => (CommandKind::Withdraw, Some(*account_id)),
            Self::Transfer(_) => (CommandKind::Transfer, None),
            Self::Freeze(account_id, _) => (CommandKind::Freeze, Some(*account_id)),
            Self::Unfreeze(account_id, _) => (CommandKind::Unfreeze, Some(*account_id)),
            Self::Close(account_id, _) => (CommandKind::Close, Some(*account_id)),
            Self::PlaceHold(account_id, _) => (CommandKind::PlaceHold, Some(*account_id)),
            Self::CaptureHold(path, _) => (CommandKind::CaptureHold, Some(path.account_id)),
            Self::VoidHold(path, _) => (CommandKind::VoidHold, Some(path.account_id)),
            Self::Reverse(path, _) => (CommandKind::Reverse, Some(path.account_id)),
            Self::SetLimits(account_id, _) => (CommandKind::SetLimits, Some(*account_id)),
        }
    }

    fn into_request(self, caller: &Caller, context: &CommandContext, bank: &Bank) -> Result<Request, Problem> {
        let on = |account_id, command| Command::Account { account_id, command };
        let command = match self {
            Self::Open(body) => {
                require_no_condition(context)?;
                body.into_command(caller, context, bank)?
            }
            Self::Deposit(account_id, body) => on(account_id, body.into_account_command(AccountCommand::Deposit)?),
            Self::Withdraw(account_id, body) => on(account_id, body.into_account_command(AccountCommand::Withdraw)?),
            Self::Transfer(body) => {
                require_no_condition(context)?;
                Command::Transfer(body.into_transfer(bank)?)
            }
            Self::Freeze(account_id, body) => on(account_id, AccountCommand::Freeze { reason: body.text()? }),
            Self::Unfreeze(account_id, body) => on(account_id, AccountCommand::Unfreeze { reason: body.text()? }),
            Self::Close(account_id, body) => on(account_id, AccountCommand::Close { reason: body.text()? }),
            Self::PlaceHold(account_id, body) => on(account_id, body.into_account_command()?),
            Self::CaptureHold(path, body) => body.into_command(path, bank)?,
            Self::VoidHold(path, body) => on(path.account_id, body.into_account_command(path.hold_id)?),
            Self::Reverse(path, body) => return Ok(Request::Reversal(body.into_reversal(path)?)),
            Self::SetLimits(account_id, body) => on(account_id, body.into_account_command()?),
        };
        Ok(Request::Command(command))
    }
}

/// Rejects `If-Match`, for commands that do not address a single existing account.
fn require_no_condition(context: &CommandContext) -> Result<(), Problem> {
    match context.if_match {
        None => Ok(()),
        Some(_) => Err(Problem::condition_unsupported()),
    }
}

/// Executes the command that `make_command` makes of the body of a single request, and returns its response.
///
/// # Errors
/// The caller lacks a scope, a value is invalid, or the command is refused. A weak `If-Match` gets an explanation of its own.
pub async fn execute<B: DeserializeOwned>(
    bank: &Bank,
    caller: &Caller,
    request: CommandRequest<B>,
    make_command: impl FnOnce(B) -> ApiCommand,
) -> Result<Response, Problem> {
    let (body, context, conditions) = request.into_parts();
    let ValidCommand { command, target } = make_command(body).validate(caller, context, bank)?;
    let outcome = match command.request {
        Request::Command(request) => bank.execute(request, command.context).await,
        // Boxed, because every handler of a command would be as large as this future: 17 KB, of which it needs one.
        Request::Reversal(reversal) => Box::pin(bank.reverse(reversal, command.context)).await,
    };
    let outcome = outcome.map_err(|error| conditions.explain(error.into()))?;
    Ok(receipt(target, &outcome))
}
