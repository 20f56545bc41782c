//! Tokens that are taken: every algorithm, both forms of scopes, clocks that are a little apart.

use std::fs;

use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

use crate::support::{
    ApiClient, spawn_app_with, spawn_auth_app,
    tokens::{Signer, claims, claims_with, in_seconds, jwks},
};

async fn bank_with(keys: &[Value]) -> (crate::support::App, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    fs::write(&file, jwks(keys)).unwrap();
    (spawn_app_with(&[&format!("--auth-jwks-file={}", file.display())]).await, folder)
}

fn client_with_token(app: &crate::support::App, token: &str) -> ApiClient {
    app.client().with_header("authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn every_algorithm_with_a_public_key_is_taken() {
    let signers =
        [("rsa", Algorithm::RS256), ("p256", Algorithm::ES256), ("p384", Algorithm::ES384), ("ed", Algorithm::EdDSA)]
            .map(|(id, algorithm)| Signer::new(id, algorithm));
    let mut keys: Vec<Value> = signers.iter().map(Signer::jwk).collect();
    // A key that does not say what it is good for is good for all of its kind.
    keys[0].as_object_mut().unwrap().remove("alg");
    let (app, _folder) = bank_with(&keys).await;
    let said = claims("ada", "accounts:read");
    for signer in &signers {
        client_with_token(&app, &signer.sign(&said)).get("/v1/accounts").await.expect(200);
    }
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        client_with_token(&app, &signers[0].with_algorithm(algorithm).sign(&said)).get("/v1/accounts").await.expect(200);
    }
    for algorithm in [Algorithm::PS384, Algorithm::PS512] {
        let refused = client_with_token(&app, &signers[0].with_algorithm(algorithm).sign(&said)).get("/v1/accounts").await;
        refused.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_key_is_good_for_nothing_but_what_it_says() {
    let rsa = Signer::new("rsa", Algorithm::RS256);
    let encrypting = Signer::new("enc", Algorithm::EdDSA);
    let mut not_for_signing = encrypting.jwk();
    not_for_signing["use"] = json!("enc");
    let shared =
        json!({"kty": "oct", "k": "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2gtZm9yLWFueQ", "kid": "oct", "alg": "HS256"});
    let odd =
        [json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "odd"}), json!({"kty": "?"}), json!(7)];
    let keys: Vec<Value> = [rsa.jwk(), not_for_signing, shared].into_iter().chain(odd).collect();
    let (app, _folder) = bank_with(&keys).await;
    let said = claims("ada", "accounts:read");
    client_with_token(&app, &rsa.sign(&said)).get("/v1/accounts").await.expect(200);
    let with_secret = rsa.with_id("oct").sign_with_secret(&said, b"secret-that-is-long-enough-for-any");
    for token in
        [rsa.with_algorithm(Algorithm::RS512).sign(&said), encrypting.sign(&said), with_secret, rsa.with_id("odd").sign(&said)]
    {
        client_with_token(&app, &token).get("/v1/accounts").await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_token_without_a_key_id_is_taken_where_only_one_key_can_be_meant() {
    let (ed, p256, other) = (
        Signer::new("ed", Algorithm::EdDSA),
        Signer::new("p256", Algorithm::ES256),
        Signer::new("p256-2", Algorithm::ES256),
    );
    let (app, _folder) = bank_with(&[ed.jwk(), p256.jwk(), other.jwk()]).await;
    let said = claims("ada", "accounts:read");
    let nameless = |signer: &Signer| signer.sign_with(&Header { kid: None, ..signer.header() }, &said);
    client_with_token(&app, &nameless(&ed)).get("/v1/accounts").await.expect(200);
    for ambiguous in [nameless(&p256), nameless(&other)] {
        client_with_token(&app, &ambiguous).get("/v1/accounts").await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn clocks_may_be_a_minute_apart() {
    let bank = spawn_auth_app().await;
    for others in [
        json!({"exp": in_seconds(-50)}),
        json!({"nbf": in_seconds(50)}),
        json!({"exp": in_seconds(600) as f64 + 0.5}),
        json!({"exp": 1e18}),
    ] {
        let token = bank.signer.sign(&claims_with("ada", "accounts:read", &others));
        for _ in 0..2 {
            bank.client_with_token(&token).get("/v1/accounts").await.expect(200);
        }
    }
}

#[tokio::test]
async fn one_of_several_audiences_is_enough_and_scopes_come_in_any_form() {
    let bank = spawn_auth_app().await;
    for others in [
        json!({"aud": ["another-service", "passbook"]}),
        json!({"scope": null, "scp": "openid accounts:read"}),
        json!({"scope": "", "scp": ["accounts:read"]}),
        json!({"scope": "openid", "scp": ["accounts:read:any", "email"]}),
    ] {
        let token = bank.signer.sign(&claims_with("ada", "accounts:read", &others));
        bank.client_with_token(&token).get("/v1/accounts").await.expect(200);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_token() {
    let bank = spawn_auth_app().await;
    bank.customer("ada").open_with_balance(0).await;
    // The clocks' difference is granted to a stream, too.
    let token = bank.signer.sign(&claims_with("auditor", "audit:read", &json!({"exp": in_seconds(-50)})));
    let mut reader = bank.client_with_token(&token).subscribe("").await;
    assert_eq!(reader.rest().await.len(), 1);
}
