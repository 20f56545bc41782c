//! The pages for webhooks: registration with a secret that is shown once, lost responses, failing endpoints in words, replays, and
//! what the scopes hide.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use axum::{http::StatusCode, response::IntoResponse};
use passbook_testkit::{App, spawn_app, spawn_app_with, spawn_auth_app, tokens::claims};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::{
    access::enter_token,
    browser::Browser,
    lossy_proxy::LossyProxy,
    teller_workflow::{ADA, create_ada_and_ben},
    webhook_receiver::{Receiver, register, register_with, spawn_sending_app, wait_for_member, webhook},
};

const LIST: &str = "operations/webhooks";
const SUBMIT: &str = "details[open] form button:not([type])";
/// The pauses between attempts are those of a service, so a webhook stays `retrying` during a test.
const ALLOW_PRIVATE: &str = "--webhooks-allow-private";

/// The secret that the page shows.
async fn shown_secret(browser: &Browser) -> String {
    browser.wait_until("the secret", "document.querySelector('.secret code')").await;
    browser.evaluate("document.querySelector('.secret code').innerText").await.as_str().unwrap().to_owned()
}

/// Waits until the heading of the page says that the webhook has this state.
async fn wait_for_state(browser: &Browser, state: &str) {
    browser.wait_for_text_in("main .status", state).await;
}

/// The webhooks of a service.
async fn webhooks(app: &App) -> Vec<Value> {
    app.client().get("/v1/webhooks").await.expect(200).data().to_vec()
}

/// An endpoint whose status the test sets.
async fn switchable(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let shared = Arc::clone(&status);
    let answer = move |_: &_, _| StatusCode::from_u16(shared.load(Ordering::SeqCst)).unwrap().into_response();
    (Receiver::answering(answer).await, status)
}

#[tokio::test]
async fn webhook_is_registered_tested_paused_and_deleted() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let browser = Browser::start(&app.url()).await;
    browser.open("operations").await;
    browser.click_text("Webhooks").await;
    browser.wait_for_text("No webhooks yet").await;
    browser.click_text("Register the first webhook").await;
    browser.fill("#webhook-url", "ftp://example.com/").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text_in("#webhook-url-note", "must be an absolute URL").await;
    browser.fill("#webhook-url", &receiver.url).await;
    browser.click_text("Types of events: all").await;
    browser.click(".checks label:nth-of-type(1) input").await;
    browser.click(".checks label:nth-of-type(2) input").await;
    browser.wait_for_text("Types of events: 2").await;
    browser.click(SUBMIT).await;
    let secret = shown_secret(&browser).await;
    browser
        .wait_until("the focus is on the secret", "document.activeElement.innerText === 'Secret of this webhook'")
        .await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    // A script cannot read the clipboard of a headless browser, so the test records what is written to it.
    browser.run_script("navigator.clipboard.writeText = async (text) => (window.copied = text)").await;
    browser.click_text("Copy secret").await;
    browser.wait_for_text_in(".secret", "Copied").await;
    assert_eq!(browser.evaluate("window.copied").await, secret);
    browser.click_text("I have stored it").await;
    browser.wait_until("the secret is gone", &format!("!document.body.innerHTML.includes({})", json!(secret))).await;
    let stored = browser.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])").await;
    assert!(!stored.as_str().unwrap().contains("whsec_"), "{stored}");

    create_ada_and_ben(&app).await;
    let delivered = receiver.wait_for(2).await;
    assert!(Webhook::new(&secret).unwrap().verify(&delivered[0].body, &delivered[0].headers).is_ok());
    browser.wait_for_text_in("tbody .status", "active").await;
    browser.wait_for_text_in("tbody td", "up to date").await;
    browser.click("tbody a").await;
    browser.wait_for_text_in("section[aria-labelledby=deliveries] tbody", "Accepted (status 204).").await;
    browser.click_text("Send a test event").await;
    browser.wait_for_text("Test event: Accepted (status 204).").await;
    browser.wait_for_text_in("section[aria-labelledby=deliveries] td", "Test event").await;

    browser.click_text("Pause").await;
    wait_for_state(&browser, "paused").await;
    browser.wait_for_text("No event is sent until you resume it.").await;
    app.client().deposit(ADA.parse().unwrap(), 500).await.expect(201);
    browser.wait_until("the lag", "/Behind\\s+\\d+ event/.test(document.querySelector('.facts').innerText)").await;
    browser.click_text("Resume").await;
    wait_for_state(&browser, "active").await;
    receiver.wait_for_version(ADA.parse().unwrap(), 2).await;

    browser.click_text("Delete").await;
    browser.wait_for_text("No further event is sent to 127.0.0.1:").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text("No webhooks yet").await;
    assert_eq!(webhooks(&app).await, [Value::Null; 0]);
    let events = app.log().await.events;
    let of_webhook =
        events.iter().filter(|event| event.event_type.starts_with("Webhook")).map(|event| event.event_type.clone());
    assert_eq!(
        of_webhook.collect::<Vec<_>>(),
        ["WebhookRegistered", "WebhookPaused", "WebhookResumed", "WebhookDeleted"]
    );
    // The feed of the overview does not take these events for events of accounts.
    browser.open("").await;
    browser.wait_for_text_in("section[aria-labelledby=feed] td", "Webhook deleted").await;
    let links = "[...document.querySelectorAll('section[aria-labelledby=feed] tr')].filter((r) => r.innerText.includes('Webhook')).map((r) => r.querySelector('a').hash.split('/')[2])";
    assert_eq!(browser.evaluate(links).await, json!(["webhooks", "webhooks", "webhooks", "webhooks"]));
}

#[tokio::test]
async fn lost_response_registers_one_webhook_and_rotates_once() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let proxy = LossyProxy::start(&app.url()).await;
    let browser = Browser::start(&proxy.url()).await;
    browser.open(&format!("{LIST}?register=yes")).await;
    browser.fill("#webhook-url", &receiver.url).await;
    // The response to the registration, and the refusal of the second attempt.
    proxy.lose_responses(2);
    browser.click(SUBMIT).await;
    browser.wait_for_text("The service has not answered.").await;
    browser.wait_for_text("The webhook is registered, but the response with its secret was lost.").await;
    assert_eq!((webhooks(&app).await.len(), proxy.commands()), (1, 3));
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    // Sent once more by the user, it exists already.
    browser.click(SUBMIT).await;
    browser.wait_for_text("There is already a webhook with this URL and these filters.").await;
    assert_eq!((webhooks(&app).await.len(), proxy.commands()), (1, 4));

    browser.click_text("Open the webhook").await;
    browser.click_text("New secret").await;
    proxy.lose_responses(1);
    browser.click(SUBMIT).await;
    browser.wait_for_text("The response was lost. If the secret was rotated").await;
    assert_eq!(proxy.commands(), 5, "a rotation is not repeated");
    browser.click(SUBMIT).await;
    let secret = shown_secret(&browser).await;
    app.client().open_with_balance(1).await;
    let delivered = &receiver.wait_for(1).await[0];
    assert!(Webhook::new(&secret).unwrap().verify(&delivered.body, &delivered.headers).is_ok());
    browser.reload().await;
    browser.wait_for_text("Events are sent as soon as they are recorded.").await;
    assert!(!browser.evaluate("document.body.innerHTML.includes('whsec_')").await.as_bool().unwrap());
}

#[tokio::test]
async fn failing_endpoint_is_explained_and_resumed() {
    let (app, (receiver, status)) = (spawn_app_with(&[ALLOW_PRIVATE]).await, switchable(500).await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open(LIST).await;
    browser.wait_for_text_in("tbody .status", "retrying").await;
    browser.wait_for_text_in("tbody td", "The endpoint has a fault of its own (status 500).").await;
    browser.click("tbody a").await;
    browser.wait_for_text("Retrying. Since").await;
    browser.wait_for_text("nothing is lost").await;
    browser.wait_for_text_in("section[aria-labelledby=deliveries] td.error", "fault of its own").await;
    browser.click_text("Pause").await;
    wait_for_state(&browser, "paused").await;

    // An event was not accepted for three days.
    app.tamper("UPDATE webhook SET state = 'failing', failing_since = now() - interval '3 days', last_status = 401, last_error = 'the endpoint answered 401'").await;
    browser.wait_for_text("The service has stopped sending.").await;
    browser.wait_for_text("Check whether it verifies signatures with the secret of this webhook (status 401).").await;
    status.store(204, Ordering::SeqCst);
    browser.click_text("Send a test event").await;
    browser.wait_for_text("Test event: Accepted (status 204).").await;
    browser.click_text("Resume").await;
    wait_for_state(&browser, "active").await;
    browser.wait_for_text_in(".facts", "up to date").await;
    assert_eq!(wait_for_member(&client, id, "lag_events", &json!(0)).await["failing_since"], json!(null));
}

#[tokio::test]
async fn replay_asks_with_the_number_of_events() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let id = register_with(&client, json!({"url": receiver.url, "after": "0"})).await;
    create_ada_and_ben(&app).await;
    receiver.wait_for(2).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    let before = receiver.received().len();
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("{LIST}/{id}")).await;
    browser.wait_for_text_in("section[aria-labelledby=deliveries]", "Accepted").await;
    browser.click_text("Replay").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text_in("#replay-after-note", "Enter a position, such as 42.").await;
    browser.fill("#replay-after", "99").await;
    if app.partitions().count() == 1 {
        browser.wait_for_text("The endpoint never receives them.").await;
    }
    browser.click(SUBMIT).await;
    browser.wait_until("the cursor is refused", "document.querySelector('#replay-after').ariaInvalid === 'true'").await;
    assert_eq!(receiver.received().len(), before);
    browser.click("details[open] input[value=first]").await;
    browser.wait_for_text("Send again what the filters select of").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text("The events are being sent.").await;
    receiver.wait_for(2 * before).await;
}

#[tokio::test]
async fn deliveries_are_paged() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    create_ada_and_ben(&app).await;
    for _ in 0..40 {
        client.deposit(ADA.parse().unwrap(), 1).await.expect(201);
    }
    receiver.wait_for(42).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("{LIST}/{id}")).await;
    browser.click_text("Load more deliveries").await;
    browser.wait_for_text("End of list").await;
    let rows = "document.querySelectorAll('section[aria-labelledby=deliveries] tbody tr').length";
    assert_eq!(browser.evaluate(rows).await, 42);
    // New attempts come on top, and the loaded pages stay.
    client.deposit(ADA.parse().unwrap(), 1).await.expect(201);
    browser.wait_until("the new attempt", &format!("{rows} === 43")).await;
}

#[tokio::test]
async fn scopes_decide_whether_webhooks_are_shown() {
    let bank = spawn_auth_app().await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open("operations").await;
    enter_token(&browser, &bank.signer.sign(&claims("operator", "accounts:read:any operations"))).await;
    browser.wait_for_text("daily_balances").await;
    assert!(!browser.shows_text("Webhooks").await);
    browser.open(LIST).await;
    browser.wait_for_text("The token lacks the scope webhooks.").await;
    assert!(!browser.shows_text("Register").await);

    browser.click_text("Remove token").await;
    enter_token(&browser, &bank.signer.sign(&claims("integrator", "webhooks"))).await;
    browser.click(".top nav a[href='#/operations']").await;
    browser.wait_for_text("No webhooks yet").await;
    let links = "[...document.querySelectorAll('.tabs a')].length";
    assert_eq!(browser.evaluate(links).await, 0);
    assert!(!browser.shows_text("daily_balances").await);
}

#[tokio::test]
async fn webhook_pages_say_what_is_stale_and_what_is_gone() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let id = register(&app.client(), &receiver.url).await;
    let browser = Browser::start(&app.url()).await;
    let lose = "const { fetch } = window; window.restore = () => (window.fetch = fetch);
        window.fetch = async (path, options) => { if (String(path).startsWith('/v1/')) throw new TypeError('no answer'); return fetch(path, options) }";
    for page in [LIST.to_owned(), format!("{LIST}/{id}")] {
        browser.open(&page).await;
        browser.wait_for_text(&receiver.url).await;
        browser.run_script(lose).await;
        browser.wait_for_text_in("[role=alert]", "Not up to date: these figures are from").await;
        browser.run_script("restore()").await;
        browser.wait_until("the notice is gone", "!document.body.innerText.includes('Not up to date')").await;
    }
    app.client().send(reqwest::Method::DELETE, &format!("/v1/webhooks/{id}"), "").await.expect(204);
    browser.wait_for_text("There is no webhook with this ID. It may have been deleted.").await;
    assert!(!browser.shows_text("Pause").await);
}

#[tokio::test]
async fn webhook_pages_are_accessible_and_fit_a_phone_in_every_locale() {
    let (app, (receiver, _)) = (spawn_app_with(&[ALLOW_PRIVATE]).await, switchable(500).await);
    let client = app.client();
    let long_url = format!("{}/{}", receiver.url, "a-long-path-without-a-break".repeat(8));
    let failing = register_with(
        &client,
        json!({"url": long_url, "after": "0", "types": ["AccountOpened", "MoneyDeposited"], "owner": "ada"}),
    )
    .await;
    register_with(&client, json!({"url": format!("{}/all", receiver.url), "account_id": ADA})).await;
    create_ada_and_ben(&app).await;
    wait_for_member(&client, failing, "last_status", &json!(500)).await;
    let since = webhook(&client, failing).await["failing_since"].clone();
    let local_time =
        format!("new Date({since}).toLocaleString(undefined, {{dateStyle: 'medium', timeStyle: 'medium'}})");
    let pages = [
        ("webhooks", format!("{LIST}?register=yes"), "retrying"),
        ("webhook", format!("{LIST}/{failing}"), "fault of its own"),
    ];
    for language in ["en-GB", "de-DE", "ja-JP"] {
        let browser = Browser::start_in(&app.url(), language).await;
        for scheme in ["light", "dark"] {
            browser.set_color_scheme(scheme).await;
            for (width, height) in [(1360, 900), (390, 844)] {
                browser.set_viewport(width, height).await;
                for (name, page, text) in &pages {
                    browser.open(page).await;
                    browser.wait_for_text(text).await;
                    browser
                        .wait_until(
                            "the local time",
                            &format!("document.querySelector('main').innerText.includes({local_time})"),
                        )
                        .await;
                    browser
                        .run_script("document.querySelectorAll('details:not([name])').forEach((d) => (d.open = true))")
                        .await;
                    let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
                    assert_eq!(
                        browser.evaluate(overflow).await,
                        0,
                        "{name} scrolls horizontally at {width} px in {language}"
                    );
                    let violations = browser.accessibility_violations().await;
                    assert!(violations.is_empty(), "{name}, {scheme}, {width} px, {language}: {violations:#?}");
                    browser.screenshot(&format!("{name}-{scheme}-{width}-{language}")).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn refusal_of_a_private_address_is_shown_at_the_url() {
    let app = spawn_app().await;
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("{LIST}?register=yes")).await;
    browser.click(SUBMIT).await;
    browser.wait_for_text_in("#webhook-url-note", "Enter the URL that receives the events.").await;
    browser.fill("#webhook-url", "https://169.254.169.254/latest").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text_in("#webhook-url-note", "which is not a public address").await;
    browser.fill("#webhook-account", "17").await;
    browser.click(SUBMIT).await;
    browser.wait_for_text_in("#webhook-account-note", "Enter the full account ID.").await;
    browser.fill("#webhook-account", ADA).await;
    browser.click("input[value=cursor]").await;
    browser.fill("#webhook-after", "1-00000000").await;
    browser.fill("#webhook-url", "https://8.8.8.8/").await;
    browser.click(SUBMIT).await;
    browser
        .wait_until("the cursor is refused", "document.querySelector('#webhook-after').ariaInvalid === 'true'")
        .await;
    assert_eq!(webhooks(&app).await, [Value::Null; 0]);
}
