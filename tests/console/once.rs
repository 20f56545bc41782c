//! Money moves once: whatever is clicked twice, lost, killed, or loaded again.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::Connection;

use crate::{
    browser::Browser,
    counter::{ADA, ada_and_ben, at_the_counter, balance_is},
    folder::Folder,
    passbook::Passbook,
    support::{App, spawn_app},
    wire::Wire,
};

async fn movements(app: &App) -> usize {
    app.log().await.events.iter().filter(|event| event.event_type == "MoneyDeposited").count()
}

#[tokio::test]
async fn a_double_click_sends_once() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let wire = Wire::to(&app.url()).await;
    let browser = Browser::at(&wire.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    balance_is(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    // Three clicks before anything can be drawn anew.
    browser.run("const b = document.querySelector('details[open] form button:not([type])'); b.click(); b.click(); b.form.requestSubmit()").await;
    browser.sees("Paid in: €5.00. The balance is €105.00.").await;
    balance_is(&browser, "€105.00").await;
    assert_eq!((movements(&app).await, wire.commands()), (1, 1));
}

/// Clicks the button of the open form, and once more as soon as something holds: a double click on a fast bank.
async fn click_twice(browser: &Browser, once: &str) {
    let clicks = "const { fetch } = window; window.posts = 0;
        window.fetch = (path, options) => (options?.method === 'POST' && window.posts++, fetch(path, options));
        const click = () => document.querySelector('details[open] form button:not([type])')?.click();
        click();
        const timer = setInterval(() => { if (ONCE) clearInterval(timer), click(), window.isTwice = true }, 5);";
    browser.run(&clicks.replace("ONCE", once)).await;
    browser.until("the second click", "window.isTwice").await;
}

#[tokio::test]
async fn a_second_click_behind_the_answer_does_nothing() {
    let (app, browser) = at_the_counter().await;
    browser.fill("#deposit-amount", "5").await;
    click_twice(&browser, "document.querySelector('.outcome').innerText").await;
    assert_eq!(browser.ask("posts").await, 1);
    assert!(!browser.shows("Write an amount.").await);
    browser.sees("Paid in: €5.00. The balance is €105.00.").await;
    // Later a click counts again, and what was done before stays told.
    let click =
        "(document.querySelector('details[open] form button:not([type])').click(), document.querySelector('.error'))";
    browser.until("an amount is asked for", click).await;
    assert!(browser.shows("Write an amount.").await && browser.shows("Paid in: €5.00.").await);
    assert_eq!(movements(&app).await, 1);
}

#[tokio::test]
async fn nobody_undoes_with_a_second_click_what_they_have_just_done() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    for (does, status) in [("Freeze", "frozen"), ("Unfreeze", "open")] {
        browser.open(&format!("accounts/{ADA}")).await;
        browser.load_again().await;
        browser.counter(does).await;
        click_twice(&browser, &format!("document.querySelector('.account-head .status').innerText === '{status}'"))
            .await;
        assert_eq!(browser.ask("posts").await, 1);
        browser.until("the keyboard goes on there", "document.activeElement.id === 'do'").await;
    }
    // And nobody undoes what a colleague has done meanwhile.
    browser.counter("Freeze").await;
    browser.fill("#freeze-reason", "lost card").await;
    app.client().freeze(ADA.parse().unwrap()).await.expect(200);
    browser.sees_in(".account-head .status", "frozen").await;
    browser.sees_in(".actions summary", "Unfreeze").await;
    assert_eq!(browser.ask("document.querySelector('details[open] #unfreeze-reason')").await, json!(null));
}

#[tokio::test]
async fn nobody_sees_a_balance_from_before_their_click_however_far_behind_the_view_is() {
    let (app, browser) = at_the_counter().await;
    browser.run("window.seen = []; setInterval(() => { const now = document.querySelector('.figure').innerText; if (seen.at(-1) !== now) seen.push(now) }, 5)").await;
    let mut projector = app.database().await;
    sqlx::raw_sql("BEGIN; SELECT FROM projection FOR UPDATE").execute(&mut projector).await.unwrap();
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    balance_is(&browser, "€105.00").await;
    let asked = "performance.getEntriesByType('resource').filter((e) => e.name.includes('min_position')).length > 3";
    browser.until("the page asks the view again and again", asked).await;
    assert_eq!(browser.ask("seen").await, json!(["€100.00", "€105.00"]));
    projector.close().await.unwrap();
    browser.sees_in("section[aria-labelledby=transactions]", "+€5.00").await;
    assert_eq!(browser.ask("seen").await, json!(["€100.00", "€105.00"]));
}

#[tokio::test]
async fn a_statement_holds_what_has_just_been_booked() {
    let (app, browser) = at_the_counter().await;
    let mut projector = app.database().await;
    sqlx::raw_sql("BEGIN; SELECT FROM projection FOR UPDATE").execute(&mut projector).await.unwrap();
    browser.fill("#deposit-amount", "5").await;
    browser.fill("#deposit-reference", "just booked").await;
    browser.click("details[open] form button:not([type])").await;
    balance_is(&browser, "€105.00").await;
    browser.counter("Statement").await;
    browser.press("Download CSV").await;
    let asked = "performance.getEntriesByType('resource').some((e) => e.name.includes('/statement?'))";
    browser.until("the statement is asked for", asked).await;
    projector.close().await.unwrap();
    let statement = browser.download("csv").await;
    assert!(statement.contains("just booked"), "{statement}");

    browser.run("const f = document.querySelector('#statement-to'); f.value = ''; f.dispatchEvent(new Event('input', {bubbles: true}))").await;
    browser.press("Download JSON").await;
    browser.until("the day is asked for", "document.activeElement.id === 'statement-to'").await;
    assert!(!browser.shows("does not answer").await);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_done_twice() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let wire = Wire::to(&app.url()).await;
    let browser = Browser::at(&wire.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    balance_is(&browser, "€100.00").await;
    wire.lose_answers(2);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("Paid in: €5.00. The balance is €105.00.").await;
    assert_eq!((movements(&app).await, wire.commands()), (1, 3), "sent again under the same key");
}

#[tokio::test]
async fn a_page_that_is_loaded_again_asks_for_the_answer_that_it_has_not_had() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let wire = Wire::to(&app.url()).await;
    let browser = Browser::at(&wire.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    balance_is(&browser, "€100.00").await;
    wire.lose_answers(1_000);
    browser.fill("#deposit-amount", "5").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("No answer yet: Deposit €5.00.").await;
    browser.load_again().await;
    browser.sees("No answer yet: Deposit €5.00.").await;
    wire.lose_answers(0);
    browser.sees("Deposit €5.00: recorded.").await;
    balance_is(&browser, "€105.00").await;
    assert_eq!(movements(&app).await, 1);
    assert_eq!(browser.ask("sessionStorage.getItem('passbook.outbox')").await, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_is_killed_in_the_middle_of_a_form_is_found_again() {
    let folder = Folder::migrated();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = || {
        let free = free.clone();
        let starting = Passbook::in_folder(&folder).set("PASSBOOK_LISTEN", free);
        tokio::task::block_in_place(|| starting.start())
    };
    let bank = start();
    let base = bank.client.base_url().to_owned();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000});
    assert_eq!(client.post(format!("{base}/v1/accounts")).json(&body).send().await.unwrap().status(), 201);
    let browser = Browser::at(&base).await;
    browser.open(&format!("accounts/{ADA}")).await;
    balance_is(&browser, "€100.00").await;
    browser.fill("#deposit-amount", "5").await;
    tokio::task::block_in_place(|| drop(bank.stop(Signal::SIGKILL)));
    browser.click("details[open] form button:not([type])").await;
    browser.sees("No answer yet: Deposit €5.00.").await;
    let bank = start();
    browser.sees("Paid in: €5.00. The balance is €105.00.").await;
    balance_is(&browser, "€105.00").await;
    assert!(!browser.shows("No answer yet").await);
    drop(browser);
    tokio::task::block_in_place(|| drop(bank.stop(Signal::SIGTERM)));
}
