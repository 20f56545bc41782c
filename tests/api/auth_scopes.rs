//! Every operation of the OpenAPI document, and everybody who may and may not have it. An operation that the table does not
//! know fails here, so that none is added without saying who may use it.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, Header};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Response, AuthApp, ApiClient, spawn_auth_app,
    tokens::{Signer, claims, claims_with, in_seconds},
};

const SCOPES: [&str; 7] = [
    "accounts:read",
    "accounts:read:any",
    "accounts:write",
    "accounts:write:any",
    "accounts:freeze",
    "audit:read",
    "operations",
];

/// Who may use an operation, and what they are answered on an account with 1 000 that is their own.
struct Row {
    operation: &'static str,
    /// The scope that is enough; none for what is open to all.
    scope: Option<&'static str>,
    /// With the scope.
    own: u16,
    /// With the same scope, on the account of somebody else.
    others: Others,
}

enum Others {
    /// It is not about an account, or its scope has nothing to do with owning one.
    Alike,
    /// As if there were none.
    NotFound(&'static str),
}

const fn row(operation: &'static str, scope: &'static str, own: u16, others: Others) -> Row {
    Row { operation, scope: Some(scope), own, others }
}

const fn open(operation: &'static str) -> Row {
    Row { operation, scope: None, own: 200, others: Others::Alike }
}

const UNKNOWN: Others = Others::NotFound("account_not_found");

const TABLE: &[Row] = &[
    row("post /v1/accounts", "accounts:write", 201, Others::Alike),
    row("get /v1/accounts", "accounts:read", 200, Others::Alike),
    row("post /v1/accounts/{account_id}/deposits", "accounts:write", 201, UNKNOWN),
    row("post /v1/accounts/{account_id}/withdrawals", "accounts:write", 201, UNKNOWN),
    row("post /v1/transfers", "accounts:write", 201, UNKNOWN),
    row("post /v1/accounts/{account_id}/freeze", "accounts:freeze", 200, Others::Alike),
    // 422 is a word on the account: it was let in.
    row("post /v1/accounts/{account_id}/unfreeze", "accounts:freeze", 422, Others::Alike),
    row("post /v1/accounts/{account_id}/close", "accounts:write", 422, UNKNOWN),
    row("get /v1/accounts/{account_id}", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/transactions", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/statement", "accounts:read", 200, UNKNOWN),
    row("get /v1/accounts/{account_id}/daily-balances", "accounts:read", 200, UNKNOWN),
    row("get /v1/overview", "accounts:read:any", 200, Others::Alike),
    row("get /v1/transfers/{transfer_id}", "accounts:read", 200, Others::NotFound("not_found")),
    row("get /v1/projections", "operations", 200, Others::Alike),
    row("post /v1/projections/{name}/rebuild", "operations", 202, Others::Alike),
    row("get /v1/accounts/{account_id}/events", "audit:read", 200, Others::Alike),
    row("get /v1/events", "audit:read", 200, Others::Alike),
    row("get /v1/events/stream", "audit:read", 200, Others::Alike),
    row("get /v1/accounts/{account_id}/verification", "audit:read", 200, Others::Alike),
    row("get /v1/log/head", "audit:read", 200, Others::Alike),
    row("get /metrics", "operations", 200, Others::Alike),
    open("get /livez"),
    open("get /readyz"),
];

/// A bank with an account of Ada's, one of Ben's, and a transfer between two accounts of Ada's.
struct Scene {
    bank: AuthApp,
    ada: Uuid,
    to: Uuid,
    transfer: Uuid,
}

impl Scene {
    async fn set() -> Self {
        let bank = spawn_auth_app().await;
        let customer = bank.customer("ada");
        let (ada, to) = (customer.open_with_balance(1_000).await, customer.open_with_balance(0).await);
        let sent = customer.transfer(ada, to, 1).await.expect(201);
        customer.get_account(ada, sent.position()).await.expect(200);
        Self { transfer: sent.uuid("/transfer_id"), bank, ada, to }
    }

    /// Asks for the operation on Ada's account.
    async fn ask(&self, who: &ApiClient, operation: &str) -> Response {
        let (method, path) = operation.split_once(' ').unwrap();
        let path = path
            .replace("{account_id}", &self.ada.to_string())
            .replace("{transfer_id}", &self.transfer.to_string())
            .replace("{name}", "accounts");
        let path = if path.ends_with("/statement") { path + "?from=2020-01-01&to=2200-01-01" } else { path };
        if method == "get" {
            return who.get_at_first(&path).await;
        }
        let body = match path.rsplit('/').next().unwrap() {
            "accounts" => json!({"currency": "EUR"}),
            "transfers" => json!({"from": self.ada, "to": self.to, "amount": 1}),
            "deposits" | "withdrawals" => json!({"amount": 1}),
            "rebuild" => return who.send(Method::POST, &path, "").await,
            _ => json!({}),
        };
        who.command(&path, body).await
    }
}

/// Every operation of the document: `post /v1/accounts`.
async fn operations(bank: &AuthApp) -> BTreeSet<String> {
    let document = bank.app.client().get("/openapi.json").await.expect(200).body;
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect()
}

#[track_caller]
fn unauthenticated(response: Response, error: Option<&str>, told: &str) {
    let challenge = response.header("www-authenticate").unwrap_or_else(|| panic!("{told}: no challenge")).to_owned();
    response.expect_problem(401, "unauthenticated");
    assert!(challenge.starts_with("Bearer realm=\"passbook\""), "{told}: {challenge}");
    match error {
        Some(error) => assert!(challenge.contains(&format!("error=\"{error}\"")), "{told}: {challenge}"),
        None => assert!(!challenge.contains("error"), "{told}: {challenge}"),
    }
}

/// Tokens that anybody could send who has none that is good, each with everything in it.
fn bad_tokens(signer: &Signer) -> Vec<(&'static str, String)> {
    let all = SCOPES.join(" ");
    let good = claims("ada", &all);
    let with = |others: Value| signer.sign(&claims_with("ada", &all, &others));
    let signed = signer.sign(&good);
    let (message, signature) = signed.rsplit_once('.').unwrap();
    let stranger = Signer::new("key-1", Algorithm::EdDSA);
    let rsa = Signer::new("key-1", Algorithm::RS256);
    let public = signer.jwk();
    let x = public["x"].as_str().unwrap();
    let mut bad = vec![
        ("malformed", "not.a.token".to_owned()),
        ("empty parts", "..".to_owned()),
        ("two parts", message.to_owned()),
        ("no signature", format!("{message}.")),
        ("another's signature", format!("{message}.{}", stranger.sign(&good).rsplit_once('.').unwrap().1)),
        ("other claims under the signature", {
            let other = signer.sign(&claims("eve", &all));
            let payload = other.split('.').nth(1).unwrap().to_owned();
            format!("{}.{payload}.{signature}", message.split('.').next().unwrap())
        }),
        ("expired", with(json!({"exp": in_seconds(-61 - 5)}))),
        ("without an end", with(json!({"exp": null}))),
        ("with an end that is no number", with(json!({"exp": "never"}))),
        ("with a negative end", with(json!({"exp": -1}))),
        ("not yet valid", with(json!({"nbf": in_seconds(3_600)}))),
        ("with a beginning that is no number", with(json!({"nbf": "now"}))),
        ("wrong issuer", with(json!({"iss": "https://evil.example"}))),
        ("several issuers", with(json!({"iss": [crate::support::tokens::ISSUER, "https://evil.example"]}))),
        ("no issuer", with(json!({"iss": null}))),
        ("wrong audience", with(json!({"aud": "another-service"}))),
        ("wrong audiences", with(json!({"aud": ["another-service", "passbook2"]}))),
        ("no audience", with(json!({"aud": null}))),
        ("no subject", with(json!({"sub": null}))),
        ("an empty subject", with(json!({"sub": ""}))),
        ("the subject of an open bank", with(json!({"sub": "anonymous"}))),
        ("a subject with a line break", with(json!({"sub": "ada\nben"}))),
        ("a long subject", with(json!({"sub": "a".repeat(256)}))),
        ("scopes that are no words", with(json!({"scope": 7}))),
        ("unknown key", signer.with_id("key-9").sign(&good)),
        ("another key under the id of a known one", stranger.sign(&good)),
        ("wrong algorithm: none", signer.unsigned(&good)),
        ("wrong algorithm: RS256 under the id of an Ed25519 key", rsa.sign(&good)),
        ("critical words that nobody knows", {
            signer.sign_with(&Header { crit: Some(vec!["b64".to_owned()]), ..signer.header() }, &good)
        }),
        ("longer than any token", with(json!({"more": "x".repeat(16 * 1024)}))),
    ];
    // What everybody can read, in each form in which somebody might take it for a secret.
    for secret in [x.to_owned(), public.to_string(), serde_json::to_string_pretty(&public).unwrap(), String::new()] {
        bad.push(("wrong algorithm: HS256 with the public key", signer.sign_with_secret(&good, secret.as_bytes())));
    }
    bad
}

#[tokio::test]
async fn the_table_knows_every_operation_of_the_document_and_no_other() {
    let bank = spawn_auth_app().await;
    let known: BTreeSet<String> = TABLE.iter().map(|row| row.operation.to_owned()).collect();
    assert_eq!(operations(&bank).await, known);
}

#[tokio::test]
async fn nobody_without_a_good_token_gets_anything_but_health() {
    let scene = Scene::set().await;
    let before = scene.bank.app.log().await;
    let bad = bad_tokens(&scene.bank.signer);
    for Row { operation, scope, .. } in TABLE {
        let nobody = scene.ask(&scene.bank.app.client(), operation).await;
        match scope {
            Some(_) => unauthenticated(nobody, None, operation),
            None => drop(nobody.expect(200)),
        }
        for (name, token) in &bad {
            let response = scene.ask(&scene.bank.client_with_token(token), operation).await;
            match scope {
                Some(_) => unauthenticated(response, Some("invalid_token"), &format!("{operation}: {name}")),
                None => drop(response.expect(200)),
            }
        }
    }
    assert_eq!(scene.bank.app.log().await, before);
}

#[tokio::test]
async fn a_header_that_does_not_hold_one_bearer_token_is_refused() {
    let bank = spawn_auth_app().await;
    let token = bank.signer.sign(&claims("ada", "accounts:read"));
    let client = bank.app.client();
    for header in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {token}"),
        token.clone(),
        "Bearer\u{e9} x".to_owned(),
    ] {
        unauthenticated(
            client.with_header("authorization", &header).get("/v1/accounts").await,
            Some("invalid_token"),
            &header,
        );
    }
    let twice = bank.client_with_token(&token).with_header("authorization", &format!("Bearer {token}"));
    unauthenticated(twice.get("/v1/accounts").await, Some("invalid_token"), "two tokens");
    unauthenticated(client.get(&format!("/v1/accounts?access_token={token}")).await, None, "in the query");
    for scheme in ["Bearer", "bearer", "BEARER"] {
        client.with_header("authorization", &format!("{scheme} {token}")).get("/v1/accounts").await.expect(200);
    }
}

#[tokio::test]
async fn every_scope_gives_what_it_says_and_nothing_else() {
    for Row { operation, scope, own, .. } in TABLE {
        let Some(scope) = scope else { continue };
        let scene = Scene::set().await;
        let wider = format!("{scope}:any");
        let gives = |held: &str| held == *scope || held == wider;
        let others: Vec<&str> = SCOPES.into_iter().filter(|held| !gives(held)).collect();
        let all_others = others.join(" ");
        for held in others.into_iter().chain([all_others.as_str(), "", "openid profile", "accounts:*"]) {
            let refused = scene.ask(&scene.bank.client_with_scope("ada", held), operation).await;
            let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
            refused.expect_problem(403, "forbidden");
            assert!(challenge.contains("error=\"insufficient_scope\""), "{operation} with {held:?}: {challenge}");
            assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{operation} with {held:?}: {challenge}");
        }
        scene.ask(&scene.bank.client_with_scope("ada", scope), operation).await.expect(*own);
        if SCOPES.contains(&wider.as_str()) {
            let scene = Scene::set().await;
            scene.ask(&scene.bank.client_with_scope("clerk", &wider), operation).await.expect(*own);
        }
    }
}

#[tokio::test]
async fn on_the_account_of_somebody_else_a_scope_gives_nothing_unless_it_is_one_on_any_account() {
    for Row { operation, scope, own, others } in TABLE {
        let Some(scope) = scope else { continue };
        let scene = Scene::set().await;
        let before = scene.bank.app.log().await;
        let response = scene.ask(&scene.bank.client_with_scope("ben", scope), operation).await;
        match others {
            Others::Alike => drop(response.expect(*own)),
            Others::NotFound(code) => {
                response.expect_problem(404, code);
                assert_eq!(scene.bank.app.log().await, before, "{operation}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_names_the_scope_of_every_operation_and_its_refusals() {
    let bank = spawn_auth_app().await;
    let document = bank.app.client().get("/openapi.json").await.expect(200).body;
    let scheme = &document["components"]["securitySchemes"]["bearer"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    for Row { operation, scope, .. } in TABLE {
        let (method, path) = operation.split_once(' ').unwrap();
        let told = &document["paths"][path][method];
        let Some(scope) = scope else {
            assert!(told["security"].is_null() && told["responses"]["401"].is_null(), "{operation}");
            continue;
        };
        assert_eq!(told["security"][0]["bearer"], json!([scope]), "{operation}");
        let any = format!("{scope}:any");
        let expected = if SCOPES.contains(&any.as_str()) { json!([any]) } else { Value::Null };
        assert_eq!(told["security"][1]["bearer"], expected, "{operation}");
        assert!(told["description"].as_str().unwrap().contains(&format!("`{scope}`")), "{operation}");
        for status in ["401", "403"] {
            let refusal = &told["responses"][status];
            assert!(!refusal["headers"]["WWW-Authenticate"].is_null(), "{operation} {status}");
        }
    }
}

#[tokio::test]
async fn what_explains_the_service_is_open_to_everybody() {
    let bank = spawn_auth_app().await;
    for path in
        ["/livez", "/readyz", "/openapi.json", "/swagger-ui/", "/problems/unauthenticated", "/problems/forbidden"]
    {
        bank.app.client().get(path).await.expect(200);
    }
    bank.app.client().get("/nowhere").await.expect_problem(404, "not_found");
}
