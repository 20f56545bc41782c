//! With access control on: a token is asked for once, and when it ends nothing that was typed is lost.

use serde_json::json;

use crate::{
    browser::Browser,
    counter::{ADA, balance_is},
    support::{
        Guarded, spawn_guarded,
        tokens::{claims, claims_with, in_s},
    },
    wire::Wire,
};

const CLERK: &str = "accounts:read:any accounts:write:any accounts:freeze audit:read operations";

async fn give(browser: &Browser, token: &str) {
    browser.until("the question", "document.querySelector('dialog[open] #token')").await;
    browser.fill("#token", token).await;
    browser.press("Use this token").await;
    is_free(browser).await;
}

/// As long as the question stands, nothing behind it can be clicked.
async fn is_free(browser: &Browser) {
    browser.until("the page is free", "!document.querySelector('dialog[open]')").await;
}

async fn ada(bank: &Guarded) {
    let body = json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000});
    bank.clerk().open(body).await.expect(201);
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_kept_for_the_tab_alone() {
    let bank = spawn_guarded().await;
    ada(&bank).await;
    let browser = Browser::at(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.sees("There is no bearer token.").await;
    give(&browser, &bank.signer.sign(&claims("clerk", CLERK))).await;
    balance_is(&browser, "€100.00").await;
    browser.load_again().await;
    balance_is(&browser, "€100.00").await;
    assert_eq!(browser.ask("!!document.querySelector('dialog[open]')").await, false);
    browser.sees("clerk").await;
    assert_eq!(browser.ask("localStorage.length + document.cookie.length").await, 0);
    let other = browser.beside().await;
    other.open(&format!("accounts/{ADA}")).await;
    other.until("the question", "document.querySelector('dialog[open] #token')").await;
    browser.press("Forget token").await;
    assert_eq!(browser.ask("sessionStorage.getItem('passbook.token')").await, json!(null));
}

#[tokio::test]
async fn a_token_that_ends_brings_the_question_back_and_the_form_keeps_what_was_typed() {
    let bank = spawn_guarded().await;
    ada(&bank).await;
    let browser = Browser::at(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    give(&browser, &bank.signer.sign(&claims("clerk", CLERK))).await;
    balance_is(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    browser.fill("#deposit-reference", "half written").await;
    // Clocks may be a minute apart, so a token ends for certain where it is one of another time.
    let ended = bank.signer.sign(&claims_with("clerk", CLERK, &json!({"exp": in_s(-3600), "iat": in_s(-7200)})));
    browser.run(&format!("sessionStorage.setItem('passbook.token', '{ended}'); window.typed = true")).await;
    browser
        .run("import('/console/api.js').then((api) => api.access.give(sessionStorage.getItem('passbook.token')))")
        .await;
    browser.until("the question", "document.querySelector('dialog[open] #token')").await;
    assert_eq!(browser.ask("document.querySelector('#deposit-reference').value").await, "half written");
    give(&browser, &bank.signer.sign(&claims("clerk", CLERK))).await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("Paid in: €5.00. The balance is €105.00.").await;
    assert_eq!(browser.ask("window.typed").await, true, "the page is the same");
    browser.sees("half written").await;
}

#[tokio::test]
async fn what_one_caller_has_sent_no_other_asks_for() {
    let bank = spawn_guarded().await;
    ada(&bank).await;
    let wire = Wire::to(&bank.app.url()).await;
    let browser = Browser::at(&wire.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    let [clerk, other] = ["clerk", "other"].map(|name| bank.signer.sign(&claims(name, CLERK)));
    give(&browser, &clerk).await;
    balance_is(&browser, "€100.00").await;
    wire.lose_answers(u32::MAX);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("No answer yet: Deposit €5.00.").await;
    browser.press("Forget token").await;
    give(&browser, &other).await;
    browser.sees("Not known whether it was done: Deposit €5.00. Only clerk can ask").await;
    assert!(browser.ask("document.querySelector('.onitsway button').disabled").await.as_bool().unwrap());
    // Loaded again, it is still not the other's.
    browser.load_again().await;
    browser.sees("Only clerk can ask").await;
    wire.lose_answers(0);
    browser.press("Forget token").await;
    give(&browser, &clerk).await;
    browser.press("Ask again").await;
    browser.sees("Deposit €5.00: recorded.").await;
    balance_is(&browser, "€105.00").await;
    assert_eq!(browser.ask("sessionStorage.getItem('passbook.outbox')").await, "[]");
    browser.press("Forget token").await;
    give(&browser, &other).await;
    balance_is(&browser, "€105.00").await;
    assert!(!browser.shows("recorded.").await, "it was told to another");
    let deposits = bank.app.log().await.events.into_iter().filter(|event| event.event_type == "MoneyDeposited");
    assert_eq!(deposits.count(), 1);
}

#[tokio::test]
async fn nobody_sees_what_the_caller_before_them_has_read() {
    let bank = spawn_guarded().await;
    ada(&bank).await;
    let browser = Browser::at(&bank.app.url()).await;
    let clerk = bank.signer.sign(&claims("clerk", CLERK));
    let ben = bank.signer.sign(&claims("ben", "accounts:read accounts:write"));
    browser.open("accounts?open=yes").await;
    browser.press("Not now").await;
    is_free(&browser).await;
    browser.fill("#open-owner", "typed before").await;
    browser.press("Token").await;
    give(&browser, &clerk).await;
    browser.press("Try again").await;
    browser.sees_in("tbody", "€100.00").await;
    assert_eq!(browser.ask("document.querySelector('#open-owner').value").await, "typed before");
    browser.press("Forget token").await;
    browser.until("nothing is left", "!document.querySelector('tbody tr')").await;
    give(&browser, &ben).await;
    browser.sees("There is no such account.").await;

    browser.press("Forget token").await;
    give(&browser, &clerk).await;
    browser.open(&format!("accounts/{ADA}")).await;
    balance_is(&browser, "€100.00").await;
    // The token ends, and somebody else gives theirs.
    browser.run(&format!("import('/console/api.js').then((api) => api.access.give('{clerk}x'))")).await;
    give(&browser, &ben).await;
    browser.sees("There is no such account").await;
    assert!(!browser.shows("€100.00").await && !browser.shows("At the counter").await);
}

#[tokio::test]
async fn whoever_may_not_is_told_so_in_the_services_own_words() {
    let bank = spawn_guarded().await;
    bank.customer("ada").open(json!({"currency": "EUR", "initial_deposit": 10_000})).await.expect(201);
    let browser = Browser::at(&bank.app.url()).await;
    browser.open("").await;
    give(&browser, &bank.signer.sign(&claims("ada", "accounts:read accounts:write"))).await;
    browser.sees("The token lacks the scope accounts:read:any.").await;
    browser.open("operations").await;
    browser.sees("The token lacks the scope operations.").await;
    browser.open("accounts").await;
    browser.sees("€100.00").await;
    browser.click("tbody a").await;
    balance_is(&browser, "€100.00").await;
    browser.sees("The token lacks the scope audit:read.").await;
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    balance_is(&browser, "€105.00").await;
}
