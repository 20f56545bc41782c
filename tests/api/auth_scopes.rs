//! Every operation of the OpenAPI document with every scope. An operation that is missing in the table fails a test, so
//! that none is added without a scope.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, Header};
use passbook_testkit::{
    ApiClient, AuthApp, Response, spawn_auth_app,
    tokens::{Signer, claims, claims_with, in_seconds},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const SCOPES: [&str; 11] = [
    "accounts:read",
    "accounts:read:any",
    "accounts:write",
    "accounts:write:any",
    "accounts:freeze",
    "accounts:holds",
    "accounts:reverse",
    "accounts:limits",
    "audit:read",
    "webhooks",
    "operations",
];

/// The scope of an operation and the expected status on the caller's own account with a balance of 1 000.
struct Row {
    operation: &'static str,
    /// The required scope; `None` if the operation needs no token, [`ANY_SCOPE`] if it needs any token.
    scope: Option<&'static str>,
    /// The status with the scope, on the caller's own account.
    own: u16,
    /// The result with the scope, on another owner's account.
    others: Others,
}

enum Others {
    /// The same as on the caller's own account, because the scope does not depend on ownership.
    Same,
    /// 404, as for an account that does not exist.
    NotFound(&'static str),
}

const fn row(operation: &'static str, scope: &'static str, own: u16, others: Others) -> Row {
    Row { operation, scope: Some(scope), own, others }
}

/// An operation that accepts every valid token.
const ANY_SCOPE: &str = "";

const fn open(operation: &'static str) -> Row {
    Row { operation, scope: None, own: 200, others: Others::Same }
}

const UNKNOWN: Others = Others::NotFound("account_not_found");

const TABLE: &[Row] = &[
    row("post /v1/accounts", "accounts:write", 201, Others::Same),
    row("get /v1/accounts", "accounts:read", 200, Others::Same),
    row("post /v1/accounts/{account_id}/deposits", "accounts:write", 201, UNKNOWN),
    row("post /v1/accounts/{account_id}/withdrawals", "accounts:write", 201, UNKNOWN),
    row("post /v1/transfers", "accounts:write", 201, UNKNOWN),
    // Each command of a batch needs its own scope.
    row("post /v1/batches", ANY_SCOPE, 200, Others::Same),
    row("post /v1/accounts/{account_id}/freeze", "accounts:freeze", 200, Others::Same),
    row("post /v1/accounts/{account_id}/holds", "accounts:holds", 201, Others::Same),
    row("post /v1/accounts/{account_id}/holds/{hold_id}/capture", "accounts:holds", 201, Others::Same),
    row("post /v1/accounts/{account_id}/holds/{hold_id}/void", "accounts:holds", 200, Others::Same),
    row("post /v1/accounts/{account_id}/transactions/{version}/reversal", "accounts:reverse", 201, Others::Same),
    row("put /v1/accounts/{account_id}/limits", "accounts:limits", 200, Others::Same),
    // 422 is judged on the account's state, so access was granted.
    row("post /v1/accounts/{account_id}/unfreeze", "accounts:freeze", 422, Others::Same),
    row("post /v1/accounts/{account_id}/close", "accounts:write", 422, UNKNOWN),
    row("get /v1/accounts/{account_id}", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/holds", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/holds/{hold_id}", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/limits", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/transactions", "accounts:read", 200, UNKNOWN),
    row("get /v1/transactions", "accounts:read", 200, Others::Same),
    row("get /v1/accounts/{account_id}/statement", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/daily-balances", "accounts:read", 200, UNKNOWN),
    row("get /v1/overview", "accounts:read:any", 200, Others::Same),
    row("get /v1/books/trial-balance", "accounts:read:any", 200, Others::Same),
    row("get /v1/books/journal", "accounts:read:any", 200, Others::Same),
    row("get /v1/transfers/{transfer_id}", "accounts:read", 200, Others::NotFound("not_found")),
    row("get /v1/projections", "operations", 200, Others::Same),
    row("post /v1/projections/{name}/rebuild", "operations", 202, Others::Same),
    row("get /v1/accounts/{account_id}/events", "audit:read", 200, Others::Same),
    row("get /v1/events", "audit:read", 200, Others::Same),
    row("get /v1/events/stream", "audit:read", 200, Others::Same),
    row("get /v1/accounts/{account_id}/verification", "audit:read", 200, Others::Same),
    row("get /v1/log/head", "audit:read", 200, Others::Same),
    row("get /v1/log/checkpoint", "audit:read", 200, Others::Same),
    row("get /v1/log/keys", "audit:read", 200, Others::Same),
    // Access is granted before the body is judged.
    row("post /v1/webhooks", "webhooks", 400, Others::Same),
    row("get /v1/webhooks", "webhooks", 200, Others::Same),
    row("get /v1/webhooks/{webhook_id}", "webhooks", 404, Others::Same),
    row("delete /v1/webhooks/{webhook_id}", "webhooks", 404, Others::Same),
    row("post /v1/webhooks/{webhook_id}/pause", "webhooks", 404, Others::Same),
    row("post /v1/webhooks/{webhook_id}/resume", "webhooks", 404, Others::Same),
    row("post /v1/webhooks/{webhook_id}/rotate-secret", "webhooks", 404, Others::Same),
    row("post /v1/webhooks/{webhook_id}/replay", "webhooks", 400, Others::Same),
    row("post /v1/webhooks/{webhook_id}/test", "webhooks", 404, Others::Same),
    row("get /v1/webhooks/{webhook_id}/deliveries", "webhooks", 404, Others::Same),
    row("get /metrics", "operations", 200, Others::Same),
    row("get /v1/currencies", ANY_SCOPE, 200, Others::Same),
    open("get /livez"),
    open("get /readyz"),
];

/// Two accounts of the owner `ada`, a transfer between them and a hold.
struct Fixture {
    auth: AuthApp,
    ada: Uuid,
    to: Uuid,
    transfer: Uuid,
    hold: Uuid,
}

impl Fixture {
    async fn new() -> Self {
        let auth = spawn_auth_app().await;
        let customer = auth.customer("ada");
        let (ada, to) = (customer.open_with_balance(1_000).await, customer.open_with_balance(0).await);
        let sent = customer.transfer(ada, to, 1).await.expect(201);
        customer.get_account(ada, sent.position()).await.expect(200);
        let merchant = auth.client_with_scope("merchant", "accounts:holds");
        let placed = merchant.place_hold(ada, json!({"amount": 1})).await.expect(201);
        let hold = placed.uuid("/hold/hold_id");
        let path = format!("/v1/accounts/{ada}/holds/{hold}?min_position={}", placed.position());
        customer.get(&path).await.expect(200);
        Self { transfer: sent.uuid("/transfer_id"), auth, ada, to, hold }
    }

    /// Sends a request for the operation on the account of `ada`.
    async fn call(&self, client: &ApiClient, operation: &str) -> Response {
        let (method, path) = operation.split_once(' ').unwrap();
        let path = path
            .replace("{account_id}", &self.ada.to_string())
            .replace("{transfer_id}", &self.transfer.to_string())
            .replace("{hold_id}", &self.hold.to_string())
            .replace("{webhook_id}", &Uuid::nil().to_string())
            .replace("{version}", "1")
            .replace("{name}", "accounts");
        let has_period = path.ends_with("/statement") || path.ends_with("/journal");
        let path = if has_period { path + "?from=2020-01-01&to=2200-01-01" } else { path };
        if method == "get" {
            return client.get_without_stream_body(&path).await;
        }
        if method == "delete" {
            return client.send(Method::DELETE, &path, "").await;
        }
        let body = match path.rsplit('/').next().unwrap() {
            "accounts" => json!({"currency": "EUR"}),
            "transfers" => json!({"from": self.ada, "to": self.to, "amount": 1}),
            "deposits" | "withdrawals" | "holds" | "reversal" => json!({"amount": 1}),
            "limits" => return client.set_limits(self.ada, json!({})).await,
            "batches" => json!({"mode": "each", "commands": [{"command": "close", "account_id": self.ada}]}),
            "rebuild" => return client.send(Method::POST, &path, "").await,
            _ => json!({}),
        };
        client.command(&path, body).await
    }
}

/// Every operation of the OpenAPI document in the form `post /v1/accounts`.
async fn operations(auth: &AuthApp) -> BTreeSet<String> {
    let document = auth.app.client().get("/openapi.json").await.expect(200).body;
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect()
}

#[track_caller]
fn expect_challenge(response: Response, error: Option<&str>, case: &str) {
    let challenge = response.header("www-authenticate").unwrap_or_else(|| panic!("{case}: no challenge")).to_owned();
    response.expect_problem(401, "unauthenticated");
    assert!(challenge.starts_with("Bearer realm=\"passbook\""), "{case}: {challenge}");
    match error {
        Some(error) => assert!(challenge.contains(&format!("error=\"{error}\"")), "{case}: {challenge}"),
        None => assert!(!challenge.contains("error"), "{case}: {challenge}"),
    }
}

/// Invalid tokens that claim all scopes, each with the reason.
fn bad_tokens(signer: &Signer) -> Vec<(&'static str, String)> {
    let all = SCOPES.join(" ");
    let good = claims("ada", &all);
    let with = |others: Value| signer.sign(&claims_with("ada", &all, &others));
    let signed = signer.sign(&good);
    let (message, signature) = signed.rsplit_once('.').unwrap();
    let other_ed25519 = Signer::new("key-1", Algorithm::EdDSA);
    let rsa = Signer::new("key-1", Algorithm::RS256);
    let public = signer.jwk();
    let x = public["x"].as_str().unwrap();
    let mut bad = vec![
        ("malformed", "not.a.token".to_owned()),
        ("empty parts", "..".to_owned()),
        ("two parts", message.to_owned()),
        ("no signature", format!("{message}.")),
        ("signature of another key", format!("{message}.{}", other_ed25519.sign(&good).rsplit_once('.').unwrap().1)),
        ("other claims under the signature", {
            let other = signer.sign(&claims("eve", &all));
            let payload = other.split('.').nth(1).unwrap().to_owned();
            format!("{}.{payload}.{signature}", message.split('.').next().unwrap())
        }),
        ("expired", with(json!({"exp": in_seconds(-61 - 5)}))),
        ("no expiry", with(json!({"exp": null}))),
        ("expiry is not a number", with(json!({"exp": "never"}))),
        ("negative expiry", with(json!({"exp": -1}))),
        ("not yet valid", with(json!({"nbf": in_seconds(3_600)}))),
        ("nbf is not a number", with(json!({"nbf": "now"}))),
        ("wrong issuer", with(json!({"iss": "https://evil.example"}))),
        ("several issuers", with(json!({"iss": [passbook_testkit::tokens::ISSUER, "https://evil.example"]}))),
        ("no issuer", with(json!({"iss": null}))),
        ("wrong audience", with(json!({"aud": "another-service"}))),
        ("wrong audiences", with(json!({"aud": ["another-service", "passbook2"]}))),
        ("no audience", with(json!({"aud": null}))),
        ("no subject", with(json!({"sub": null}))),
        ("an empty subject", with(json!({"sub": ""}))),
        ("the subject reserved for access control off", with(json!({"sub": "anonymous"}))),
        ("the subject reserved for recorded expiries", with(json!({"sub": "passbook:expiry"}))),
        ("the subject reserved for webhooks", with(json!({"sub": "passbook:webhooks"}))),
        ("a subject with a line break", with(json!({"sub": "ada\nben"}))),
        ("a long subject", with(json!({"sub": "a".repeat(256)}))),
        ("scope is not a string", with(json!({"scope": 7}))),
        ("unknown key", signer.with_id("key-9").sign(&good)),
        ("another key under the id of a known one", other_ed25519.sign(&good)),
        ("wrong algorithm: none", signer.unsigned(&good)),
        ("wrong algorithm: RS256 under the id of an Ed25519 key", rsa.sign(&good)),
        ("unknown critical header", {
            signer.sign_with(&Header { crit: Some(vec!["b64".to_owned()]), ..signer.header() }, &good)
        }),
        ("longer than any token", with(json!({"more": "x".repeat(16 * 1024)}))),
    ];
    // HMAC secrets that an attacker could derive from the public key.
    for secret in [x.to_owned(), public.to_string(), serde_json::to_string_pretty(&public).unwrap(), String::new()] {
        bad.push(("wrong algorithm: HS256 with the public key", signer.sign_with_secret(&good, secret.as_bytes())));
    }
    bad
}

#[tokio::test]
async fn table_lists_exactly_the_operations_of_the_document() {
    let auth = spawn_auth_app().await;
    let known: BTreeSet<String> = TABLE.iter().map(|row| row.operation.to_owned()).collect();
    assert_eq!(operations(&auth).await, known);
}

#[tokio::test]
async fn without_a_valid_token_only_probes_are_served() {
    let fixture = Fixture::new().await;
    let before = fixture.auth.app.log().await;
    let bad = bad_tokens(&fixture.auth.signer);
    for Row { operation, scope, .. } in TABLE {
        let response = fixture.call(&fixture.auth.app.client(), operation).await;
        match scope {
            Some(_) => expect_challenge(response, None, operation),
            None => drop(response.expect(200)),
        }
        for (name, token) in &bad {
            let response = fixture.call(&fixture.auth.client_with_token(token), operation).await;
            match scope {
                Some(_) => expect_challenge(response, Some("invalid_token"), &format!("{operation}: {name}")),
                None => drop(response.expect(200)),
            }
        }
    }
    assert_eq!(fixture.auth.app.log().await, before);
}

#[tokio::test]
async fn authorization_header_needs_exactly_one_bearer_token() {
    let auth = spawn_auth_app().await;
    let token = auth.signer.sign(&claims("ada", "accounts:read"));
    let client = auth.app.client();
    for header in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {token}"),
        token.clone(),
        "Bearer\u{e9} x".to_owned(),
    ] {
        expect_challenge(
            client.with_header("authorization", &header).get("/v1/accounts").await,
            Some("invalid_token"),
            &header,
        );
    }
    let two_tokens = auth.client_with_token(&token).with_header("authorization", &format!("Bearer {token}"));
    expect_challenge(two_tokens.get("/v1/accounts").await, Some("invalid_token"), "two tokens");
    expect_challenge(client.get(&format!("/v1/accounts?access_token={token}")).await, None, "in the query");
    for scheme in ["Bearer", "bearer", "BEARER"] {
        client.with_header("authorization", &format!("{scheme} {token}")).get("/v1/accounts").await.expect(200);
    }
}

#[tokio::test]
async fn each_operation_accepts_its_scope_and_no_other() {
    for Row { operation, scope, own, .. } in TABLE {
        let Some(scope) = scope.filter(|scope| *scope != ANY_SCOPE) else { continue };
        let fixture = Fixture::new().await;
        let wider = format!("{scope}:any");
        let is_sufficient = |scope_held: &str| scope_held == scope || scope_held == wider;
        let others: Vec<&str> = SCOPES.into_iter().filter(|scope_held| !is_sufficient(scope_held)).collect();
        let all_others = others.join(" ");
        for scope_held in others.into_iter().chain([all_others.as_str(), "", "openid profile", "accounts:*"]) {
            let refused = fixture.call(&fixture.auth.client_with_scope("ada", scope_held), operation).await;
            let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
            refused.expect_problem(403, "forbidden");
            assert!(challenge.contains("error=\"insufficient_scope\""), "{operation} with {scope_held:?}: {challenge}");
            assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{operation} with {scope_held:?}: {challenge}");
        }
        fixture.call(&fixture.auth.client_with_scope("ada", scope), operation).await.expect(*own);
        if SCOPES.contains(&wider.as_str()) {
            let fixture = Fixture::new().await;
            fixture.call(&fixture.auth.client_with_scope("clerk", &wider), operation).await.expect(*own);
        }
    }
}

#[tokio::test]
async fn own_account_scope_gives_404_on_accounts_of_other_owners() {
    for Row { operation, scope, own, others } in TABLE {
        let Some(scope) = scope else { continue };
        let fixture = Fixture::new().await;
        let before = fixture.auth.app.log().await;
        let response = fixture.call(&fixture.auth.client_with_scope("ben", scope), operation).await;
        match others {
            Others::Same => drop(response.expect(*own)),
            Others::NotFound(code) => {
                response.expect_problem(404, code);
                assert_eq!(fixture.auth.app.log().await, before, "{operation}");
            }
        }
    }
}

#[tokio::test]
async fn document_names_scopes_and_auth_errors_of_every_operation() {
    let auth = spawn_auth_app().await;
    let document = auth.app.client().get("/openapi.json").await.expect(200).body;
    let scheme = &document["components"]["securitySchemes"]["bearer"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    for Row { operation, scope, .. } in TABLE {
        let (method, path) = operation.split_once(' ').unwrap();
        let described = &document["paths"][path][method];
        let Some(scope) = scope else {
            assert!(described["security"].is_null() && described["responses"]["401"].is_null(), "{operation}");
            continue;
        };
        if *scope == ANY_SCOPE {
            assert_eq!(described["security"][0]["bearer"], json!([]), "{operation}");
            let needs_scope = *operation == "post /v1/batches";
            let responses = &described["responses"];
            assert!(!responses["401"].is_null() && responses["403"].is_null() != needs_scope, "{operation}");
            continue;
        }
        assert_eq!(described["security"][0]["bearer"], json!([scope]), "{operation}");
        let any = format!("{scope}:any");
        let expected = if SCOPES.contains(&any.as_str()) { json!([any]) } else { Value::Null };
        assert_eq!(described["security"][1]["bearer"], expected, "{operation}");
        assert!(described["description"].as_str().unwrap().contains(&format!("`{scope}`")), "{operation}");
        for status in ["401", "403"] {
            let refusal = &described["responses"][status];
            assert!(!refusal["headers"]["WWW-Authenticate"].is_null(), "{operation} {status}");
        }
    }
}

#[tokio::test]
async fn probes_and_documentation_need_no_token() {
    let auth = spawn_auth_app().await;
    for path in
        ["/livez", "/readyz", "/openapi.json", "/swagger-ui/", "/problems/unauthenticated", "/problems/forbidden"]
    {
        auth.app.client().get(path).await.expect(200);
    }
    auth.app.client().get("/nowhere").await.expect_problem(404, "not_found");
}
