//! The page for batches: rows of a spreadsheet become commands, are checked, and are carried out once.

use passbook_testkit::spawn_app;
use serde_json::json;

use crate::{
    browser::Browser,
    lossy_proxy::LossyProxy,
    teller_workflow::{ADA, BEN, create_ada_and_ben},
};

/// Puts a text into the field for the rows, as pasting does.
async fn paste(browser: &Browser, rows: &str) {
    let script = "const t = document.querySelector('#batch-text'); t.value = TEXT; t.dispatchEvent(new Event('input', {bubbles: true}))";
    browser.run_script(&script.replace("TEXT", &json!(rows).to_string())).await;
}

#[tokio::test]
async fn batch_is_checked_and_carried_out_once_after_lost_responses() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let proxy = LossyProxy::start(&app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open("batch").await;
    paste(&browser, &format!("command;account_id;amount;currency\ndeposit;{ADA};12,5O;EUR\nclose;{BEN};;")).await;
    browser.wait_for_text("Line 2: 12,5O: Enter the amount in EUR as digits").await;
    let rows = format!(
        "command\taccount_id\tfrom\tto\tamount\tcurrency\ndeposit\t{ADA}\t\t\t12.50\tEUR\ntransfer\t\t{ADA}\t{BEN}\t200\tEUR"
    );
    paste(&browser, &rows).await;
    browser.click_text("Check without carrying out").await;
    browser.wait_for_text_in("section[aria-labelledby=batch-results]", "€112.50 is available").await;
    browser.wait_for_text_in("section[aria-labelledby=batch-results]", "Not carried out").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("batch").await;

    browser.click("input[value=each]").await;
    proxy.lose_responses(2);
    browser.click_text("Carry out 2 commands").await;
    browser.wait_for_text("Carried out: 1. Refused: 1.").await;
    browser.wait_for_text_in("section[aria-labelledby=batch-results]", "€112.50 is available").await;
    browser.click("input[value=atomic]").await;
    paste(&browser, &rows.replace("\t200\t", "\t100\t")).await;
    proxy.lose_responses(1);
    // A click right after the response to the command before counts as the second half of a double click.
    let click = "(document.querySelector('#batch-text').form.querySelector('button:not([type])').click(),
        document.querySelector('#batch-text').form.ariaBusy === 'true' || document.body.innerText.includes('Carried out: 2.'))";
    browser.wait_until("the second batch is sent", click).await;
    browser.wait_for_text("Carried out: 2.").await;
    let count = async |name: &str| app.log().await.events.iter().filter(|event| event.event_type == name).count();
    assert_eq!((count("MoneyDeposited").await, count("TransferSent").await), (2, 1));
    browser.wait_for_text_in("section[aria-labelledby=batch-results] tbody tr:nth-child(2)", "€25.00").await;
}
