//! The extractor of commands: the parsed body, and the context in which the command is executed.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_path_to_error::Segment;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    caller::{account_access, account_visibility},
    conditions::{if_match, if_match_text, weak_match},
    headers::{RequestId, idempotency_key, traceparent},
    parameters::parse_query,
};
use crate::http::{error_code::ErrorCode, problem::Problem, state::AppState};
use passbook_auth::Caller;
use passbook_bank::{AccountAccess, Bank, CommandContext, CommandOutcome, IdempotencyKey, Reversal};
use passbook_domain::{AccountCommand, Command};

/// A byte order mark, which some clients write before JSON. It is ignored (RFC 8259, section 8.1).
const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";
/// How long a body may take to arrive, in milliseconds.
const BODY_MS_MAX: u64 = 10_000;

/// A command with a body of type `B`.
#[derive(Debug)]
pub struct CommandRequest<B> {
    /// The parsed body.
    pub body: B,
    /// The caller, the idempotency key and the condition.
    pub context: CommandContext,
    /// The headers of the request.
    headers: HeaderMap,
}

/// The query parameters of every command.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CommandOptions {
    /// Respond with the receipt that the command would have, and record nothing.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
}

/// The header of every command.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the derive reads it")]
pub struct RetryHeader {
    /// Makes retries safe: 1 to 255 visible ASCII characters. Use a new key for each new request.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        nullable = false,
        pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#
    )]
    idempotency_key: Option<String>,
}

/// The header of a command on one account.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only the derive reads it")]
pub struct ConditionHeader {
    /// Execute the command only if the account has this ETag, such as `"7"`; `*` matches any.
    #[param(
        rename = "If-Match",
        required = false,
        nullable = false,
        example = "*",
        pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#
    )]
    if_match: Option<String>,
}

impl<B: DeserializeOwned> FromRequest<AppState> for CommandRequest<B> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let options: CommandOptions = parse_query(&parts.uri)?;
        let key = idempotency_key(&parts.headers)?.filter(|_| !options.dry_run);
        let condition = if_match(&parts.headers)?;

        let target = Target::of(&parts);
        let context = CommandContext {
            caller: Arc::clone(caller.subject()),
            access: account_access(&caller),
            visibility: account_visibility(&caller),
            correlation_id: correlation_id(&parts),
            causation_id: causation_id(&parts.headers),
            idempotency_key: None,
            if_match: condition,
            dry_run: options.dry_run,
            batch_id: None,
        };
        let headers = parts.headers.clone();
        let bytes = read_body(Request::from_parts(parts, body), state).await?;
        let bytes = bytes.strip_prefix(UTF8_BOM).unwrap_or(&bytes);
        require_json(&headers, bytes)?;
        let body = parse(bytes)?;
        let idempotency_key = key.map(|key| IdempotencyKey { key, fingerprint: target.fingerprint(bytes) });
        Ok(Self { body, context: CommandContext { idempotency_key, ..context }, headers })
    }
}

impl<B> CommandRequest<B> {
    /// Replaces the accounts that the caller may send this command to, for scopes that do not depend on ownership.
    #[must_use]
    pub fn with_access(mut self, access: AccountAccess) -> Self {
        self.context.access = access;
        self
    }

    /// Executes the command that `make_command` makes of the body on one existing account.
    ///
    /// # Errors
    /// The body is invalid, or the command is rejected. A weak `If-Match` gets an explanation of its own.
    pub async fn execute_on(
        self,
        bank: &Bank,
        account_id: Uuid,
        make_command: impl FnOnce(B) -> Result<AccountCommand, Problem>,
    ) -> Result<CommandOutcome, Problem> {
        self.execute(bank, |body| Ok(Command::Account { account_id, command: make_command(body)? })).await
    }

    /// Executes the command that `make_command` makes of the body. The condition is on the account that the path names.
    ///
    /// # Errors
    /// The body is invalid, or the command is rejected. A weak `If-Match` gets an explanation of its own.
    pub async fn execute(
        self,
        bank: &Bank,
        make_command: impl FnOnce(B) -> Result<Command, Problem>,
    ) -> Result<CommandOutcome, Problem> {
        let Self { body, context, headers } = self;
        bank.execute(make_command(body)?, context).await.map_err(|error| refusal(&headers, error))
    }

    /// Executes the reversal that `make_reversal` makes of the body. The condition is on the account that the path names.
    ///
    /// # Errors
    /// The body is invalid, or the reversal is rejected. A weak `If-Match` gets an explanation of its own.
    pub async fn reverse(
        self,
        bank: &Bank,
        make_reversal: impl FnOnce(B) -> Result<Reversal, Problem>,
    ) -> Result<CommandOutcome, Problem> {
        let Self { body, context, headers } = self;
        bank.reverse(make_reversal(body)?, context).await.map_err(|error| refusal(&headers, error))
    }

    /// Rejects `If-Match`, for commands that do not address a single existing account.
    ///
    /// # Errors
    /// 400 `invalid_parameter` if the request has the header.
    pub fn without_condition(self) -> Result<Self, Problem> {
        match self.context.if_match {
            None => Ok(self),
            Some(_) => Err(Problem::invalid_parameter("If-Match", "This operation does not support If-Match.")),
        }
    }
}

/// The problem of a command that failed. It explains why a weak `If-Match` does not match.
fn refusal(headers: &HeaderMap, error: passbook_bank::Error) -> Problem {
    let problem = Problem::from(error);
    match problem.current_version().and_then(|current| weak_match(headers, current)) {
        Some(detail) => problem.with_detail(detail),
        None => problem,
    }
}

/// The parts of a request, besides its body, that an idempotency key identifies.
struct Target {
    method: Method,
    path: String,
    if_match: Vec<u8>,
}

impl Target {
    fn of(parts: &Parts) -> Self {
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        Self { method, path, if_match: if_match_text(&parts.headers) }
    }

    /// SHA-256 of method, path, canonical body and `If-Match`.
    fn fingerprint(&self, body: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [self.method.as_str().as_bytes(), self.path.as_bytes(), &canonical(body), &self.if_match] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn correlation_id(parts: &Parts) -> Arc<str> {
    match parts.extensions.get() {
        Some(RequestId(id)) => Arc::clone(id),
        None => Arc::from(""),
    }
}

/// The id of the caller's trace, or a new id.
fn causation_id(headers: &HeaderMap) -> Uuid {
    traceparent(headers).map_or_else(Uuid::now_v7, |parent| Uuid::from_bytes(parent.trace_id()))
}

async fn read_body(request: Request, state: &AppState) -> Result<Bytes, Problem> {
    match timeout(Duration::from_millis(BODY_MS_MAX), Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(incomplete_body(&rejection)),
        Err(_) => {
            let detail = format!("The request body did not arrive within {BODY_MS_MAX} ms.");
            Err(Problem::new(ErrorCode::RequestTimeout, detail))
        }
    }
}

fn incomplete_body(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::from_code(ErrorCode::PayloadTooLarge),
        _ => Problem::new(ErrorCode::MalformedRequest, "The request body did not arrive completely."),
    }
}

/// An empty body means the empty object, whatever its `Content-Type`.
fn require_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = content_type.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let detail = "Content-Encoding is not supported. Send the body without it.";
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, detail));
    }
    match essence.as_deref() {
        _ if body.is_empty() => Ok(()),
        Some("application/json") => Ok(()),
        Some(_) | None => Err(Problem::from_code(ErrorCode::UnsupportedMediaType)),
    }
}

pub(in crate::http) fn parse<B: DeserializeOwned>(body: &[u8]) -> Result<B, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    // serde would also read a struct from an array, by the order of its fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(ErrorCode::MalformedRequest, "The request body must be a JSON object."));
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("The request body could not be parsed: {error}.");
        match invalid_field::<B>(body).filter(|_| error.is_data()) {
            Some(field) => Problem::field(ErrorCode::MalformedRequest, field, detail),
            None => Problem::new(ErrorCode::MalformedRequest, detail),
        }
    })
}

/// The field of a body that `B` rejects.
fn invalid_field<B: DeserializeOwned>(body: &[u8]) -> Option<String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let error = serde_path_to_error::deserialize::<_, B>(&mut json).err()?;
    if let Some(Segment::Map { key }) = error.path().iter().next() {
        return Some(key.clone());
    }
    // A field that is missing, unknown or repeated is named only by the text of the error.
    let text = error.inner().to_string();
    let kinds = ["missing field `", "unknown field `", "duplicate field `"];
    kinds.iter().find_map(|kind| text.strip_prefix(kind)?.split('`').next()).map(str::to_owned)
}

/// A body that was parsed, without the differences that two equal JSON texts may have: white space and the order of members.
///
/// It never rejects a body: only [`parse`] does, so that the same body has the same error with and without a key. A body with a
/// value that [`serde_json::Value`] cannot hold, such as `1e400`, is used as it was sent; no command accepts such a value.
pub(in crate::http) fn canonical(body: &[u8]) -> Vec<u8> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_or_else(|_| body.to_vec(), |value: serde_json::Value| value.to_string().into_bytes())
}
