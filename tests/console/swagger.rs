//! Swagger UI: sends every example unchanged, in the order of the page, to an empty bank, and checks that each one succeeds.

use passbook_testkit::{spawn_app_with, spawn_auth_app, tokens::claims};
use serde_json::Value;

use crate::browser::Browser;

/// An operation on the page.
#[derive(Debug, serde::Deserialize)]
struct Example {
    id: String,
    name: String,
}

/// The operation whose response never ends, so the page never renders it.
const ENDLESS: &str = "streamEvents";

async fn open(browser: &Browser) {
    browser.visit("/swagger-ui/").await;
    browser.wait_until("the operations", "document.querySelectorAll('.opblock').length > 15").await;
    // Record the requests. Rendering of long responses is slow, so tests do not wait for it.
    browser.run_script("window.originalFetch = window.fetch; window.requests = []; window.fetch = (input, options) => window.originalFetch(input, options).then((response) => {
        const url = input.url ?? String(input); window.requests.push([response.status, options?.method ?? input.method, url]); return response })").await;
}

async fn examples(browser: &Browser) -> Vec<Example> {
    let found = browser.evaluate("[...document.querySelectorAll('.opblock')].map((b) => ({id: b.id, name: b.querySelector('.opblock-summary').innerText.replace(/\\s+/g, ' ')}))").await;
    let mut examples: Vec<Example> = serde_json::from_value(found).unwrap();
    // What is deleted is needed before.
    examples.sort_by_key(|example| example.id.ends_with("deleteWebhook"));
    examples
}

/// Opens an operation and enables its form.
async fn try_out(browser: &Browser, id: &str) {
    let block = format!("[id=\"{id}\"]");
    browser.run_script(&format!("document.querySelector('{block}').scrollIntoView()")).await;
    browser.run_script(&format!("document.querySelector('{block} .opblock-summary-control').click()")).await;
    browser.wait_until("Try it out", &format!("document.querySelector('{block} .try-out__btn')")).await;
    browser.run_script(&format!("document.querySelector('{block} .try-out__btn').click()")).await;
    browser.wait_until("Execute", &format!("document.querySelector('{block} .execute')")).await;
}

/// Sends the form and returns status, method and URL of the request.
async fn execute(browser: &Browser, id: &str) -> Value {
    let before = browser.evaluate("window.requests.length").await;
    let click = format!("document.querySelector('[id=\"{id}\"] .execute').click()");
    match id.starts_with("operations-Commands")
        || id.starts_with("operations-Webhooks")
        || id.ends_with("rebuildProjection")
    {
        true => {
            browser.run_script(&click).await;
            browser.wait_until(id, &format!("window.requests.length > {before}")).await;
        }
        // The page applies typed input with a delay, so click until a request is sent.
        false => browser.wait_until(id, &format!("({click}, window.requests.length > {before})")).await,
    }
    browser.evaluate("window.requests.at(-1)").await
}

#[tokio::test]
async fn examples_succeed_unchanged_and_in_order_on_an_empty_bank() {
    let app = spawn_app_with(&["--webhooks-allow-private"]).await;
    let browser = Browser::start(&app.url()).await;
    browser.set_viewport(1360, 3000).await;
    open(&browser).await;
    let mut sent = 0;
    for Example { id, name } in examples(&browser).await {
        try_out(&browser, &id).await;
        let bodies =
            format!("[...document.querySelectorAll('[id=\"{id}\"] .examples-select option')].map((o) => o.value)");
        let bodies: Vec<String> = serde_json::from_value(browser.evaluate(&bodies).await).unwrap();
        for (at, example) in bodies.iter().map(String::as_str).chain(bodies.is_empty().then_some("")).enumerate() {
            if at > 0 {
                let body = format!("document.querySelector('[id=\"{id}\"] .body-param__text').value");
                let before = browser.evaluate(&body).await;
                let choose = format!("[id=\"{id}\"] .examples-select select option[value=\"{example}\"]");
                browser.click(&choose).await;
                browser.wait_until("the example", &format!("{body} !== {before}")).await;
            }
            let request = execute(&browser, &id).await;
            let status = request[0].as_u64().unwrap();
            assert!((200..300).contains(&status), "{name}: {request}");
            if !id.ends_with(ENDLESS) {
                browser
                    .wait_until(
                        "the response",
                        &format!("document.querySelector('[id=\"{id}\"] .live-responses-table')"),
                    )
                    .await;
            }
            sent += 1;
        }
        browser.run_script(&format!("document.querySelector('[id=\"{id}\"] .opblock-summary-control').click()")).await;
    }
    assert!(sent > 30, "only {sent} examples were sent");
    browser.visit("/swagger-ui/").await;
    browser.set_viewport(1360, 900).await;
    browser.wait_until("the operations", "document.querySelectorAll('.opblock').length > 15").await;
    browser.screenshot("swagger-ui").await;
}

#[tokio::test]
async fn authorize_dialog_sets_the_token() {
    let bank = spawn_auth_app().await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.set_viewport(1360, 3000).await;
    open(&browser).await;
    let list = "operations-Queries-listAccounts";
    try_out(&browser, list).await;
    assert_eq!(execute(&browser, list).await[0], 401);
    browser.click(".btn.authorize").await;
    browser.fill(".auth-container input", &bank.signer.sign(&claims("clerk", "accounts:read:any"))).await;
    browser.click(".auth-btn-wrapper .authorize").await;
    browser.click(".auth-btn-wrapper .btn-done").await;
    assert_eq!(execute(&browser, list).await[0], 200);
}
