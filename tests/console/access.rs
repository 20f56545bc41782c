//! The console with access control: the token dialog, expired tokens, and the separation of one caller's data from another's.

use passbook_testkit::{
    AuthApp, spawn_auth_app,
    tokens::{claims, claims_with, in_seconds},
};
use serde_json::json;

use crate::{
    browser::Browser,
    lossy_proxy::LossyProxy,
    teller_workflow::{ADA, wait_for_balance},
};

const CLERK: &str = "accounts:read:any accounts:write:any accounts:freeze audit:read operations";

pub async fn enter_token(browser: &Browser, token: &str) {
    browser.wait_until("the token dialog", "document.querySelector('dialog[open] #token')").await;
    browser.fill("#token", token).await;
    browser.click_text("Use this token").await;
    wait_until_dialog_closed(browser).await;
}

/// While the dialog is open, nothing behind it can be clicked.
async fn wait_until_dialog_closed(browser: &Browser) {
    browser.wait_until("the dialog is closed", "!document.querySelector('dialog[open]')").await;
}

async fn open_ada_account(bank: &AuthApp) {
    let body = json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000});
    bank.clerk().open(body).await.expect(201);
}

#[tokio::test]
async fn token_is_requested_once_and_stored_for_one_tab() {
    let bank = spawn_auth_app().await;
    open_ada_account(&bank).await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text("The request has no bearer token.").await;
    enter_token(&browser, &bank.signer.sign(&claims("clerk", CLERK))).await;
    wait_for_balance(&browser, "€100.00").await;
    browser.reload().await;
    wait_for_balance(&browser, "€100.00").await;
    assert_eq!(browser.evaluate("!!document.querySelector('dialog[open]')").await, false);
    browser.wait_for_text("clerk").await;
    assert_eq!(browser.evaluate("localStorage.length + document.cookie.length").await, 0);
    let other = browser.open_another().await;
    other.open(&format!("accounts/{ADA}")).await;
    other.wait_until("the token dialog", "document.querySelector('dialog[open] #token')").await;
    browser.click_text("Remove token").await;
    assert_eq!(browser.evaluate("sessionStorage.getItem('passbook.token')").await, json!(null));
}

#[tokio::test]
async fn expired_token_opens_the_dialog_and_the_form_keeps_its_input() {
    let bank = spawn_auth_app().await;
    open_ada_account(&bank).await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    enter_token(&browser, &bank.signer.sign(&claims("clerk", CLERK))).await;
    wait_for_balance(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    browser.fill("#deposit-reference", "half written").await;
    // The service tolerates a minute of clock skew, so the token expired an hour ago.
    let expired =
        bank.signer.sign(&claims_with("clerk", CLERK, &json!({"exp": in_seconds(-3600), "iat": in_seconds(-7200)})));
    browser.run_script(&format!("sessionStorage.setItem('passbook.token', '{expired}'); window.typed = true")).await;
    browser
        .run_script(
            "import('/console/api.js').then((api) => api.access.setToken(sessionStorage.getItem('passbook.token')))",
        )
        .await;
    browser.wait_until("the token dialog", "document.querySelector('dialog[open] #token')").await;
    assert_eq!(browser.evaluate("document.querySelector('#deposit-reference').value").await, "half written");
    enter_token(&browser, &bank.signer.sign(&claims("clerk", CLERK))).await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Deposited: €5.00. New balance: €105.00.").await;
    assert_eq!(browser.evaluate("window.typed").await, true, "the page was not reloaded");
    browser.wait_for_text("half written").await;
}

#[tokio::test]
async fn command_of_one_caller_is_not_resent_by_another() {
    let bank = spawn_auth_app().await;
    open_ada_account(&bank).await;
    let proxy = LossyProxy::start(&bank.app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    let [clerk, other] = ["clerk", "other"].map(|name| bank.signer.sign(&claims(name, CLERK)));
    enter_token(&browser, &clerk).await;
    wait_for_balance(&browser, "€100.00").await;
    proxy.lose_responses(u32::MAX);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Waiting for confirmation: Deposit €5.00.").await;
    browser.click_text("Remove token").await;
    enter_token(&browser, &other).await;
    browser.wait_for_text("Result unknown: Deposit €5.00. Only clerk can check the result").await;
    assert!(browser.evaluate("document.querySelector('.pending-commands button').disabled").await.as_bool().unwrap());
    // A reload does not resend the command either.
    browser.reload().await;
    browser.wait_for_text("Only clerk can check the result").await;
    proxy.lose_responses(0);
    browser.click_text("Remove token").await;
    enter_token(&browser, &clerk).await;
    browser.click_text("Check result").await;
    browser.wait_for_text("Deposit €5.00: completed.").await;
    wait_for_balance(&browser, "€105.00").await;
    assert_eq!(browser.evaluate("sessionStorage.getItem('passbook.outbox')").await, "[]");
    browser.click_text("Remove token").await;
    enter_token(&browser, &other).await;
    wait_for_balance(&browser, "€105.00").await;
    assert!(!browser.shows_text("completed.").await, "another caller sees the result");
    let deposits = bank.app.log().await.events.into_iter().filter(|event| event.event_type == "MoneyDeposited");
    assert_eq!(deposits.count(), 1);
}

#[tokio::test]
async fn data_and_input_of_a_caller_are_hidden_from_the_next() {
    let bank = spawn_auth_app().await;
    open_ada_account(&bank).await;
    let browser = Browser::start(&bank.app.url()).await;
    let clerk = bank.signer.sign(&claims("clerk", CLERK));
    let ben = bank.signer.sign(&claims("ben", "accounts:read accounts:write"));
    browser.open("accounts?open=yes").await;
    browser.click_text("Not now").await;
    wait_until_dialog_closed(&browser).await;
    browser.fill("#open-owner", "typed before").await;
    browser.click_text("Enter token").await;
    enter_token(&browser, &clerk).await;
    browser.click_text("Try again").await;
    browser.wait_for_text_in("tbody", "€100.00").await;
    assert_eq!(browser.evaluate("document.querySelector('#open-owner').value").await, "typed before");
    browser.click_text("Remove token").await;
    browser.wait_until("an empty list", "!document.querySelector('tbody tr')").await;
    enter_token(&browser, &ben).await;
    browser.wait_for_text("No accounts match.").await;

    browser.click_text("Remove token").await;
    enter_token(&browser, &clerk).await;
    browser.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&browser, "€100.00").await;
    // An invalid token opens the dialog, and another caller enters a token.
    browser.run_script(&format!("import('/console/api.js').then((api) => api.access.setToken('{clerk}x'))")).await;
    enter_token(&browser, &ben).await;
    browser.wait_for_text("There is no account with this ID").await;
    assert!(!browser.shows_text("€100.00").await && !browser.shows_text("Actions").await);
}

#[tokio::test]
async fn missing_scopes_are_named() {
    let bank = spawn_auth_app().await;
    bank.customer("ada").open(json!({"currency": "EUR", "initial_deposit": 10_000})).await.expect(201);
    let browser = Browser::start(&bank.app.url()).await;
    browser.open("").await;
    enter_token(&browser, &bank.signer.sign(&claims("ada", "accounts:read accounts:write"))).await;
    browser.wait_for_text_in("h1", "My accounts").await;
    browser.open("operations").await;
    browser.wait_for_text("The token lacks the scope operations.").await;
    browser.open("accounts").await;
    browser.wait_for_text("€100.00").await;
    browser.click("tbody a").await;
    wait_for_balance(&browser, "€100.00").await;
    assert_eq!(browser.evaluate("!!document.querySelector('.banner, .notice.bad')").await, false);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    wait_for_balance(&browser, "€105.00").await;
}
