//! The results of the commands of a batch, complete or short (`Prefer: return=minimal`).

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{
    commands::Target,
    error_code::ErrorCode,
    problem::{Problem, ProblemBody},
    response::CommandReceipt,
};
use passbook_bank::{AccountReceipt, CommandOutcome, Receipt, TransferReceipt};
use passbook_event_store::Position;

/// How much a result says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The receipt or the problem.
    Full,
    /// The status, and the version or the code.
    Minimal,
}

/// What a command of a batch led to.
#[derive(Debug)]
pub enum CommandResult {
    /// The command was executed, or its recorded receipt was found.
    Succeeded(Target, Box<CommandOutcome>),
    /// The command was refused, or failed.
    Failed(Problem),
}

/// The request whose path and id the problems of its commands name.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    /// The path of the request.
    pub path: &'a str,
    /// The id of the request.
    pub request_id: &'a str,
}

/// The result of one command of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub struct ResultBody<'a> {
    /// The number of the command, from 0. Empty lines do not count. Absent from complete results of a JSON batch, which are in the order
    /// of the commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    index: Option<u64>,
    /// The status that the single command would have.
    #[schema(example = 201)]
    status: u16,
    /// The receipt of a command that succeeded; absent from short results.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CommandReceipt>, nullable = false)]
    receipt: Option<&'a Receipt>,
    /// `true` if the outcome was recorded earlier under the same `idempotency_key`; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    replayed: bool,
    /// The problem of a command that was refused or failed; absent from short results.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemBody<'static>>, nullable = false)]
    problem: Option<ProblemBody<'a>>,
    /// The version of the account after the command, in short results only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    version: Option<i64>,
    /// The code of the problem, in short results only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<ErrorCode>,
}

/// The results of a batch of which every command was executed by itself.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResults)]
pub struct EachBody<'a> {
    /// The position of the batch in the log. Pass it as `min_position` to read your own writes.
    #[schema(value_type = String)]
    pub position: Position,
    /// The result of each command, in order.
    pub results: Vec<ResultBody<'a>>,
}

/// The short results of a batch that was executed as a whole.
#[derive(Serialize)]
pub struct MinimalAtomicBody<'a> {
    /// The id of the batch.
    pub batch_id: Uuid,
    /// The position of the batch in the log.
    pub position: &'a Position,
    /// The result of each command, in order.
    pub results: Vec<ResultBody<'a>>,
}

/// The receipt of a batch that was executed as a whole, in one transaction.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the derive reads it")]
pub struct AtomicBatch {
    /// The id of the batch, also in the metadata of its events.
    batch_id: Uuid,
    /// The position of the batch in the log. Pass it as `min_position` to read your own writes.
    position: String,
    /// The receipt of each command, in order; with `Prefer: return=minimal`, its short result.
    results: Vec<AtomicResult>,
}

/// The receipt of a command of an atomic batch, or its short result.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the derive reads it")]
pub enum AtomicResult {
    /// One account changed.
    Account(AccountReceipt),
    /// Money moved between two accounts.
    Transfer(Box<TransferReceipt>),
    /// A short result.
    Minimal(ResultBody<'static>),
}

/// The answer to a batch: the results of its commands, or the receipt of the whole after a dry run.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the derive reads it")]
pub enum BatchAnswer {
    /// Every command was executed by itself.
    Each(EachBody<'static>),
    /// The batch would be executed as a whole.
    Atomic(AtomicBatch),
}

impl CommandResult {
    /// The result of an executed command.
    pub fn of(target: Target, outcome: Result<CommandOutcome, passbook_bank::Error>) -> Self {
        match outcome {
            Ok(outcome) => Self::Succeeded(target, Box::new(outcome)),
            Err(error) => Self::Failed(error.into()),
        }
    }

    /// The status of the single command.
    pub fn status(&self) -> u16 {
        match self {
            Self::Succeeded(target, _) => target.status().as_u16(),
            Self::Failed(problem) => problem.code().status().as_u16(),
        }
    }

    /// The position of the state that the result rests on; `None` if the command was judged from the request alone.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Succeeded(_, outcome) => Some(outcome.receipt.position()),
            Self::Failed(problem) => problem.position().cloned(),
        }
    }

    /// The problem of a command that failed.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Succeeded(..) => None,
            Self::Failed(problem) => Some(problem),
        }
    }

    /// The result of the command with this index.
    pub fn body<'a>(&'a self, form: Form, index: Option<u64>, instance: Instance<'a>) -> ResultBody<'a> {
        let empty = ResultBody {
            index,
            status: self.status(),
            receipt: None,
            replayed: false,
            problem: None,
            version: None,
            code: None,
        };
        match (self, form) {
            (Self::Succeeded(_, outcome), Form::Full) => {
                ResultBody { receipt: Some(&outcome.receipt), replayed: outcome.replayed, ..empty }
            }
            (Self::Succeeded(target, outcome), Form::Minimal) => {
                ResultBody { version: version(*target, &outcome.receipt), replayed: outcome.replayed, ..empty }
            }
            (Self::Failed(problem), Form::Full) => {
                let Instance { path, request_id } = instance;
                let replayed = problem.is_replayed();
                ResultBody { problem: Some(problem.body(path, request_id)), replayed, ..empty }
            }
            (Self::Failed(problem), Form::Minimal) => {
                ResultBody { code: Some(problem.code()), replayed: problem.is_replayed(), ..empty }
            }
        }
    }
}

impl<'a> ResultBody<'a> {
    /// The short result of a command of an atomic batch.
    pub fn minimal(index: u64, target: Target, receipt: &Receipt) -> Self {
        Self {
            index: Some(index),
            status: target.status().as_u16(),
            receipt: None,
            replayed: false,
            problem: None,
            version: version(target, receipt),
            code: None,
        }
    }
}

/// The version in the ETag of the single command's receipt.
fn version(target: Target, receipt: &Receipt) -> Option<i64> {
    target.tagged_account(receipt).map(|account| account.version)
}
