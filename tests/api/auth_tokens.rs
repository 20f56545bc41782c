//! Accepted tokens: every algorithm, both forms of scopes, and clock skew within the tolerance.

use std::fs;

use jsonwebtoken::{Algorithm, Header};
use passbook_testkit::{
    ApiClient, spawn_app_with, spawn_auth_app,
    tokens::{Signer, claims, claims_with, in_seconds, jwks},
};
use serde_json::{Value, json};

async fn spawn_app_with_keys(keys: &[Value]) -> (passbook_testkit::App, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    fs::write(&file, jwks(keys)).unwrap();
    (spawn_app_with(&[&format!("--auth-jwks-file={}", file.display())]).await, folder)
}

fn client_with_token(app: &passbook_testkit::App, token: &str) -> ApiClient {
    app.client().with_header("authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn every_supported_asymmetric_algorithm_is_accepted() {
    let signers =
        [("rsa", Algorithm::RS256), ("p256", Algorithm::ES256), ("p384", Algorithm::ES384), ("ed", Algorithm::EdDSA)]
            .map(|(id, algorithm)| Signer::new(id, algorithm));
    let mut keys: Vec<Value> = signers.iter().map(Signer::jwk).collect();
    // A key without `alg` may be used with every algorithm of its type.
    keys[0].as_object_mut().unwrap().remove("alg");
    let (app, _folder) = spawn_app_with_keys(&keys).await;
    let valid = claims("ada", "accounts:read");
    for signer in &signers {
        client_with_token(&app, &signer.sign(&valid)).get("/v1/accounts").await.expect(200);
    }
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        client_with_token(&app, &signers[0].with_algorithm(algorithm).sign(&valid))
            .get("/v1/accounts")
            .await
            .expect(200);
    }
    for algorithm in [Algorithm::PS384, Algorithm::PS512] {
        let refused =
            client_with_token(&app, &signers[0].with_algorithm(algorithm).sign(&valid)).get("/v1/accounts").await;
        refused.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn key_is_used_only_for_its_declared_use_and_algorithm() {
    let rsa = Signer::new("rsa", Algorithm::RS256);
    let encrypting = Signer::new("enc", Algorithm::EdDSA);
    let mut not_for_signing = encrypting.jwk();
    not_for_signing["use"] = json!("enc");
    let shared =
        json!({"kty": "oct", "k": "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2gtZm9yLWFueQ", "kid": "oct", "alg": "HS256"});
    let unsupported = [
        json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "unsupported"}),
        json!({"kty": "?"}),
        json!(7),
    ];
    let keys: Vec<Value> = [rsa.jwk(), not_for_signing, shared].into_iter().chain(unsupported).collect();
    let (app, _folder) = spawn_app_with_keys(&keys).await;
    let valid = claims("ada", "accounts:read");
    client_with_token(&app, &rsa.sign(&valid)).get("/v1/accounts").await.expect(200);
    let with_secret = rsa.with_id("oct").sign_with_secret(&valid, b"secret-that-is-long-enough-for-any");
    for token in [
        rsa.with_algorithm(Algorithm::RS512).sign(&valid),
        encrypting.sign(&valid),
        with_secret,
        rsa.with_id("unsupported").sign(&valid),
    ] {
        client_with_token(&app, &token).get("/v1/accounts").await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn token_without_key_id_is_accepted_if_one_key_matches() {
    let (ed, p256, other) = (
        Signer::new("ed", Algorithm::EdDSA),
        Signer::new("p256", Algorithm::ES256),
        Signer::new("p256-2", Algorithm::ES256),
    );
    let (app, _folder) = spawn_app_with_keys(&[ed.jwk(), p256.jwk(), other.jwk()]).await;
    let valid = claims("ada", "accounts:read");
    let without_id = |signer: &Signer| signer.sign_with(&Header { kid: None, ..signer.header() }, &valid);
    client_with_token(&app, &without_id(&ed)).get("/v1/accounts").await.expect(200);
    for ambiguous in [without_id(&p256), without_id(&other)] {
        client_with_token(&app, &ambiguous).get("/v1/accounts").await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn clock_skew_of_one_minute_is_tolerated() {
    let auth = spawn_auth_app().await;
    for others in [
        json!({"exp": in_seconds(-50)}),
        json!({"nbf": in_seconds(50)}),
        json!({"exp": in_seconds(600) as f64 + 0.5}),
        json!({"exp": 1e18}),
    ] {
        let token = auth.signer.sign(&claims_with("ada", "accounts:read", &others));
        for _ in 0..2 {
            auth.client_with_token(&token).get("/v1/accounts").await.expect(200);
        }
    }
}

#[tokio::test]
async fn audience_lists_and_all_scope_claim_forms_are_accepted() {
    let auth = spawn_auth_app().await;
    for others in [
        json!({"aud": ["another-service", "passbook"]}),
        json!({"scope": null, "scp": "openid accounts:read"}),
        json!({"scope": "", "scp": ["accounts:read"]}),
        json!({"scope": "openid", "scp": ["accounts:read:any", "email"]}),
    ] {
        let token = auth.signer.sign(&claims_with("ada", "accounts:read", &others));
        auth.client_with_token(&token).get("/v1/accounts").await.expect(200);
    }
}

#[tokio::test]
async fn event_stream_ends_when_the_token_expires() {
    let auth = spawn_auth_app().await;
    auth.customer("ada").open_with_balance(0).await;
    // The clock skew tolerance also applies to a stream.
    let token = auth.signer.sign(&claims_with("auditor", "audit:read", &json!({"exp": in_seconds(-50)})));
    let mut reader = auth.client_with_token(&token).subscribe("").await;
    assert_eq!(reader.read_to_end().await.len(), 1);
}
