//! The extractor of commands: the parsed body, and the context in which the command is executed.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, Method, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    body::{JsonBody, canonical, parse},
    caller::{account_access, account_visibility},
    conditions::{if_match, if_match_text, weak_match},
    headers::{RequestId, idempotency_key, traceparent},
    parameters::parse_query,
};
use crate::http::{problem::Problem, state::AppState};
use passbook_auth::Caller;
use passbook_bank::{CommandContext, IdempotencyKey};

/// A command with a body of type `B`.
#[derive(Debug)]
pub struct CommandRequest<B> {
    /// The parsed body.
    body: B,
    /// The caller, the idempotency key and the condition.
    context: CommandContext,
    conditions: Conditions,
}

/// The conditional headers of a command, which explain its refusal.
#[derive(Debug)]
pub struct Conditions(HeaderMap);

/// The query parameters of every command.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CommandOptions {
    /// Respond with the receipt that the command would have, and record nothing.
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
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
        let context = CommandContext { if_match: condition, ..command_context(&caller, &parts, options.dry_run) };
        let json = JsonBody::read(&parts.headers, body).await?;
        let body = parse(json.bytes())?;
        let idempotency_key = key.map(|key| {
            let if_match = if_match_text(&parts.headers);
            let fingerprint = fingerprint(&parts.method, parts.uri.path(), &canonical(json.bytes()), &if_match);
            IdempotencyKey { key, fingerprint }
        });
        let context = CommandContext { idempotency_key, ..context };
        Ok(Self { body, context, conditions: Conditions(parts.headers) })
    }
}

impl<B> CommandRequest<B> {
    /// The body, the context and the conditional headers.
    pub fn into_parts(self) -> (B, CommandContext, Conditions) {
        (self.body, self.context, self.conditions)
    }
}

impl Conditions {
    /// The problem of a command that failed. It explains why a weak `If-Match` does not match.
    pub fn explain(&self, problem: Problem) -> Problem {
        match problem.current_version().and_then(|current| weak_match(&self.0, current)) {
            Some(detail) => problem.with_detail(detail),
            None => problem,
        }
    }
}

/// The context of a command of this request, without key and condition.
pub fn command_context(caller: &Caller, parts: &Parts, dry_run: bool) -> CommandContext {
    CommandContext {
        caller: Arc::clone(caller.subject()),
        access: account_access(caller),
        visibility: account_visibility(caller),
        correlation_id: correlation_id(parts),
        causation_id: causation_id(&parts.headers),
        idempotency_key: None,
        if_match: None,
        dry_run,
        batch_id: None,
    }
}

/// SHA-256 of method, path, canonical body and `If-Match`: the parts of a request that an idempotency key identifies.
pub fn fingerprint(method: &Method, path: &str, canonical_body: &[u8], if_match: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), canonical_body, if_match] {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

fn correlation_id(parts: &Parts) -> Arc<str> {
    match parts.extensions.get() {
        Some(RequestId(id)) => Arc::clone(id),
        None => Arc::from(""),
    }
}

/// The id of the caller's trace, or a new id.
pub fn causation_id(headers: &HeaderMap) -> Uuid {
    traceparent(headers).map_or_else(Uuid::now_v7, |parent| Uuid::from_bytes(parent.trace_id()))
}
