//! Keys from an OpenID Connect provider: discovery, rotation, and caching while the provider is unreachable.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use passbook::service::Service;
use passbook_testkit::{
    ApiClient, App, eventually, spawn_app, spawn_app_with,
    tokens::{AUDIENCE, Signer, claims, claims_with, in_seconds},
};
use serde_json::{Value, json};

use crate::oidc_provider::OidcProvider;

async fn spawn_app_for(issuer: &str) -> App {
    spawn_app_with(&[&format!("--auth-issuer={issuer}"), &format!("--auth-audience={AUDIENCE}")]).await
}

fn client_with_token(app: &App, token: &str) -> ApiClient {
    app.client().with_header("authorization", &format!("Bearer {token}"))
}

/// Whether the app accepts a token of this signer. A different `n` gives a different token, which is not in the token
/// cache.
async fn accepts(app: &App, provider: &OidcProvider, signer: &Signer, n: i64) -> bool {
    let claims = json!({"iss": provider.issuer(), "exp": in_seconds(600 + n)});
    let response =
        client_with_token(app, &signer.sign(&claims_with("ada", "accounts:read", &claims))).get("/v1/accounts").await;
    match response.status {
        200 => true,
        _ => {
            response.expect_problem(401, "unauthenticated");
            false
        }
    }
}

#[tokio::test]
async fn new_keys_are_fetched_at_most_once_a_minute() {
    let [first, second, third] = ["first", "second", "third"].map(|id| Signer::new(id, Algorithm::ES256));
    let provider = OidcProvider::start(&[&first]).await;
    let app = spawn_app_for(&provider.issuer()).await;
    assert!(accepts(&app, &provider, &first, 0).await);
    assert_eq!(provider.request_count(), 1, "at the start");
    provider.publish(&[&first, &second]);
    assert!(accepts(&app, &provider, &second, 0).await);
    assert_eq!(provider.request_count(), 2, "one more for the unknown key");
    provider.publish(&[&second, &third]);
    for n in 0..20 {
        assert!(!accepts(&app, &provider, &third, n).await);
        assert!(accepts(&app, &provider, &first, n + 1).await);
    }
    assert_eq!(provider.request_count(), 2, "no further request for unknown keys");
}

#[tokio::test]
async fn concurrent_tokens_with_a_new_key_cause_one_fetch() {
    let [first, second] = ["first", "second"].map(|id| Signer::new(id, Algorithm::ES256));
    let provider = OidcProvider::start(&[&first]).await;
    let app = spawn_app_for(&provider.issuer()).await;
    provider.publish(&[&first, &second]);
    let all = (0..50).map(|n| accepts(&app, &provider, &second, n));
    assert_eq!(futures_util::future::join_all(all).await, [true; 50]);
    assert_eq!(provider.request_count(), 2);
}

#[tokio::test]
async fn cached_keys_stay_valid_while_the_provider_is_unreachable() {
    let [known, unknown] = ["known", "unknown"].map(|id| Signer::new(id, Algorithm::ES256));
    let mut provider = OidcProvider::start(&[&known]).await;
    let app = spawn_app_for(&provider.issuer()).await;
    provider.stop().await;
    for n in 0..3 {
        assert!(!accepts(&app, &provider, &unknown, n).await);
        assert!(accepts(&app, &provider, &known, n).await);
    }
    app.client().get("/readyz").await.expect(200);
}

#[tokio::test]
async fn start_without_provider_refuses_all_tokens_until_it_returns() {
    let signer = Signer::new("key", Algorithm::ES256);
    let mut provider = OidcProvider::start(&[&signer]).await;
    provider.stop().await;
    let app = spawn_app_for(&provider.issuer()).await;
    assert!(!accepts(&app, &provider, &signer, 0).await);
    app.client().get("/readyz").await.expect_problem(503, "storage_unavailable");
    provider.restart().await;
    eventually("the provider's keys", async || accepts(&app, &provider, &signer, 0).await.then_some(())).await;
    app.client().get("/readyz").await.expect(200);
}

#[tokio::test]
async fn incomplete_auth_settings_fail_the_start() {
    let app = spawn_app().await;
    let start = async |flags: &[&str]| {
        let mut config = passbook_testkit::config::config("postgres:///nowhere", flags);
        config.listen = "127.0.0.1:0".parse().unwrap();
        match Service::start(&config).await {
            Ok(_) => panic!("the service starts with {flags:?}"),
            Err(error) => error.to_string(),
        }
    };
    for (flags, part) in [
        (&["--auth-issuer=https://id.example"][..], "PASSBOOK_AUTH_AUDIENCE"),
        (&["--auth-audience=passbook"], "PASSBOOK_AUTH_JWKS_FILE"),
        (&["--auth-issuer=http://id.example", "--auth-audience=passbook"], "https://"),
        (&["--auth-issuer=id.example", "--auth-audience=passbook"], "https://"),
        (&["--auth-client-id=console"], "PASSBOOK_AUTH_ISSUER"),
        (&["--auth-client-id=console", "--auth-jwks-file=/nowhere", "--auth-issuer=me"], "PASSBOOK_AUTH_CLIENT_ID"),
        (&["--auth-jwks-file=/nowhere"], "/nowhere"),
        (&["--auth-jwks-file=/dev/null"], "not a JWKS document"),
        (&["--auth-jwks-file=/nowhere", "--auth=off"], "PASSBOOK_AUTH=off"),
        (&["--listen=0.0.0.0:0", "--auth-jwks-file=/nowhere"], "/nowhere"),
    ] {
        let flags: Vec<&str> = flags.iter().copied().filter(|flag| !flag.starts_with("--listen")).collect();
        let error = start(&flags).await;
        assert!(error.contains(part), "{flags:?}: {error}");
    }
    drop(app);
}

#[tokio::test]
async fn provider_with_another_issuer_name_is_not_trusted() {
    let signer = Signer::new("key", Algorithm::ES256);
    let provider = OidcProvider::start(&[&signer]).await;
    let app = spawn_app_for(&provider.issuer().replace("127.0.0.1", "localhost")).await;
    assert!(!accepts(&app, &provider, &signer, 0).await);
    let claims = claims("ada", "accounts:read");
    client_with_token(&app, &signer.sign(&claims)).get("/v1/accounts").await.expect_problem(401, "unauthenticated");
}

/// The npm package `oauth2-mock-server` as a child process, and its issuer URL.
struct MockServer(Child, String);

impl Drop for MockServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SERVER: &str = r"
const { OAuth2Server } = require('oauth2-mock-server');
(async () => {
  const server = new OAuth2Server();
  for (const alg of ['RS256', 'PS256', 'ES256', 'EdDSA']) await server.issuer.keys.generate(alg);
  await server.start(0, '127.0.0.1');
  server.issuer.url = `http://127.0.0.1:${server.address().port}`;
  server.service.on('beforeTokenSigning', (token, req) => {
    Object.assign(token.payload, { sub: 'ada', aud: 'passbook', scope: 'accounts:read accounts:write' });
  });
  console.log(server.issuer.url);
})();
";

impl MockServer {
    /// Installs the package into `folder` and starts it. Fails on a machine without npm or without access to its
    /// registry.
    fn start(folder: &std::path::Path) -> Self {
        let mut install = Command::new("npm");
        install
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error", "oauth2-mock-server@8"])
            .current_dir(folder);
        let installed = install.output().expect("this test needs npm (Node.js 20 or newer)");
        assert!(
            installed.status.success(),
            "npm cannot install oauth2-mock-server: {}",
            String::from_utf8_lossy(&installed.stderr)
        );
        let mut node = Command::new("node");
        node.args(["-e", SERVER]).current_dir(folder).stdout(Stdio::piped());
        let mut child = node.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }

    async fn token(&self) -> String {
        let http = passbook_testkit::http_client().timeout(Duration::from_secs(10)).build().unwrap();
        let request =
            http.post(format!("{}/token", self.1)).header("content-type", "application/x-www-form-urlencoded");
        let response: Value = request.body("grant_type=client_credentials").send().await.unwrap().json().await.unwrap();
        response["access_token"].as_str().unwrap_or_else(|| panic!("no token: {response}")).to_owned()
    }
}

#[tokio::test]
async fn tokens_of_a_third_party_provider_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let server = tokio::task::spawn_blocking(move || MockServer::start(&path)).await.unwrap();
    assert!(server.1.starts_with("http://127.0.0.1:"), "the provider does not print its URL: {:?}", server.1);
    let app = spawn_app_for(&server.1).await;
    // The server signs with each of its keys in turn.
    for _ in 0..8 {
        let ada = client_with_token(&app, &server.token().await);
        let opened = ada.open(json!({"currency": "EUR"})).await.expect(201);
        let seen = ada.get_account(opened.account_id(), opened.position()).await.expect(200);
        assert_eq!(seen.body["owner"], "ada");
    }
}
