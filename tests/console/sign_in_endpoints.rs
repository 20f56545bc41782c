//! The endpoints of a provider at which users sign in: authorization code with PKCE and refresh tokens, for a public client
//! (RFC 6749, RFC 7636). They check what a provider must check.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Json, Router,
    extract::Query,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use passbook_testkit::tokens::{Signer, claims_with, in_seconds};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::oidc_provider::PAGES_OF_ALL_SITES;

/// The client id of the console.
pub const CLIENT_ID: &str = "passbook-console";

type Parameters = HashMap<String, String>;

/// The users who can sign in, with their scopes, and what was given to them.
#[derive(Clone)]
pub struct Endpoints {
    issuer: String,
    signer: Signer,
    users: Arc<Vec<(&'static str, &'static str)>>,
    /// The authorization requests by the code that answers them, with the user.
    codes: Arc<Mutex<HashMap<String, (Parameters, &'static str)>>>,
    /// The users by their refresh token.
    refresh_tokens: Arc<Mutex<HashMap<String, &'static str>>>,
    /// How long access tokens are valid, in seconds; the service accepts them a minute longer.
    pub token_s: Arc<Mutex<i64>>,
}

impl Endpoints {
    pub fn new(issuer: &str, signer: &Signer, users: &[(&'static str, &'static str)]) -> Self {
        let (issuer, signer, users) = (issuer.to_owned(), signer.clone(), Arc::new(users.to_vec()));
        let (codes, refresh_tokens, token_s) = (Arc::default(), Arc::default(), Arc::new(Mutex::new(600)));
        Self { issuer, signer, users, codes, refresh_tokens, token_s }
    }

    /// The members of the discovery document.
    pub fn metadata(&self) -> Value {
        json!({
            "authorization_endpoint": format!("{}/authorize", self.issuer),
            "token_endpoint": format!("{}/token", self.issuer),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "code_challenge_methods_supported": ["S256"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "authorization_response_iss_parameter_supported": true,
        })
    }

    pub fn router(&self) -> Router {
        let (authorize, token) = (self.clone(), self.clone());
        Router::new()
            .route("/authorize", get(async move |Query(request): Query<Parameters>| authorize.authorize(&request)))
            .route("/token", post(async move |Form(request): Form<Parameters>| token.token(&request)))
    }

    /// A page with one link for each user, and one for a refusal.
    fn authorize(&self, request: &Parameters) -> Response {
        let expected = [("response_type", "code"), ("client_id", CLIENT_ID), ("code_challenge_method", "S256")];
        if expected.iter().any(|(name, value)| request.get(*name).is_none_or(|given| given != value)) {
            return (StatusCode::BAD_REQUEST, format!("{request:?}")).into_response();
        }
        let back = format!("{}?state={}&iss={}", request["redirect_uri"], request["state"], self.issuer);
        let link = |(user, _): &(&'static str, &'static str)| {
            let code = Uuid::now_v7().to_string();
            let link = format!("<a href=\"{back}&amp;code={code}\">Sign in as {user}</a> ");
            self.codes.lock().unwrap().insert(code, (request.clone(), *user));
            link
        };
        let links: String = self.users.iter().map(link).collect();
        Html(format!("<h1>Provider</h1>{links}<a href=\"{back}&amp;error=access_denied\">Refuse</a>")).into_response()
    }

    fn token(&self, request: &Parameters) -> Response {
        let granted = match request.get("grant_type").map(String::as_str) {
            Some("authorization_code") => self.redeem_code(request),
            Some("refresh_token") => {
                self.refresh_tokens.lock().unwrap().remove(&request["refresh_token"]).map(|user| (user, None))
            }
            _ => None,
        };
        let Some((user, nonce)) = granted.filter(|_| request.get("client_id").is_some_and(|id| id == CLIENT_ID)) else {
            let error = Json(json!({"error": "invalid_grant"}));
            return (StatusCode::BAD_REQUEST, [PAGES_OF_ALL_SITES], error).into_response();
        };
        let (_, scope) = self.users.iter().find(|(name, _)| *name == user).unwrap();
        let token_s = *self.token_s.lock().unwrap();
        let access = json!({"iss": self.issuer, "exp": in_seconds(token_s), "iat": in_seconds(token_s.min(0) - 1)});
        let id = json!({"iss": self.issuer, "aud": CLIENT_ID, "nonce": nonce, "scope": null});
        let refresh_token = Uuid::now_v7().to_string();
        self.refresh_tokens.lock().unwrap().insert(refresh_token.clone(), user);
        let answer = json!({
            "access_token": self.signer.sign(&claims_with(user, scope, &access)),
            "id_token": self.signer.sign(&claims_with(user, scope, &id)),
            "refresh_token": refresh_token,
            "token_type": "Bearer",
            "expires_in": token_s.max(1),
        });
        ([PAGES_OF_ALL_SITES], Json(answer)).into_response()
    }

    /// The user of a code, which can be redeemed once, by the client that has the verifier. With the nonce of the request.
    fn redeem_code(&self, request: &Parameters) -> Option<(&'static str, Option<String>)> {
        let (asked, user) = self.codes.lock().unwrap().remove(request.get("code")?)?;
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(request.get("code_verifier")?));
        let is_same = asked["code_challenge"] == challenge && asked["redirect_uri"] == request["redirect_uri"];
        is_same.then(|| (user, asked.get("nonce").cloned()))
    }
}
