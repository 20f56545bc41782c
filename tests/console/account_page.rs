//! The account page as a back office uses it: holds, reversals, limits, the status banner, and what the scopes of a token hide.

use passbook_testkit::{spawn_app, spawn_auth_app, tokens::claims};
use serde_json::json;

use crate::{
    access::enter_token,
    browser::Browser,
    lossy_proxy::LossyProxy,
    teller_workflow::{ADA, BEN, choose, create_ada_and_ben, open_ada_account, open_tab, wait_for_balance},
};

const SUBMIT: &str = "details[open] form button:not([type])";

/// Waits until a figure of the header shows this amount.
async fn wait_for_figure(browser: &Browser, label: &str, money: &str) {
    browser.wait_for_text_in(".figures > div", &format!("{label}\n{money}")).await;
}

#[tokio::test]
async fn hold_is_placed_captured_in_part_and_voided() {
    let (_app, browser) = open_ada_account().await;
    browser.open_action("Place a hold").await;
    browser.fill("#hold-amount", "40").await;
    browser.fill("#hold-reference", "hotel").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text("Held: €40.00").await;
    wait_for_figure(&browser, "Available", "€60.00").await;
    wait_for_figure(&browser, "On hold", "€40.00").await;

    open_tab(&browser, "Holds").await;
    browser.wait_for_text_in("section[aria-labelledby=holds] tbody", "hotel").await;
    browser.click("section[aria-labelledby=holds] tbody a").await;
    browser.wait_for_text_in(".drawer", "Hold ID").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("hold-drawer").await;
    browser.click(".drawer details:nth-of-type(1) summary").await;
    browser.fill("#capture-amount", "50").await;
    browser.click(".drawer details[open] form button:not([type])").await;
    browser.wait_for_text_in(".drawer", "The hold does not cover this amount. It has €40.00 left.").await;
    browser.fill("#capture-amount", "15").await;
    browser.run_script("document.querySelector('#capture-final').value = 'no'").await;
    browser.click(".drawer details[open] form button:not([type])").await;
    browser.wait_for_text_in(".drawer", "Captured: €15.00.").await;
    browser.wait_for_text_in(".drawer .facts", "€25.00").await;
    wait_for_balance(&browser, "€85.00").await;
    browser.click(".drawer details:nth-of-type(2) summary").await;
    browser.fill("#void-reason", "guest did not come").await;
    browser.click(".drawer details[open] form button:not([type])").await;
    browser.wait_for_text_in(".drawer .facts", "voided").await;
    browser.wait_until("the actions are gone", "!document.querySelector('.drawer-actions')").await;
    browser.click(".drawer .heading button").await;
    browser.wait_for_text_in("section[aria-labelledby=holds] tbody", "voided").await;
    wait_for_figure(&browser, "Available", "€85.00").await;
}

#[tokio::test]
async fn transaction_shows_its_details_and_is_reversed_once() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let body = json!({"from": ADA, "to": BEN, "amount": 2_500, "reference": "rent", "metadata": {"flat": "4"}});
    let teller = app.client().with_header("x-request-id", "request-of-the-transfer");
    teller.command("/v1/transfers", body).await.expect(201);
    let proxy = LossyProxy::start(&app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "rent").await;
    browser.click("section[aria-labelledby=transactions] tbody a").await;
    for text in ["Transfer out", "−€25.00", "rent", "flat 4", BEN, "request-of-the-transfer", "anonymous", "Hash"] {
        browser.wait_for_text_in(".drawer", text).await;
    }
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("transaction-drawer").await;
    let printed = "[...document.querySelectorAll('.drawer button')].map((b) => b.textContent).join()";
    assert_eq!(browser.evaluate(printed).await, "Close,Print receipt,Reverse");

    proxy.lose_responses(2);
    browser.click(".drawer summary").await;
    browser.fill("#reversal-reason", "paid twice").await;
    browser.click(".drawer details[open] form button:not([type])").await;
    browser.wait_for_text_in(".drawer .facts", "Reversed").await;
    wait_for_balance(&browser, "€100.00").await;
    browser.wait_until("nothing is left to reverse", "!document.querySelector('.drawer-actions')").await;
    // The page can show the reversal before the command has its response.
    browser.wait_until("the response", "sessionStorage.getItem('passbook.outbox') === '[]'").await;
    browser.click(".drawer .heading button").await;
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "Reversal in").await;
    let reversals = app.log().await.events.into_iter().filter(|event| event.event_type == "MovementReversed");
    assert_eq!((reversals.count(), proxy.commands()), (2, 3), "both sides of one reversal, sent three times");
    // The address opens the drawer again.
    browser.click("section[aria-labelledby=transactions] tbody tr:nth-child(2) a.row-link").await;
    browser.reload().await;
    browser.wait_for_text_in(".drawer", "request-of-the-transfer").await;
}

#[tokio::test]
async fn limits_are_shown_changed_and_explained_in_major_units() {
    let (app, browser) = open_ada_account().await;
    open_tab(&browser, "Limits").await;
    browser.wait_for_text_in(".limits", "no limit").await;
    browser.click_text("Change limits").await;
    browser.fill("#limit-overdraft", "200").await;
    browser.fill("#limit-out_per_day", "50").await;
    browser.click("section[aria-labelledby=limits] form button:not([type])").await;
    browser.wait_for_text_in(".limits tbody tr", "€200.00").await;
    wait_for_figure(&browser, "Available", "€300.00").await;
    app.client().withdraw(ADA.parse().unwrap(), 3_000).await.expect(201);
    browser.wait_for_text_in(".limits tbody tr:nth-child(3)", "€30.00").await;
    browser.open_action("Withdraw").await;
    browser.fill("#withdraw-amount", "30").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text("daily limit of €50.00: €30.00 is used and €20.00 is left until").await;
    // The form starts with the limits that are set: a limit that is removed stays removed, the others stay.
    browser.click_text("Change limits").await;
    assert_eq!(browser.evaluate("document.querySelector('#limit-out_per_day').value").await, "50.00");
    browser.run_script("document.querySelector('#limit-out_per_day').value = ''").await;
    browser.click("section[aria-labelledby=limits] form button:not([type])").await;
    browser.wait_for_text_in(".limits tbody tr:nth-child(3)", "no limit").await;
    let limits = app.client().get(&format!("/v1/accounts/{ADA}/limits")).await;
    assert_eq!((&limits.body["overdraft"]["maximum"], &limits.body["out_per_day"]), (&json!(20_000), &json!(null)));
}

#[tokio::test]
async fn transfer_warns_of_currencies_and_names_the_account_that_refuses() {
    let (app, browser) = open_ada_account().await;
    let opened = app.client().open(json!({"currency": "USD", "owner": "cy"})).await.expect(201);
    let dollars = opened.text("/account_id").to_owned();
    browser.open_action("Transfer").await;
    browser.fill("#transfer-to", &dollars).await;
    browser.wait_for_text("That account is in USD, this one in EUR.").await;
    browser.fill("#transfer-amount", "5").await;
    browser.click(SUBMIT).await;
    browser.wait_until("the field has the focus", "document.activeElement.id === 'transfer-to'").await;
    // The account is frozen after the page has looked at it.
    browser.fill("#transfer-to", BEN).await;
    browser.wait_for_text("ben, EUR, open").await;
    app.client().freeze(BEN.parse().unwrap()).await.expect(200);
    browser.click(SUBMIT).await;
    browser.wait_for_text("The recipient’s account is frozen.").await;
    let transfers = app.log().await.events.into_iter().filter(|event| event.event_type == "TransferSent");
    assert_eq!(transfers.count(), 0);
}

#[tokio::test]
async fn banner_says_why_an_account_is_frozen_and_filters_find_transactions() {
    let (app, browser) = open_ada_account().await;
    let ada = ADA.parse().unwrap();
    app.client().withdraw(ada, 500).await.expect(201);
    app.client().command(&format!("/v1/accounts/{ADA}/freeze"), json!({"reason": "lost card"})).await;
    browser.wait_for_text_in(".banner", "This account is frozen. Reason: lost card. By anonymous").await;
    assert_eq!(browser.evaluate("document.title").await, format!("ada …{} – Passbook", &ADA[ADA.len() - 12..]));
    let rows = "document.querySelectorAll('section[aria-labelledby=transactions] tbody tr').length";
    browser.wait_until("both transactions", &format!("{rows} === 2")).await;
    choose(&browser, ".filters select", "withdrawal").await;
    browser.wait_until("the withdrawal", &format!("{rows} === 1")).await;
    // A filter that fails shows no rows of the filter before.
    let lose = "const { fetch } = window; window.restore = () => (window.fetch = fetch);
        window.fetch = async (path, options) => {
            if (path.includes('kind=deposit')) throw new TypeError('no answer');
            return fetch(path, options);
        };";
    browser.run_script(lose).await;
    choose(&browser, ".filters select", "deposit").await;
    browser.wait_for_text_in(".list-footer", "The service is not responding.").await;
    assert_eq!(browser.evaluate(rows).await, 0);
    browser.run_script("restore()").await;
    browser.wait_for_text("No transactions match.").await;
}

#[tokio::test]
async fn actions_and_pages_that_the_scopes_forbid_are_not_shown() {
    let bank = spawn_auth_app().await;
    bank.clerk().open(json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000})).await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    enter_token(&browser, &bank.signer.sign(&claims("reader", "accounts:read:any"))).await;
    wait_for_balance(&browser, "€100.00").await;
    let actions = "[...document.querySelectorAll('.actions summary')].map((s) => s.innerText).join()";
    let tabs = "[...document.querySelectorAll('.tabs a, .top nav a')].map((a) => a.innerText).join()";
    browser.wait_until("statements only", &format!("{actions} === 'Statement'")).await;
    assert_eq!(browser.evaluate(tabs).await, "Overview,Accounts,Transactions,Holds,Limits");
    browser.click_text("Remove token").await;
    let all =
        "accounts:read:any accounts:write:any accounts:freeze accounts:holds accounts:limits audit:read operations";
    enter_token(&browser, &bank.signer.sign(&claims("manager", all))).await;
    wait_for_balance(&browser, "€100.00").await;
    let expected = "Deposit,Withdraw,Transfer,Place a hold,Freeze,Close,Statement";
    browser.wait_until("every action", &format!("{actions} === '{expected}'")).await;
    assert_eq!(browser.evaluate(tabs).await, "Overview,Accounts,Batch,Operations,Transactions,Holds,Limits,Events");
    // Without `accounts:reverse` a transaction cannot be reversed.
    browser.click("section[aria-labelledby=transactions] tbody a").await;
    browser.wait_for_text_in(".drawer", "Print receipt").await;
    assert_eq!(browser.evaluate("!!document.querySelector('.drawer-actions')").await, false);
}
