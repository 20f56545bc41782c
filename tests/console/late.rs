//! An answer that comes late finds a teller who has gone on: they are told of it, and not led away from what they do now.

use crate::{
    browser::Browser,
    counter::{ADA, BEN, ada_and_ben, at_the_counter, balance_is},
    support::spawn_app,
};

/// Keeps back the answers to commands until `hear()`.
const DEAF: &str = "const { fetch } = window, held = new Promise((go) => (window.hear = go));
    window.fetch = async (path, options) => {
        const answer = await fetch(path, options);
        if (options?.method === 'POST') await held;
        return answer;
    };";

async fn send(browser: &Browser) {
    browser.run(DEAF).await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("Sending…").await;
}

#[tokio::test]
async fn what_became_of_a_command_is_told_when_its_form_is_gone() {
    let (_app, browser) = at_the_counter().await;
    browser.fill("#deposit-amount", "5").await;
    send(&browser).await;
    browser.open(&format!("accounts/{ADA}?version=1")).await;
    browser.sees("You see the past").await;
    browser.run("hear()").await;
    browser.sees_in(".onitsway", "Deposit €5.00: recorded.").await;
    browser.press("Close this").await;

    browser.press("Back to now").await;
    balance_is(&browser, "€105.00").await;
    browser.counter("Withdraw").await;
    browser.fill("#withdraw-amount", "500").await;
    send(&browser).await;
    browser.press("Accounts").await;
    browser.sees("Newest accounts first").await;
    browser.run("hear()").await;
    browser.sees_in(".onitsway", "Withdraw €500.00: The balance").await;
}

#[tokio::test]
async fn an_account_that_is_opened_late_takes_nobody_away() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    browser.open("accounts?open=yes").await;
    browser.fill("#open-owner", "cy").await;
    send(&browser).await;
    browser.open(&format!("accounts/{BEN}")).await;
    browser.fill("#deposit-amount", "7").await;
    browser.run("hear()").await;
    browser.sees_in(".onitsway", "Open an account in EUR: recorded.").await;
    assert!(browser.ask("location.hash").await.as_str().unwrap().ends_with(BEN));
    assert_eq!(browser.ask("document.querySelector('#deposit-amount').value").await, "7");
}
