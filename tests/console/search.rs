//! Finding accounts and transactions: the search field of the page frame, and the filters and orders of the lists.

use passbook_testkit::spawn_app;
use serde_json::json;

use crate::{
    browser::Browser,
    teller_workflow::{ADA, BEN, choose, create_ada_and_ben, wait_for_balance},
};

async fn find(browser: &Browser, text: &str) {
    browser.fill(".find input", text).await;
    browser.click_text("Find").await;
    browser.wait_for_text_in("h1", text).await;
}

#[tokio::test]
async fn one_search_field_finds_ids_owners_references_transfers_and_amounts() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let teller = app.client();
    let body = json!({"from": ADA, "to": BEN, "amount": 4_217, "reference": "Invoice 2026-17"});
    let transfer = teller.command("/v1/transfers", body).await.expect(201).text("/transfer_id").to_owned();
    app.wait_until_projected().await;
    let browser = Browser::start(&app.url()).await;
    browser.open("").await;
    find(&browser, "00000000aa").await;
    browser.wait_for_text_in("section[aria-labelledby=found-accounts] tbody", "ada").await;
    find(&browser, "BE").await;
    browser.wait_for_text_in("section[aria-labelledby=found-accounts] tbody", "ben").await;
    find(&browser, &transfer).await;
    browser.wait_for_text_in("section[aria-labelledby=found-transfer]", "€42.17 from").await;
    find(&browser, "42.17").await;
    browser.wait_until("both sides", "document.querySelectorAll('a.row-link').length === 2").await;
    find(&browser, "42,17 EUR").await;
    browser.wait_for_text_in("section tbody", "−€42.17").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    find(&browser, "invoice").await;
    browser.wait_until("both sides", "document.querySelectorAll('a.row-link').length === 2").await;
    browser.screenshot("search").await;
    browser.click("tr:has(.debit) a.row-link").await;
    wait_for_balance(&browser, "€57.83").await;
    browser.wait_for_text_in(".drawer", &transfer).await;
}

#[tokio::test]
async fn lists_are_filtered_and_ordered() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let teller = app.client();
    for (owner, deposit) in [("cy", 50_000), ("di", 2_000)] {
        let body =
            json!({"currency": "EUR", "owner": owner, "initial_deposit": deposit, "metadata": {"branch": "Bonn"}});
        teller.open(body).await.expect(201);
    }
    teller.command(&format!("/v1/accounts/{ADA}/withdrawals"), json!({"amount": 500, "reference": "Cash"})).await;
    app.wait_until_projected().await;
    let browser = Browser::start(&app.url()).await;
    let owners = "[...document.querySelectorAll('tbody td.name')].map((cell) => cell.innerText).join()";
    browser.open("accounts").await;
    browser.wait_until("all accounts", &format!("{owners} === 'di,cy,ben,ada'")).await;
    browser.click_text("More filters").await;
    choose(&browser, "#sort", "-balance").await;
    browser.wait_for_text("Choose a currency").await;
    choose(&browser, "#currency", "EUR").await;
    browser.wait_until("the highest balance first", &format!("{owners} === 'cy,ada,di,ben'")).await;
    browser.fill("#min", "20").await;
    browser.fill("#max", "95.00").await;
    browser.click_text("Search").await;
    browser.wait_until("balances in the range", &format!("{owners} === 'ada,di'")).await;
    browser.fill("#key", "branch").await;
    browser.fill("#value", "Bonn").await;
    browser.click_text("Search").await;
    browser.wait_until("accounts of the branch", &format!("{owners} === 'di'")).await;
    // The address holds the filters.
    browser.reload().await;
    browser.wait_until("the same accounts", &format!("{owners} === 'di'")).await;
    assert_eq!(browser.evaluate("document.querySelector('#max').value").await, "95.00");

    browser.open(&format!("accounts/{ADA}")).await;
    let rows = "document.querySelectorAll('section[aria-labelledby=transactions] tbody tr').length";
    browser.wait_until("all transactions", &format!("{rows} === 2")).await;
    browser.fill(".filters input[name=reference]", "cas").await;
    browser.press_keys("\u{e007}").await;
    browser.wait_until("the reference", &format!("{rows} === 1")).await;
    browser.open(&format!("accounts/{ADA}?min=100&max=100")).await;
    browser.wait_for_text_in("section[aria-labelledby=transactions] tbody", "+€100.00").await;
    browser.wait_until("the amount", &format!("{rows} === 1")).await;
}
