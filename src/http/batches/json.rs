//! A batch as one JSON object: executed as a whole, or each command by itself.

use std::fmt;

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    BATCH_BYTES_MAX, Batch, PATH,
    item::{Item, ItemError, parse_item},
    result::{CommandResult, EachBody, Form, MinimalAtomicBody, ResultBody},
    schema::ItemSchema,
};
use crate::http::{
    commands::{Target, ValidCommand},
    extract::{
        body::{JsonBody, canonical, malformed, parse},
        command::fingerprint,
        headers::idempotency_key,
    },
    header_names::{IDEMPOTENCY_REPLAYED, PASSBOOK_POSITION, RATELIMIT},
    middleware::response_budget::{ConnectionBudget, ReservedBody, unread_responses},
    problem::Problem,
};
use passbook_bank::{BatchCommand, CommandOutcome, IdempotencyKey, Receipt};
use passbook_event_store::Position;

/// The most commands of a batch.
const COMMANDS_MAX: usize = 1_000;
/// The memory that is reserved for the result of a command.
const RESULT_KIB: u64 = 2;

/// A batch of commands.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Batch)]
pub struct BatchBody<'a> {
    /// Whether all commands are executed or none (`atomic`), or every command by itself (`each`).
    #[schema(value_type = Mode)]
    mode: String,
    /// 1 to 1000 commands.
    #[serde(borrow, deserialize_with = "first_commands")]
    #[schema(value_type = Vec<ItemSchema>, min_items = 1, max_items = 1000)]
    commands: Vec<&'a RawValue>,
}

/// How the commands of a batch depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase", as = BatchMode)]
enum Mode {
    /// All commands are executed, in one transaction, or none.
    Atomic,
    /// Every command is executed by itself.
    Each,
}

/// Executes a batch.
///
/// # Errors
/// The whole batch is refused, before anything is done or by the state.
pub async fn execute(
    batch: Batch,
    budget: &ConnectionBudget,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency_key(headers)?;
    let body_kib = body_kib(headers);
    reserve(&batch, budget, body_kib)?;
    let json = JsonBody::read(headers, body).await?;
    let BatchBody { mode, commands } = parse(json.bytes())?;
    let mode = parse_mode(&mode)?;
    require_count(commands.len())?;
    if mode == Mode::Each && key.is_some() {
        let detail = "Idempotency-Key is for atomic batches. Give each command an idempotency_key.";
        return Err(Problem::invalid_parameter("Idempotency-Key", detail));
    }
    let limit = match batch.take_commands(commands.len()) {
        Ok(limit) => limit,
        Err(refused) => return Ok(*refused),
    };
    let key = key.filter(|_| !batch.dry_run).map(|key| {
        let fingerprint = fingerprint(&Method::POST, PATH, &canonical(json.bytes()), b"");
        IdempotencyKey { key, fingerprint }
    });
    let kib = body_kib + commands.len() as u64 * RESULT_KIB;
    let result = match reserve(&batch, budget, kib) {
        Ok(()) => execute_commands(&batch, mode, &commands, key).await,
        Err(problem) => Err(problem),
    };
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    if let Some(limit) = limit {
        response.headers_mut().insert(RATELIMIT, limit);
    }
    response.extensions_mut().insert(ReservedBody);
    Ok(response)
}

async fn execute_commands(
    batch: &Batch,
    mode: Mode,
    commands: &[&RawValue],
    key: Option<IdempotencyKey>,
) -> Result<Response, Problem> {
    let items = parse_items(mode, commands)?;
    match mode {
        Mode::Atomic => execute_atomic(batch, items, key).await,
        Mode::Each => execute_each(batch, items).await,
    }
}

/// The memory for the body. One without a length may have any up to the limit.
fn body_kib(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.unwrap_or(BATCH_BYTES_MAX as u64).div_ceil(1_024)
}

/// Reserves memory before it is needed, so that no command is executed whose result cannot be sent.
fn reserve(batch: &Batch, budget: &ConnectionBudget, kib: u64) -> Result<(), Problem> {
    if budget.try_reserve(batch.client_key(), kib) { Ok(()) } else { Err(unread_responses()) }
}

fn parse_mode(mode: &str) -> Result<Mode, Problem> {
    match mode {
        "atomic" => Ok(Mode::Atomic),
        "each" => Ok(Mode::Each),
        _ => Err(malformed(Some("mode".to_owned()), "mode must be atomic or each.".to_owned())),
    }
}

fn require_count(count: usize) -> Result<(), Problem> {
    match count {
        1..=COMMANDS_MAX => Ok(()),
        _ => {
            let detail = format!("A batch must have 1 to {COMMANDS_MAX} commands. Lines of JSON can have any number.");
            Err(Problem::invalid_parameter("commands", detail))
        }
    }
}

/// The commands, each parsed or with its problem.
///
/// # Errors
/// The batch is refused: a command is none, or has a key although the batch is atomic.
fn parse_items(mode: Mode, commands: &[&RawValue]) -> Result<Vec<Result<Item, Problem>>, Problem> {
    let parse = |(index, json): (usize, &&RawValue)| {
        let item = match parse_item(json.get().as_bytes()) {
            Ok(item) => Ok(item),
            Err(ItemError::Malformed(problem)) => Err(problem),
            Err(ItemError::NotACommand(problem)) => return Err(problem.with_index(Some(index))),
        };
        let has_key = item.as_ref().is_ok_and(|item| item.key.is_some());
        match mode {
            Mode::Atomic if has_key => {
                let detail = "A command of an atomic batch has no key. Send the header Idempotency-Key with the batch.";
                Err(Problem::invalid_parameter("idempotency_key", detail).with_index(Some(index)))
            }
            Mode::Atomic | Mode::Each => Ok(item),
        }
    };
    commands.iter().enumerate().map(parse).collect()
}

async fn execute_atomic(
    batch: &Batch,
    items: Vec<Result<Item, Problem>>,
    key: Option<IdempotencyKey>,
) -> Result<Response, Problem> {
    let valid = items.into_iter().enumerate().map(|(index, item)| {
        // The partition of the first account stores the key. If the first command opens an account without an id, the account gets one
        // in the partition of the key: a retry, which gets another id, finds the key there.
        let of_first = key.clone().filter(|_| index == 0);
        let valid = item.and_then(|item| batch.validate_under(item.command, of_first));
        valid.map_err(|problem| problem.with_index(Some(index)))
    });
    let (commands, targets): (Vec<BatchCommand>, Vec<Target>) = valid
        .map(|valid| valid.map(|ValidCommand { command, target }| (command, target)))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .unzip();
    let batch_id = batch.context.batch_id.unwrap_or_default();
    let outcome = batch.app.bank.execute_atomic(commands, key, batch_id).await?;
    Ok(atomic_response(batch, &targets, &outcome))
}

fn atomic_response(batch: &Batch, targets: &[Target], outcome: &CommandOutcome) -> Response {
    let CommandOutcome { receipt, replayed } = outcome;
    let status = if batch.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = match (receipt, batch.form) {
        // The replay of an outcome is the answer that was recorded.
        (Receipt::Batch(whole), Form::Minimal) if !replayed => {
            let results = targets.iter().zip(&whole.results).zip(0..);
            let results =
                results.map(|((target, receipt), index)| ResultBody::minimal(index, *target, receipt)).collect();
            let body = MinimalAtomicBody { batch_id: whole.batch_id, position: &whole.position, results };
            let mut response = (status, Json(body)).into_response();
            batch.note_preference(response.headers_mut());
            response
        }
        (receipt, Form::Full | Form::Minimal) => (status, Json(receipt)).into_response(),
    };
    set_position(response.headers_mut(), &receipt.position());
    if *replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

async fn execute_each(batch: &Batch, items: Vec<Result<Item, Problem>>) -> Result<Response, Problem> {
    let mut commands = Vec::with_capacity(items.len());
    // The results in order: a problem, or the target of the next command that was executed.
    let mut expected = Vec::with_capacity(items.len());
    for item in items {
        expected.push(item.and_then(|item| batch.validate(item)).map(|ValidCommand { command, target }| {
            commands.push(command);
            target
        }));
    }
    let outcomes = match commands.is_empty() {
        true => vec![],
        false => batch.app.bank.execute_each(commands).await?,
    };
    let mut outcomes = outcomes.into_iter();
    let results: Vec<CommandResult> = expected
        .into_iter()
        .map(|expected| match expected {
            Ok(target) => CommandResult::of(target, outcomes.next().unwrap_or(Err(passbook_bank::Error::Internal))),
            Err(problem) => CommandResult::Failed(problem),
        })
        .collect();
    let positions = results.iter().filter_map(CommandResult::position);
    let position = positions.reduce(Position::merge).unwrap_or_default();
    // The order gives the index of a complete result.
    let index = |index| (batch.form == Form::Minimal).then_some(index);
    let bodies = results.iter().zip(0..).map(|(result, at)| batch.result(result, index(at))).collect();
    let mut response = Json(EachBody { position: position.clone(), results: bodies }).into_response();
    set_position(response.headers_mut(), &position);
    batch.note_preference(response.headers_mut());
    Ok(response)
}

fn set_position(headers: &mut HeaderMap, position: &Position) {
    if let Ok(position) = position.to_string().parse() {
        headers.insert(PASSBOOK_POSITION, position);
    }
}

/// The elements of a list, but only as many as a batch may have and one more.
fn first_commands<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Commands;

    impl<'de> Visitor<'de> for Commands {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of commands")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut commands = Vec::new();
            while commands.len() <= COMMANDS_MAX
                && let Some(command) = list.next_element()?
            {
                commands.push(command);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(commands)
        }
    }

    deserializer.deserialize_seq(Commands)
}
