//! A response that arrives after the user left the form: the result is shown, and the current page stays open.

use passbook_testkit::spawn_app;

use crate::{
    browser::Browser,
    teller_workflow::{ADA, BEN, create_ada_and_ben, open_ada_account, wait_for_balance},
};

/// Holds back the responses to commands until the page calls `release()`.
const HOLD_RESPONSES: &str = "const { fetch } = window, held = new Promise((resolve) => (window.release = resolve));
    window.fetch = async (path, options) => {
        const response = await fetch(path, options);
        if (options?.method === 'POST') await held;
        return response;
    };";

async fn send(browser: &Browser) {
    browser.run_script(HOLD_RESPONSES).await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Sending…").await;
}

#[tokio::test]
async fn late_result_is_shown_after_the_form_was_closed() {
    let (_app, browser) = open_ada_account().await;
    browser.fill("#deposit-amount", "5").await;
    send(&browser).await;
    browser.open(&format!("accounts/{ADA}?version=1")).await;
    browser.wait_for_text("Historical view").await;
    browser.run_script("release()").await;
    browser.wait_for_text_in(".pending-commands", "Deposit €5.00: completed.").await;
    browser.click_text("Dismiss").await;

    browser.click_text("Show current state").await;
    wait_for_balance(&browser, "€105.00").await;
    browser.open_action("Withdraw").await;
    browser.fill("#withdraw-amount", "500").await;
    send(&browser).await;
    browser.click_text("Accounts").await;
    browser.wait_for_text("Newest accounts first").await;
    browser.run_script("release()").await;
    browser
        .wait_for_text_in(
            ".pending-commands",
            "Withdraw €500.00: The account does not have enough money: €105.00 is available.",
        )
        .await;
}

#[tokio::test]
async fn late_account_opening_does_not_navigate_away() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open("accounts?open=yes").await;
    browser.fill("#open-owner", "cy").await;
    send(&browser).await;
    browser.open(&format!("accounts/{BEN}")).await;
    browser.fill("#deposit-amount", "7").await;
    browser.run_script("release()").await;
    browser.wait_for_text_in(".pending-commands", "Open account in EUR: completed.").await;
    assert!(browser.evaluate("location.hash").await.as_str().unwrap().ends_with(BEN));
    assert_eq!(browser.evaluate("document.querySelector('#deposit-amount').value").await, "7");
}
