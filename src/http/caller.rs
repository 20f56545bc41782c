//! Who asks: the bearer token of a request becomes a [`Caller`], and a handler says what they must hold.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{
    App,
    address::Client,
    limit::NotTaken,
    problem::{ANOTHERS_ACCOUNT, Code, Problem},
};
use passbook_auth::{Access, Authority, Caller, MissingScope, Scope};
use passbook_bank::Reach;
use passbook_read_model::{Seen, accounts::AccountView};

const CHALLENGE: &str = "Bearer realm=\"passbook\"";

/// Where the envelope of a request learns who sent it.
#[derive(Clone, Debug, Default)]
pub struct Who(Arc<OnceLock<Arc<str>>>);

impl Who {
    /// The caller's name, if one was made out.
    pub fn name(&self) -> Option<&str> {
        self.0.get().map(|name| &**name)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        if let Some(NotTaken(problem)) = parts.extensions.get() {
            return Err(problem.clone());
        }
        let caller = match &app.access {
            Access::Loopback | Access::Off => Caller::anonymous(),
            Access::Tokens(authority) => holder(authority, app, parts).await?,
        };
        if let Some(Who(name)) = parts.extensions.get() {
            // Whoever was there first is the same.
            let _ = name.set(Arc::clone(caller.subject()));
        }
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// Whose token the request bears. One that was not taken counts against the address that it came from.
async fn holder(authority: &Authority, app: &App, parts: &Parts) -> Result<Caller, Problem> {
    let token = bearer(&parts.headers)?;
    if let Some(caller) = authority.recall(token) {
        return Ok(caller);
    }
    let limits = app.limits.as_ref().zip(parts.extensions.get::<Client>());
    if let Some((limits, Client(address))) = limits {
        limits.judges(*address)?;
    }
    authority.verify(token).await.map_err(|refused| {
        if let Some((limits, Client(address))) = limits {
            limits.not_taken(*address);
        }
        invalid(refused.to_string())
    })
}

impl From<MissingScope> for Problem {
    fn from(MissingScope(scope): MissingScope) -> Self {
        let word = scope.word();
        let challenge = format!("{CHALLENGE}, error=\"insufficient_scope\", scope=\"{word}\"");
        Self::forbidden(format!("the token lacks the scope {word}"), Some(challenge))
    }
}

/// The accounts that the caller may send commands to.
pub fn reach(caller: &Caller) -> Reach {
    if caller.may(Scope::AccountsWriteAny) { Reach::Any } else { Reach::Own }
}

/// The account that a view showed, if the caller may see it. One that is another's and one that is not there are answered
/// alike.
pub fn visible(caller: &Caller, seen: Seen<Option<AccountView>>) -> Result<Seen<AccountView>, Problem> {
    let Seen { value, position, generation } = seen;
    let unknown = Problem::seen_at(Code::AccountNotFound, &position);
    match value {
        Some(value) if caller.sees(&value.owner) => Ok(Seen { value, position, generation }),
        Some(_) => Err(unknown.because(ANOTHERS_ACCOUNT)),
        None => Err(unknown),
    }
}

/// The token of `Authorization: Bearer <token>` (RFC 6750, section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        // Who sends nothing is told nothing but the way (RFC 6750, section 3.1).
        return Err(Problem::unauthenticated("there is no bearer token", CHALLENGE));
    };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    match token.trim_matches(' ') {
        token if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && values.next().is_none() => Ok(token),
        _ => Err(invalid("the header Authorization does not hold one bearer token".to_owned())),
    }
}

fn invalid(reason: String) -> Problem {
    let challenge = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{}\"", quotable(&reason));
    Problem::unauthenticated(reason, challenge)
}

/// What may stand in a description (RFC 6750, section 3): printable ASCII without quotes and backslashes.
fn quotable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' }).collect()
}
