//! Batches: many commands in one request, as a JSON object or as lines of JSON.

mod exchange;
mod intake;
pub mod item;
mod item_fields;
mod json;
mod lines;
mod ndjson;
mod result;
mod schema;

use std::num::NonZeroU32;

use axum::{
    Extension,
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    response::{IntoResponse, Response},
};
use utoipa::IntoParams;
use uuid::Uuid;

use self::{
    item::{Item, ItemKey},
    result::{AtomicBatch, BatchAnswer, CommandResult, Form, Instance, ResultBody},
    schema::ItemSchema,
};
use super::{
    commands::{ApiCommand, ValidCommand},
    extract::{
        body::media_type,
        client_ip::ClientKey,
        command::{CommandOptions, RetryHeader, command_context, fingerprint},
        headers::traceparent,
        parameters::parse_query,
        preferences::prefers_minimal,
    },
    header_names::{PREFERENCE_APPLIED, RATELIMIT},
    middleware::{problem_log::ProblemLog, response_budget::ConnectionBudget},
    problem::Problem,
    rate_limiter::{exhausted_header, remaining_header, whole_seconds},
    router::BODY_BYTES_MAX,
    state::AppState,
};
use passbook_auth::Caller;
use passbook_bank::{CommandContext, IdempotencyKey};

pub use schema::add_item_schemas;

/// The path of the operation.
const PATH: &str = "/v1/batches";
/// The media type of lines of JSON.
const NDJSON: &str = "application/x-ndjson";
/// The most bytes of a batch in JSON.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The header of a batch.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the derive reads it")]
pub struct PreferHeader {
    /// `return=minimal` shortens each result to `index`, `status`, `version` or `code`, and `replayed` (RFC 7240).
    #[param(rename = "Prefer", required = false, nullable = false, example = "return=representation")]
    prefer: Option<String>,
}

/// A request with a batch, without its body.
pub struct Batch {
    app: AppState,
    caller: Caller,
    form: Form,
    dry_run: bool,
    problems: ProblemLog,
    /// The context of a command without key.
    context: CommandContext,
    /// The caller's trace; `None` if each command is its own cause.
    trace_id: Option<Uuid>,
}

impl FromRequestParts<AppState> for Batch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let CommandOptions { dry_run } = parse_query(&parts.uri)?;
        if parts.headers.contains_key(header::IF_MATCH) {
            return Err(Problem::condition_unsupported());
        }
        let form = if prefers_minimal(&parts.headers) { Form::Minimal } else { Form::Full };
        let context = CommandContext { batch_id: Some(Uuid::now_v7()), ..command_context(&caller, parts, dry_run) };
        let trace_id = traceparent(&parts.headers).map(|parent| Uuid::from_bytes(parent.trace_id()));
        let problems = ProblemLog::of(parts);
        Ok(Self { app: app.clone(), caller, form, dry_run, problems, context, trace_id })
    }
}

impl Batch {
    /// Checks the scope and the values of a command. Its key identifies the command as an item of a batch: the single command is
    /// another request.
    fn validate(&self, Item { command, key }: Item) -> Result<ValidCommand, Problem> {
        let idempotency_key = key.filter(|_| !self.dry_run).map(|ItemKey { key, canonical }| IdempotencyKey {
            key,
            fingerprint: fingerprint(&Method::POST, PATH, &canonical, b""),
        });
        self.validate_under(command, idempotency_key)
    }

    /// Checks the scope and the values of a command under a key.
    fn validate_under(
        &self,
        command: ApiCommand,
        idempotency_key: Option<IdempotencyKey>,
    ) -> Result<ValidCommand, Problem> {
        let causation_id = self.trace_id.unwrap_or_else(Uuid::now_v7);
        let context = CommandContext { idempotency_key, causation_id, ..self.context.clone() };
        command.validate(&self.caller, context, &self.app.bank)
    }

    /// The result of a command, with its index if that is given, as the client gets it. A problem is counted and logged.
    fn result<'a>(&'a self, result: &'a CommandResult, index: Option<u64>) -> ResultBody<'a> {
        if let Some(problem) = result.problem() {
            self.problems.record(problem);
        }
        let instance = Instance { path: &self.problems.path, request_id: &self.problems.id };
        result.body(self.form, index, instance)
    }

    /// The client that the request counts for.
    fn client_key(&self) -> Option<ClientKey> {
        self.problems.caller.client_key(self.problems.client)
    }

    /// Takes the commands but the first one from the client's bucket, since the request was counted as one. Returns the value of the
    /// header `RateLimit`, if there is a limit.
    ///
    /// # Errors
    /// 429 `rate_limited`, with that header.
    fn take_commands(&self, count: usize) -> Result<Option<HeaderValue>, Box<Response>> {
        let Some((limiter, key)) = self.app.rate_limiter.as_ref().zip(self.client_key()) else { return Ok(None) };
        let Some(further) = u32::try_from(count).ok().and_then(|count| NonZeroU32::new(count.saturating_sub(1))) else {
            return Ok(None);
        };
        let is_possible = further.get() < limiter.burst();
        match limiter.take_many(&key, further) {
            Ok(remaining) => Ok(Some(remaining_header(remaining))),
            Err(wait) => {
                let seconds = whole_seconds(wait);
                let burst = limiter.burst();
                let detail = match is_possible {
                    true => "The caller sent too many commands. Retry after the seconds in the header Retry-After."
                        .to_owned(),
                    false => format!(
                        "The caller may send at most {burst} commands at once. Send smaller batches, or lines of JSON \
                         ({NDJSON}), which are executed at the caller's rate."
                    ),
                };
                let mut response = Problem::rate_limited(detail, seconds).into_response();
                response.headers_mut().insert(RATELIMIT, exhausted_header(seconds));
                Err(Box::new(response))
            }
        }
    }

    /// Names the preference that the response follows.
    fn note_preference(&self, headers: &mut HeaderMap) {
        if self.form == Form::Minimal {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
        }
    }
}

/// Execute a batch of commands
///
/// Executes up to 1000 commands in order; each one sees what the earlier ones changed. `command` names a single command, and the other
/// members are the parameters of its path and the fields of its body. Each command needs its own scope.
///
/// With `"mode": "atomic"`, all commands are executed in one transaction, or none: 201 with their receipts, or the problem of the first
/// command that fails, with its `index`. `Idempotency-Key` covers the whole batch.
///
/// With `"mode": "each"`, every command is executed by itself: 200 with the result of each. A command can have an `idempotency_key` of
/// its own.
///
/// As `application/x-ndjson`, the body is one command a line, of at most 64 KiB, and any number of lines. Each is executed by itself
/// when it arrives, and the response has one result a line, in order, while further lines are still being sent: read while you write.
/// Empty lines are ignored; send one from time to time to keep an idle stream open. The first result with a status of 500 or more
/// ends the response: later lines may have been executed, so send the lines without a result again with the same keys.
#[utoipa::path(
    post, path = "/v1/batches", tag = "Commands", security(("bearer" = [])), params(CommandOptions, RetryHeader, PreferHeader),
    request_body(content(
        (json::BatchBody = "application/json", examples(
            ("1. all or nothing" = (value = json!({"mode": "atomic", "commands": [
                {"command": "open", "account_id": "01900000-0000-7000-8000-000000000005", "currency": "EUR", "owner": "employer-1", "initial_deposit": 100000},
                {"command": "open", "account_id": "01900000-0000-7000-8000-000000000006", "currency": "EUR", "owner": "customer-21"},
                {"command": "transfer", "from": "01900000-0000-7000-8000-000000000005", "to": "01900000-0000-7000-8000-000000000006", "amount": 50000, "reference": "salary 2026-01"}
            ]}))),
            ("2. each by itself" = (value = json!({"mode": "each", "commands": [
                {"command": "deposit", "account_id": "01900000-0000-7000-8000-000000000006", "amount": 500, "idempotency_key": "batch-2-1"},
                {"command": "withdraw", "account_id": "01900000-0000-7000-8000-000000000006", "amount": 99999999, "idempotency_key": "batch-2-2"},
                {"command": "place_hold", "account_id": "01900000-0000-7000-8000-000000000006", "amount": 1500, "idempotency_key": "batch-2-3"}
            ]}))),
        )),
        (ItemSchema = "application/x-ndjson", example = json!({"command": "deposit", "account_id": "01900000-0000-7000-8000-000000000006", "amount": 500, "idempotency_key": "line-1"})),
    )),
    responses(
        (status = 201, description = "All commands were executed (`atomic`).", body = AtomicBatch, headers(
            ("Preference-Applied" = String, description = "The preference that the response follows."),
        )),
        (status = 200, description = "The result of each command (`each`, lines of JSON), or the receipt of an `atomic` batch of which nothing was recorded (`dry_run`).", content((BatchAnswer = "application/json"), (ResultBody<'static> = "application/x-ndjson")), headers(
            ("Preference-Applied" = String, description = "The preference that the response follows."),
        )),
    ),
)]
pub async fn execute_batch(
    batch: Batch,
    Extension(budget): Extension<ConnectionBudget>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    match is_ndjson(&parts.headers) {
        true => ndjson::execute(batch, &parts.headers, body).await,
        false => json::execute(batch, &budget, &parts.headers, body).await,
    }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    media_type(headers).as_deref() == Some(NDJSON)
}

/// The most bytes of the request's body; `None`: any number, of which one line at a time is read.
pub fn body_bytes_max(request: &Request) -> Option<usize> {
    match request.uri().path() {
        PATH if is_ndjson(request.headers()) => None,
        PATH => Some(BATCH_BYTES_MAX),
        _ => Some(BODY_BYTES_MAX),
    }
}

/// Whether the request is slowed down to the caller's rate instead of being refused.
pub fn is_slowed_down(parts: &Parts) -> bool {
    parts.uri.path() == PATH && parts.method == Method::POST && is_ndjson(&parts.headers)
}
