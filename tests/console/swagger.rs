//! Swagger UI, where a developer succeeds at the first try: every example is sent as it stands, in the order of the page, to an
//! empty bank.

use serde_json::Value;

use crate::{
    browser::Browser,
    support::{spawn_app, spawn_guarded, tokens::claims},
};

/// An example of the page: its operation, and which of its bodies.
#[derive(Debug, serde::Deserialize)]
struct Example {
    id: String,
    name: String,
}

/// Answers without an end: the page waits for it.
const ENDLESS: &str = "stream_events";

async fn open(browser: &Browser) {
    browser.visit("/swagger-ui/").await;
    browser.until("the operations", "document.querySelectorAll('.opblock').length > 15").await;
    // Long answers make the page slow, and what is asked for is remembered.
    browser.run("window.kept = window.fetch; window.asked = []; window.fetch = (input, options) => window.kept(input, options).then((answer) => {
        const url = input.url ?? String(input); window.asked.push([answer.status, options?.method ?? input.method, url]); return answer })").await;
}

async fn examples(browser: &Browser) -> Vec<Example> {
    let found = browser.ask("[...document.querySelectorAll('.opblock')].map((b) => ({id: b.id, name: b.querySelector('.opblock-summary').innerText.replace(/\\s+/g, ' ')}))").await;
    serde_json::from_value(found).unwrap()
}

/// Opens an operation and makes its form ready.
async fn try_out(browser: &Browser, id: &str) {
    let block = format!("[id=\"{id}\"]");
    browser.run(&format!("document.querySelector('{block}').scrollIntoView()")).await;
    browser.run(&format!("document.querySelector('{block} .opblock-summary-control').click()")).await;
    browser.until("Try it out", &format!("document.querySelector('{block} .try-out__btn')")).await;
    browser.run(&format!("document.querySelector('{block} .try-out__btn').click()")).await;
    browser.until("Execute", &format!("document.querySelector('{block} .execute')")).await;
}

/// Sends what stands in the form; its status.
async fn execute(browser: &Browser, id: &str) -> Value {
    let before = browser.ask("window.asked.length").await;
    let click = format!("document.querySelector('[id=\"{id}\"] .execute').click()");
    match id.starts_with("operations-Commands") || id.ends_with("rebuild") {
        true => {
            browser.run(&click).await;
            browser.until(id, &format!("window.asked.length > {before}")).await;
        }
        // The page takes what was typed a moment later.
        false => browser.until(id, &format!("({click}, window.asked.length > {before})")).await,
    }
    browser.ask("window.asked.at(-1)").await
}

#[tokio::test]
async fn every_example_works_as_it_stands_and_in_order_on_an_empty_bank() {
    let app = spawn_app().await;
    let browser = Browser::at(&app.url()).await;
    browser.size(1360, 3000).await;
    open(&browser).await;
    let mut sent = 0;
    for Example { id, name } in examples(&browser).await {
        try_out(&browser, &id).await;
        if id.ends_with("get_transfer") {
            // Only the service knows the id of a transfer: the developer has it from the receipt.
            let transfer =
                app.log().await.events.iter().find(|event| event.event_type == "TransferSent").unwrap().data.clone();
            let transfer: Value = serde_json::from_str(&transfer.to_string()).unwrap();
            let field = format!("[id=\"{id}\"] tr[data-param-name=transfer_id] input");
            browser.fill(&field, transfer["transfer_id"].as_str().unwrap()).await;
        }
        let bodies =
            format!("[...document.querySelectorAll('[id=\"{id}\"] .examples-select option')].map((o) => o.value)");
        let bodies: Vec<String> = serde_json::from_value(browser.ask(&bodies).await).unwrap();
        for (at, example) in bodies.iter().map(String::as_str).chain(bodies.is_empty().then_some("")).enumerate() {
            if at > 0 {
                let body = format!("document.querySelector('[id=\"{id}\"] .body-param__text').value");
                let before = browser.ask(&body).await;
                let choose = format!("[id=\"{id}\"] .examples-select select option[value=\"{example}\"]");
                browser.click(&choose).await;
                browser.until("the example", &format!("{body} !== {before}")).await;
            }
            let asked = execute(&browser, &id).await;
            let status = asked[0].as_u64().unwrap();
            assert!((200..300).contains(&status), "{name}: {asked}");
            if !id.ends_with(ENDLESS) {
                browser
                    .until("the answer", &format!("document.querySelector('[id=\"{id}\"] .live-responses-table')"))
                    .await;
            }
            sent += 1;
        }
        browser.run(&format!("document.querySelector('[id=\"{id}\"] .opblock-summary-control').click()")).await;
    }
    assert!(sent > 22, "only {sent} examples were sent");
    browser.visit("/swagger-ui/").await;
    browser.size(1360, 900).await;
    browser.until("the operations", "document.querySelectorAll('.opblock').length > 15").await;
    browser.picture("swagger-ui").await;
}

#[tokio::test]
async fn authorize_works() {
    let bank = spawn_guarded().await;
    let browser = Browser::at(&bank.app.url()).await;
    browser.size(1360, 3000).await;
    open(&browser).await;
    let list = "operations-Queries-list_accounts";
    try_out(&browser, list).await;
    assert_eq!(execute(&browser, list).await[0], 401);
    browser.click(".btn.authorize").await;
    browser.fill(".auth-container input", &bank.signer.sign(&claims("clerk", "accounts:read:any"))).await;
    browser.click(".auth-btn-wrapper .authorize").await;
    browser.click(".auth-btn-wrapper .btn-done").await;
    assert_eq!(execute(&browser, list).await[0], 200);
}
