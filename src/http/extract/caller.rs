//! Authentication: turns the bearer token of a request into a [`Caller`].
//!
//! Handlers then require the scopes that they need.

use std::{
    future::pending,
    sync::{Arc, OnceLock},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use tokio::time::sleep;

use super::client_ip::{ClientIp, ClientKey};
use crate::http::{
    error_code::ErrorCode,
    problem::{OTHER_OWNER, Problem},
    rate_limiter::whole_seconds,
    state::AppState,
};
use passbook_auth::{ANONYMOUS, Access, Caller, MissingScope, Scope, TokenError, TokenVerifier};
use passbook_bank::AccountAccess;
use passbook_read_model::{Positioned, accounts::AccountView};

const CHALLENGE: &str = "Bearer realm=\"passbook\"";

/// A slot in the request's extensions. The extractor writes the caller's subject, and the request-context middleware reads it.
#[derive(Clone, Debug, Default)]
pub struct CallerSlot(Arc<OnceLock<Arc<str>>>);

impl CallerSlot {
    /// The subject of the caller; `None` before a token was accepted.
    pub fn subject(&self) -> Option<&str> {
        self.0.get().map(|subject| &**subject)
    }

    /// The client that the request counts for: the subject of its token, else its address.
    pub fn client_key(&self, address: Option<ClientIp>) -> Option<ClientKey> {
        match self.0.get() {
            Some(subject) if **subject != *ANONYMOUS => Some(ClientKey::Caller(Arc::clone(subject))),
            Some(_) | None => address.map(|ClientIp(address)| ClientKey::of_address(address)),
        }
    }
}

/// Caches in the request's extensions that its token was rejected, so that one request verifies it once.
#[derive(Clone, Debug)]
struct RejectedToken(Problem);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        if let Some(RejectedToken(problem)) = parts.extensions.get() {
            return Err(problem.clone());
        }
        let authenticated = match &app.access {
            Access::Loopback | Access::Off => Ok(Caller::anonymous()),
            Access::Tokens(verifier) => authenticate(verifier, app, parts).await,
        };
        match &authenticated {
            Ok(caller) => {
                if let Some(CallerSlot(subject)) = parts.extensions.get() {
                    // An earlier extraction of the same request set the same subject.
                    let _ = subject.set(Arc::clone(caller.subject()));
                }
                parts.extensions.insert(caller.clone());
            }
            Err(problem) => drop(parts.extensions.insert(RejectedToken(problem.clone()))),
        }
        authenticated
    }
}

/// The caller that the request's token names. A rejected token counts against the address that sent it.
async fn authenticate(verifier: &TokenVerifier, app: &AppState, parts: &Parts) -> Result<Caller, Problem> {
    let token = bearer_token(&parts.headers)?;
    if let Some(caller) = verifier.cached(token) {
        return Ok(caller);
    }
    let limiter = app.rate_limiter.as_ref().zip(parts.extensions.get::<ClientIp>());
    if let Some((limiter, ClientIp(address))) = limiter {
        limiter.check_token_attempts(*address).map_err(|wait| {
            let detail =
                "This address sent too many invalid tokens. Retry after the seconds in the header Retry-After.";
            Problem::rate_limited(detail, whole_seconds(wait))
        })?;
    }
    verifier.verify(token).await.map_err(|error| {
        if let Some((limiter, ClientIp(address))) = limiter {
            limiter.record_bad_token(*address);
        }
        invalid_token(format!("The access token is invalid: {error}."))
    })
}

impl From<MissingScope> for Problem {
    fn from(MissingScope(scope): MissingScope) -> Self {
        let name = scope.name();
        let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{name}\"");
        Self::forbidden(format!("The token lacks the scope {name}."), Some(challenge))
    }
}

/// The accounts that the caller may send commands to.
pub fn account_access(caller: &Caller) -> AccountAccess {
    if caller.may(Scope::AccountsWriteAny) { AccountAccess::Any } else { AccountAccess::Own }
}

/// The accounts that a receipt may show to the caller.
pub fn account_visibility(caller: &Caller) -> AccountAccess {
    match caller.may(Scope::AccountsReadAny) {
        true => AccountAccess::Any,
        false => account_access(caller),
    }
}

/// The account of a view, if the caller may see it. The responses for a hidden and for a missing account are the same.
///
/// # Errors
/// 404 `account_not_found` if the account does not exist or the caller may not see it.
pub fn require_visible(
    caller: &Caller,
    view: Positioned<Option<AccountView>>,
) -> Result<Positioned<AccountView>, Problem> {
    let Positioned { value, position, generation } = view;
    let not_found = |position| Problem::at_position(ErrorCode::AccountNotFound, position);
    match value {
        Some(value) if caller.sees(&value.owner) => Ok(Positioned { value, position, generation }),
        Some(_) => Err(not_found(&position).with_audit_reason(OTHER_OWNER)),
        None => Err(not_found(&position)),
    }
}

/// Completes when the caller's token expires, without a reason, or is refused for another reason; never without access control.
pub async fn end_of_authority(app: AppState, caller: Caller, token: Option<String>) -> Option<TokenError> {
    let (Access::Tokens(verifier), Some(remaining), Some(token)) = (&app.access, caller.expires_in(), token) else {
        return pending().await;
    };
    tokio::select! {
        () = sleep(remaining) => None,
        reason = verifier.until_refused(&token) => Some(reason),
    }
}

/// The token of `Authorization: Bearer <token>` (RFC 6750, section 2.1).
pub(in crate::http) fn bearer_token(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        // A request without credentials gets a bare challenge, with no error code (RFC 6750, section 3.1).
        return Err(Problem::unauthenticated("The request has no bearer token.", CHALLENGE));
    };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    match token.trim_matches(' ') {
        token if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && values.next().is_none() => Ok(token),
        _ => Err(invalid_token("The header Authorization must contain exactly one bearer token.".to_owned())),
    }
}

/// 401: the token is not accepted.
pub fn invalid_token(detail: String) -> Problem {
    let challenge = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{}\"", quotable(&detail));
    Problem::unauthenticated(detail, challenge)
}

/// Replaces what an `error_description` must not contain (RFC 6750, section 3): all but printable ASCII, quotes, backslashes.
fn quotable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' }).collect()
}
