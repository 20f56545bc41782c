//! Sign-in to the console with an OpenID Connect provider: authorization code with PKCE in a window of its own.

use jsonwebtoken::Algorithm;
use passbook_testkit::{
    App, spawn_app_with,
    tokens::{AUDIENCE, Signer, claims_with},
};
use serde_json::json;

use crate::{
    browser::Browser,
    oidc_provider::OidcProvider,
    sign_in_endpoints::{CLIENT_ID, Endpoints},
    teller_workflow::{ADA, wait_for_balance},
};

const CLERK: &str = "accounts:read:any accounts:write:any audit:read";

struct Bank {
    app: App,
    endpoints: Endpoints,
    _provider: OidcProvider,
}

/// An app that trusts a provider at which a clerk and a customer can sign in.
async fn spawn_bank() -> Bank {
    let signer = Signer::new("key-1", Algorithm::EdDSA);
    let mut endpoints = None;
    let describe = |issuer: &str| {
        let users = [("clerk", CLERK), ("ada", "accounts:read accounts:write")];
        let made = endpoints.insert(Endpoints::new(issuer, &signer, &users));
        (made.metadata(), made.router())
    };
    let provider = OidcProvider::start_with(&[&signer], describe).await;
    let issuer = provider.issuer();
    let [issuer_flag, audience, client] = [("issuer", &*issuer), ("audience", AUDIENCE), ("client-id", CLIENT_ID)]
        .map(|(name, value)| format!("--auth-{name}={value}"));
    let app = spawn_app_with(&[&issuer_flag, &audience, &client]).await;
    let token = signer.sign(&claims_with("clerk", CLERK, &json!({"iss": issuer})));
    let clerk = app.client().with_header("authorization", &format!("Bearer {token}"));
    let body = json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000});
    clerk.open(body).await.expect(201);
    Bank { app, endpoints: endpoints.unwrap(), _provider: provider }
}

async fn sign_in(browser: &Browser, user: &str) {
    browser.click("dialog[open] h2 ~ .buttons button").await;
    browser.in_other_window(|| browser.click_text(user)).await;
}

#[tokio::test]
async fn user_signs_in_at_the_provider_and_input_is_kept() {
    let bank = spawn_bank().await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text_in("dialog[open]", "You sign in at 127.0.0.1").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("sign-in").await;
    sign_in(&browser, "Refuse").await;
    browser.wait_for_text_in("dialog[open] [role=alert]", "The sign-in was refused or cancelled").await;
    sign_in(&browser, "Sign in as clerk").await;
    wait_for_balance(&browser, "€100.00").await;
    browser.wait_for_text_in(".caller", "clerk").await;
    // No code stays in an address or in the history, and the refresh token is stored nowhere.
    assert_eq!(browser.evaluate("location.search + localStorage.length + document.cookie").await, "0");
    assert_eq!(browser.evaluate("Object.keys(sessionStorage).join()").await, "passbook.token");
    browser.click_text("Sign out").await;
    sign_in(&browser, "Sign in as ada").await;
    browser.wait_for_text_in(".caller", "ada").await;
    browser.open("").await;
    browser.wait_for_text_in("h1", "My accounts").await;
}

#[tokio::test]
async fn expired_token_is_renewed_without_the_user() {
    let bank = spawn_bank().await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text_in("dialog[open]", "You sign in at 127.0.0.1").await;
    sign_in(&browser, "Sign in as clerk").await;
    wait_for_balance(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    // The token is replaced by one that the service refuses; the refresh token stays.
    let spoil = "import('/console/api.js').then(({access}) => { const [head, claims] = sessionStorage.getItem('passbook.token').split('.'); access.setToken(`${head}.${claims}.AAAA`) })";
    browser.run_script(spoil).await;
    browser.click("details[open] form button:not([type])").await;
    wait_for_balance(&browser, "€105.00").await;
    assert_eq!(browser.evaluate("!!document.querySelector('dialog[open]')").await, false);
    assert_eq!(browser.evaluate("sessionStorage.getItem('passbook.token').endsWith('.AAAA')").await, false);
    // A renewed token that is refused too opens the dialog, and the console does not ask for ever.
    browser.fill("#deposit-reference", "half written").await;
    *bank.endpoints.token_s.lock().unwrap() = -3_600;
    browser.run_script(spoil).await;
    browser.wait_for_text_in("dialog[open]", "You sign in at 127.0.0.1").await;
    *bank.endpoints.token_s.lock().unwrap() = 600;
    sign_in(&browser, "Sign in as clerk").await;
    browser.wait_until("the dialog is closed", "!document.querySelector('dialog[open]')").await;
    assert_eq!(browser.evaluate("document.querySelector('#deposit-reference').value").await, "half written");
}

#[tokio::test]
async fn service_names_the_provider_without_a_secret() {
    let bank = spawn_bank().await;
    let document = bank.app.client().get("/console/sign-in.json").await.expect(200);
    assert_eq!((&document.body["client_id"], &document.body["audience"]), (&json!(CLIENT_ID), &json!(AUDIENCE)));
    assert!(document.body["scopes"].as_array().unwrap().contains(&json!("accounts:read:any")));
    let issuer = document.text("/issuer").to_owned();
    let page = bank.app.client().get("/").await.expect(200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains(&format!("; connect-src 'self' {issuer}; ")), "{policy}");
    let open = passbook_testkit::spawn_app().await;
    assert_eq!(open.client().get("/console/sign-in.json").await.expect(200).body, json!(null));
}
