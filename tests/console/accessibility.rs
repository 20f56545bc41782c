//! Accessibility of all pages: axe-core checks in light and dark mode on narrow and wide screens, keyboard-only use, and local
//! times. Also the safe display of markup in user input.

use passbook_testkit::{App, spawn_app};
use serde_json::json;

use crate::{
    browser::Browser,
    teller_workflow::{ADA, BEN, create_ada_and_ben, open_tab, wait_for_balance},
};

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const LEFT: char = '\u{e012}';

/// Text that runs a script if it is inserted as HTML or evaluated as a template.
const MARKUP: &str = "<img src=x onerror=\"window.executed=1\"><script>window.executed=1</script>${window.executed=1}";

/// A bank with accounts in several currencies and transactions of every kind.
async fn spawn_app_with_history() -> App {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let (teller, ada, ben) = (app.client(), ADA.parse().unwrap(), BEN.parse().unwrap());
    for n in 1..=12 {
        teller.deposit(ada, 2_500 * n).await.expect(201);
        teller.transfer(ada, ben, 1_000 + 90 * n).await.expect(201);
        teller.withdraw(ada, 700 * n).await.expect(201);
    }
    let reference = json!({"amount": 4_200, "reference": "rent for January, invoice 2026-17", "channel": "branch"});
    teller.command(&format!("/v1/accounts/{ADA}/deposits"), reference).await.expect(201);
    for (currency, deposit) in [("JPY", 1_250_000), ("BHD", 98_765), ("USD", 5_000_000), ("CHF", 310_050)] {
        let body = json!({"currency": currency, "owner": format!("customer-{currency}"), "initial_deposit": deposit});
        teller.open(body).await.expect(201);
    }
    teller.freeze(ben).await.expect(200);
    app.wait_until_projected().await;
    app
}

#[tokio::test]
async fn pages_are_accessible_in_both_color_schemes_and_two_widths() {
    let app = spawn_app_with_history().await;
    let browser = Browser::start(&app.url()).await;
    let account = format!("accounts/{ADA}");
    let [holds, limits, events] = ["holds", "limits", "events"].map(|tab| format!("accounts/{ADA}?tab={tab}"));
    let historical = format!("accounts/{ADA}?version=20");
    let pages = [
        ("overview", "", "anonymous"),
        ("accounts", "accounts", "End of list"),
        ("open", "accounts?open=yes", "End of list"),
        ("account", account.as_str(), "Load more transactions"),
        ("holds", holds.as_str(), "No holds"),
        ("limits", limits.as_str(), "Overdraft"),
        ("events", events.as_str(), "✓ Verified"),
        ("batch", "batch", "Check without"),
        ("search", "search?q=rent", "rent for January"),
        ("historical", historical.as_str(), "Historical view: version 20"),
        ("operations", "operations", "daily_balances"),
    ];
    for scheme in ["light", "dark"] {
        browser.set_color_scheme(scheme).await;
        for (width, height) in [(1360, 900), (390, 844)] {
            browser.set_viewport(width, height).await;
            for (name, page, text) in pages {
                browser.open(page).await;
                browser.wait_for_text(text).await;
                browser
                    .wait_until(
                        "charts",
                        "[...document.querySelectorAll('.chart')].every((c) => c.querySelector('canvas'))",
                    )
                    .await;
                let overflow = browser
                    .evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    .await;
                assert_eq!(overflow, 0, "{name} scrolls horizontally at {width} px");
                let violations = browser.accessibility_violations().await;
                assert!(violations.is_empty(), "{name}, {scheme}, {width} px: {violations:#?}");
                browser.screenshot(&format!("{name}-{scheme}-{width}")).await;
            }
        }
    }
    // Forms with errors, and the token dialog.
    browser.set_viewport(1360, 900).await;
    browser.open(&account).await;
    browser.open_action("Withdraw").await;
    browser.fill("#withdraw-amount", "1.234").await;
    browser.wait_for_text("Did you mean this amount?").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("ambiguous-amount").await;
    browser.fill("#withdraw-amount", "99999").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("This account does not have enough money").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("form-error").await;
    browser.click_text("Enter token").await;
    browser.wait_for_text("Paste an access token").await;
    assert_eq!(browser.accessibility_violations().await, [""; 0]);
    browser.screenshot("token-dialog").await;
}

/// Presses Tab until an element that matches the selector has a visible focus.
async fn tab_to(browser: &Browser, selector: &str) {
    for _ in 0..80 {
        browser.press_keys(&TAB.to_string()).await;
        if browser.evaluate(&format!("document.activeElement.matches('{selector}')")).await == json!(true) {
            let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle").await;
            assert_ne!(outline, "none", "the focus on {selector} is not visible");
            return;
        }
    }
    panic!("Tab does not reach {selector}");
}

#[tokio::test]
async fn pages_and_forms_work_with_the_keyboard_only() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open("").await;
    browser.wait_for_text("€100.00").await;
    tab_to(&browser, ".skip").await;
    browser.press_keys(&ENTER.to_string()).await;
    browser.wait_until("the heading", "document.activeElement.tagName === 'H1'").await;
    browser.open("accounts").await;
    browser.wait_for_text("ada").await;
    browser.run_script("document.activeElement.blur()").await;
    tab_to(&browser, "#search").await;
    browser.press_keys(&format!("{ADA}{ENTER}")).await;
    wait_for_balance(&browser, "€100.00").await;
    browser.wait_until("the new page's heading", "document.activeElement.tagName === 'H1'").await;
    tab_to(&browser, "#deposit-amount").await;
    browser.press_keys(&format!("12.50{ENTER}")).await;
    wait_for_balance(&browser, "€112.50").await;
    browser.wait_until("the focus stays in the form", "document.activeElement.closest('details[open] form')").await;
    tab_to(&browser, ".actions details:nth-of-type(2) > summary").await;
    browser.press_keys(&ENTER.to_string()).await;
    tab_to(&browser, "#withdraw-amount").await;
    browser.press_keys(&format!("1000{ENTER}")).await;
    browser.wait_for_text("This account does not have enough money").await;
    browser.wait_until("the wrong field has the focus", "document.activeElement.id === 'withdraw-amount'").await;
    browser.run_script("document.querySelector('h1').focus()").await;
    tab_to(&browser, "#version").await;
    browser.press_keys(&LEFT.to_string()).await;
    browser.wait_for_text("Historical view: version 1").await;
    browser.wait_until("the slider keeps the focus", "document.activeElement.id === 'version'").await;
    wait_for_balance(&browser, "€100.00").await;
}

#[tokio::test]
async fn markup_in_user_input_is_shown_as_text() {
    let app = spawn_app().await;
    let teller = app.client();
    create_ada_and_ben(&app).await;
    teller.open(json!({"currency": "EUR", "owner": MARKUP})).await.expect(201);
    for (path, body) in [("deposits", json!({"amount": 1, "reference": MARKUP})), ("freeze", json!({"reason": MARKUP}))]
    {
        teller.command(&format!("/v1/accounts/{ADA}/{path}"), body).await;
    }
    let browser = Browser::start(&app.url()).await;
    browser.open("accounts").await;
    browser.wait_for_text_in("td.name", MARKUP).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text_in("section[aria-labelledby=transactions] td.text", MARKUP).await;
    browser.wait_for_text_in(".banner", MARKUP).await;
    open_tab(&browser, "Events").await;
    browser.wait_until("both events", &format!("[...document.querySelectorAll('.events td.text')].filter((e) => e.innerText.includes({})).length === 2", json!(MARKUP))).await;
    browser.open(&format!("accounts?owner={}", "%3Cimg%20src%3Dx%20onerror%3Dexecuted%3D1%3E")).await;
    browser.wait_for_text("<img src=x onerror=executed=1>").await;
    browser.open("%3Cscript%3Ewindow.executed=1%3C/script%3E").await;
    assert_eq!(browser.evaluate("window.executed ?? 0").await, 0);
    assert_eq!(browser.evaluate("document.querySelectorAll('img[src=x]').length").await, 0);
}

#[tokio::test]
async fn times_are_local_with_utc_in_the_tooltip() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    app.wait_until_projected().await;
    let view = app.client().get(&format!("/v1/accounts/{ADA}")).await;
    let utc = view.text("/opened_at").to_owned();
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("accounts/{ADA}?tab=events")).await;
    browser.wait_for_text("✓ Verified").await;
    let time = "document.querySelector('.account-head time')";
    assert_eq!(browser.evaluate(&format!("{time}.title")).await, utc.replace('T', " ").replace('Z', " UTC"));
    let format_in = |zone: &str| {
        format!(
            "new Date('{utc}').toLocaleString(undefined, {{dateStyle: 'medium', timeStyle: 'medium', timeZone: '{zone}'}})"
        )
    };
    let shown = browser.evaluate(&format!("{time}.innerText")).await;
    assert_eq!(shown, browser.evaluate(&format_in("Europe/Berlin")).await);
    assert_ne!(shown, browser.evaluate(&format_in("UTC")).await);
}
