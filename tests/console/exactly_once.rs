//! Money moves exactly once: after double clicks, lost responses, a killed service and page reloads.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use passbook_testkit::{App, folder::Folder, process::Passbook, spawn_app};
use serde_json::json;
use sqlx::Connection;

use crate::{
    browser::Browser,
    lossy_proxy::LossyProxy,
    teller_workflow::{ADA, create_ada_and_ben, open_ada_account, wait_for_balance},
};

async fn deposit_count(app: &App) -> usize {
    app.log().await.events.iter().filter(|event| event.event_type == "MoneyDeposited").count()
}

#[tokio::test]
async fn double_click_sends_one_command() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let proxy = LossyProxy::start(&app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    // Three submits in one script, before the page can render the disabled button.
    browser.run_script("const b = document.querySelector('details[open] form button:not([type])'); b.click(); b.click(); b.form.requestSubmit()").await;
    browser.wait_for_text("Deposited: €5.00. New balance: €105.00.").await;
    wait_for_balance(&browser, "€105.00").await;
    assert_eq!((deposit_count(&app).await, proxy.commands()), (1, 1));
}

/// Clicks the button of the open form, and again as soon as `condition` is true: a double click with a fast response.
async fn click_twice(browser: &Browser, condition: &str) {
    let clicks = "const { fetch } = window; window.posts = 0;
        window.fetch = (path, options) => (options?.method === 'POST' && window.posts++, fetch(path, options));
        const click = () => document.querySelector('details[open] form button:not([type])')?.click();
        click();
        const timer = setInterval(() => { if (CONDITION) clearInterval(timer), click(), window.isTwice = true }, 5);";
    browser.run_script(&clicks.replace("CONDITION", condition)).await;
    browser.wait_until("the second click", "window.isTwice").await;
}

#[tokio::test]
async fn second_click_right_after_the_response_is_ignored() {
    let (app, browser) = open_ada_account().await;
    browser.fill("#deposit-amount", "5").await;
    click_twice(&browser, "document.querySelector('.outcome').innerText").await;
    assert_eq!(browser.evaluate("posts").await, 1);
    assert!(!browser.shows_text("Enter an amount.").await);
    browser.wait_for_text("Deposited: €5.00. New balance: €105.00.").await;
    // A later click counts again, and the previous success message stays.
    let click =
        "(document.querySelector('details[open] form button:not([type])').click(), document.querySelector('.error'))";
    browser.wait_until("the error for the empty amount", click).await;
    assert!(browser.shows_text("Enter an amount.").await && browser.shows_text("Deposited: €5.00.").await);
    assert_eq!(deposit_count(&app).await, 1);
}

#[tokio::test]
async fn second_click_does_not_undo_freeze_or_unfreeze() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    for (action, status) in [("Freeze", "frozen"), ("Unfreeze", "open")] {
        browser.open(&format!("accounts/{ADA}")).await;
        browser.reload().await;
        browser.open_action(action).await;
        click_twice(&browser, &format!("document.querySelector('.account-head .status').innerText === '{status}'"))
            .await;
        assert_eq!(browser.evaluate("posts").await, 1);
        browser.wait_until("the focus moves to the heading", "document.activeElement.id === 'actions'").await;
    }
    // A click on Freeze does not unfreeze an account that another user froze in the meantime.
    browser.open_action("Freeze").await;
    browser.fill("#freeze-reason", "lost card").await;
    app.client().freeze(ADA.parse().unwrap()).await.expect(200);
    browser.wait_for_text_in(".account-head .status", "frozen").await;
    browser.wait_for_text_in(".actions summary", "Unfreeze").await;
    assert_eq!(browser.evaluate("document.querySelector('details[open] #unfreeze-reason')").await, json!(null));
}

#[tokio::test]
async fn balance_never_goes_back_while_the_view_lags() {
    let (app, browser) = open_ada_account().await;
    browser.run_script("window.seen = []; setInterval(() => { const now = document.querySelector('.balance-amount').innerText; if (seen.at(-1) !== now) seen.push(now) }, 5)").await;
    let mut projector = app.database().await;
    sqlx::raw_sql("BEGIN; SELECT FROM projection FOR UPDATE").execute(&mut projector).await.unwrap();
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    wait_for_balance(&browser, "€105.00").await;
    let requested =
        "performance.getEntriesByType('resource').filter((e) => e.name.includes('min_position')).length > 3";
    browser.wait_until("the page repeats reads with min_position", requested).await;
    assert_eq!(browser.evaluate("seen").await, json!(["€100.00", "€105.00"]));
    projector.close().await.unwrap();
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "+€5.00").await;
    assert_eq!(browser.evaluate("seen").await, json!(["€100.00", "€105.00"]));
}

#[tokio::test]
async fn statement_includes_the_latest_deposit() {
    let (app, browser) = open_ada_account().await;
    let mut projector = app.database().await;
    sqlx::raw_sql("BEGIN; SELECT FROM projection FOR UPDATE").execute(&mut projector).await.unwrap();
    browser.fill("#deposit-amount", "5").await;
    browser.fill("#deposit-reference", "latest deposit").await;
    browser.click("details[open] form button:not([type])").await;
    wait_for_balance(&browser, "€105.00").await;
    browser.open_action("Statement").await;
    browser.click_text("Download").await;
    let requested = "performance.getEntriesByType('resource').some((e) => e.name.includes('/statement?'))";
    browser.wait_until("the statement request", requested).await;
    projector.close().await.unwrap();
    let statement = browser.download("csv").await;
    assert!(statement.contains("latest deposit"), "{statement}");

    browser.run_script("const f = document.querySelector('#statement-to'); f.value = ''; f.dispatchEvent(new Event('input', {bubbles: true}))").await;
    browser.click_text("Download").await;
    browser.wait_until("the focus moves to the missing date", "document.activeElement.id === 'statement-to'").await;
    assert!(!browser.shows_text("is not responding").await);
}

#[tokio::test]
async fn lost_response_is_retried_with_the_same_key() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let proxy = LossyProxy::start(&app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&browser, "€100.00").await;
    proxy.lose_responses(2);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Deposited: €5.00. New balance: €105.00.").await;
    assert_eq!(
        (deposit_count(&app).await, proxy.commands()),
        (1, 3),
        "the command is sent three times and executed once"
    );
}

#[tokio::test]
async fn reloaded_page_resumes_a_command_without_a_response() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let proxy = LossyProxy::start(&app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&browser, "€100.00").await;
    proxy.lose_responses(1_000);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Waiting for confirmation: Deposit €5.00.").await;
    browser.reload().await;
    browser.wait_for_text("Waiting for confirmation: Deposit €5.00.").await;
    proxy.lose_responses(0);
    browser.wait_for_text("Deposit €5.00: completed.").await;
    wait_for_balance(&browser, "€105.00").await;
    assert_eq!(deposit_count(&app).await, 1);
    assert_eq!(browser.evaluate("sessionStorage.getItem('passbook.outbox')").await, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_completes_after_the_service_was_killed_and_restarted() {
    let folder = Folder::migrated();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = || {
        let free = free.clone();
        let starting = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", free);
        tokio::task::block_in_place(|| starting.start())
    };
    let bank = start();
    let base = bank.client.base_url().to_owned();
    let client = passbook_testkit::http_client().build().unwrap();
    let body = json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000});
    assert_eq!(client.post(format!("{base}/v1/accounts")).json(&body).send().await.unwrap().status(), 201);
    let browser = Browser::start(&base).await;
    browser.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    tokio::task::block_in_place(|| drop(bank.stop(Signal::SIGKILL)));
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Waiting for confirmation: Deposit €5.00.").await;
    let bank = start();
    browser.wait_for_text("Deposited: €5.00. New balance: €105.00.").await;
    wait_for_balance(&browser, "€105.00").await;
    assert!(!browser.shows_text("Waiting for confirmation").await);
    drop(browser);
    tokio::task::block_in_place(|| drop(bank.stop(Signal::SIGTERM)));
}
