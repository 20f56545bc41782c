//! How users sign in to the console: with the OpenID Connect provider of the settings, as a public client without a secret
//! (authorization code with PKCE).

use axum::http::HeaderValue;
use serde::Serialize;

use super::{middleware::security_headers::console_policy, static_content::StaticContent};
use passbook_auth::{Scope, secure_url};

/// What the console needs for the sign-in. Everything in it is public.
pub struct SignIn {
    /// The document that the console reads.
    pub(super) document: StaticContent,
    /// The policy of the console, which lets it send requests to the provider.
    pub(super) policy: HeaderValue,
}

#[derive(Serialize)]
struct Document<'a> {
    issuer: &'a str,
    client_id: &'a str,
    audience: Option<&'a str>,
    /// The scopes that the console asks for. The provider decides which of them the user gets.
    scopes: [&'static str; Scope::ALL.len()],
}

impl SignIn {
    /// The sign-in with a provider; `None` if its issuer is no `https` URL (or `http` on a loopback address).
    pub fn new(issuer: &str, client_id: &str, audience: Option<&str>) -> Option<Self> {
        let origin = secure_url(issuer)?.origin().ascii_serialization();
        let policy = HeaderValue::try_from(console_policy(&origin)).ok()?;
        let document = Document { issuer, client_id, audience, scopes: Scope::ALL.map(Scope::name) };
        Some(Self { document: StaticContent::json(&document), policy })
    }
}
