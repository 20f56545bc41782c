//! For everybody: with the keyboard alone, with a screen reader, in light and dark, on a phone and on a wide screen; and what
//! others have written is shown, whatever it looks like.

use serde_json::json;

use crate::{
    browser::Browser,
    counter::{ADA, BEN, ada_and_ben, balance_is},
    support::{App, spawn_app},
};

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const LEFT: char = '\u{e012}';

/// What would be carried out where it is taken for markup.
const MARKUP: &str = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1</script>${window.harmed=1}";

/// A bank in which something of each kind has happened.
async fn lived_in() -> App {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let (teller, ada, ben) = (app.teller(), ADA.parse().unwrap(), BEN.parse().unwrap());
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
    app.is_projected().await;
    app
}

#[tokio::test]
async fn nobody_is_kept_out_of_any_page_in_light_or_dark_narrow_or_wide() {
    let app = lived_in().await;
    let browser = Browser::at(&app.url()).await;
    let account = format!("accounts/{ADA}");
    let past = format!("accounts/{ADA}?version=20");
    let pages = [
        ("overview", "", "anonymous"),
        ("accounts", "accounts", "These are all."),
        ("open", "accounts?open=yes", "These are all."),
        ("account", account.as_str(), "✓ Verified"),
        ("past", past.as_str(), "You see the past: version 20"),
        ("operations", "operations", "daily_balances"),
    ];
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        for (width, height) in [(1360, 900), (360, 740)] {
            browser.size(width, height).await;
            for (name, page, sign) in pages {
                browser.open(page).await;
                browser.sees(sign).await;
                browser
                    .until("charts", "[...document.querySelectorAll('.chart')].every((c) => c.querySelector('canvas'))")
                    .await;
                let overflow =
                    browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
                assert_eq!(overflow, 0, "{name} at {width} px scrolls sideways");
                let faults = browser.faults().await;
                assert!(faults.is_empty(), "{name}, {scheme}, {width} px: {faults:#?}");
                browser.picture(&format!("{name}-{scheme}-{width}")).await;
            }
        }
    }
    // A form with something wrong, and the question for a token.
    browser.size(1360, 900).await;
    browser.open(&account).await;
    browser.counter("Withdraw").await;
    browser.fill("#withdraw-amount", "1.234").await;
    browser.sees("Do you mean this?").await;
    assert_eq!(browser.faults().await, [""; 0]);
    browser.picture("question").await;
    browser.fill("#withdraw-amount", "99999").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("The balance does not cover the amount").await;
    assert_eq!(browser.faults().await, [""; 0]);
    browser.picture("refusal").await;
    browser.press("Token").await;
    browser.sees("A token, please").await;
    assert_eq!(browser.faults().await, [""; 0]);
    browser.picture("token").await;
}

/// Presses Tab until the focus is on something.
async fn tab_to(browser: &Browser, selector: &str) {
    for _ in 0..80 {
        browser.keys(&TAB.to_string()).await;
        if browser.ask(&format!("document.activeElement.matches('{selector}')")).await == json!(true) {
            let outline = browser.ask("getComputedStyle(document.activeElement).outlineStyle").await;
            assert_ne!(outline, "none", "one does not see that the focus is on {selector}");
            return;
        }
    }
    panic!("the keyboard does not reach {selector}");
}

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard_alone() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    browser.open("").await;
    browser.sees("€100.00").await;
    tab_to(&browser, ".skip").await;
    browser.keys(&ENTER.to_string()).await;
    browser.until("the heading", "document.activeElement.tagName === 'H1'").await;
    browser.open("accounts").await;
    browser.sees("ada").await;
    browser.run("document.activeElement.blur()").await;
    tab_to(&browser, "#find").await;
    browser.keys(&format!("{ADA}{ENTER}")).await;
    balance_is(&browser, "€100.00").await;
    browser.until("the new page's heading", "document.activeElement.tagName === 'H1'").await;
    tab_to(&browser, "#deposit-amount").await;
    browser.keys(&format!("12.50{ENTER}")).await;
    balance_is(&browser, "€112.50").await;
    browser.until("the focus stays in the form", "document.activeElement.closest('details[open] form')").await;
    tab_to(&browser, ".actions details:nth-of-type(2) > summary").await;
    browser.keys(&ENTER.to_string()).await;
    tab_to(&browser, "#withdraw-amount").await;
    browser.keys(&format!("1000{ENTER}")).await;
    browser.sees("The balance does not cover the amount").await;
    browser.until("the wrong field has the focus", "document.activeElement.id === 'withdraw-amount'").await;
    browser.run("document.querySelector('h1').focus()").await;
    tab_to(&browser, "#version").await;
    browser.keys(&LEFT.to_string()).await;
    browser.sees("You see the past: version 1").await;
    browser.until("the slider keeps the focus", "document.activeElement.id === 'version'").await;
    balance_is(&browser, "€100.00").await;
}

#[tokio::test]
async fn what_somebody_has_written_is_shown_and_not_run() {
    let app = spawn_app().await;
    let teller = app.teller();
    ada_and_ben(&app).await;
    teller.open(json!({"currency": "EUR", "owner": MARKUP})).await.expect(201);
    for (path, body) in [("deposits", json!({"amount": 1, "reference": MARKUP})), ("freeze", json!({"reason": MARKUP}))]
    {
        teller.command(&format!("/v1/accounts/{ADA}/{path}"), body).await;
    }
    let browser = Browser::at(&app.url()).await;
    browser.open("accounts").await;
    browser.sees_in("td.by", MARKUP).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.sees_in("section[aria-labelledby=transactions] td.text", MARKUP).await;
    browser.until("both events", &format!("[...document.querySelectorAll('.events td.text')].filter((e) => e.innerText.includes({})).length === 2", json!(MARKUP))).await;
    browser.open(&format!("accounts?owner={}", "%3Cimg%20src%3Dx%20onerror%3Dharmed%3D1%3E")).await;
    browser.sees("<img src=x onerror=harmed=1>").await;
    browser.open("%3Cscript%3Ewindow.harmed=1%3C/script%3E").await;
    assert_eq!(browser.ask("window.harmed ?? 0").await, 0);
    assert_eq!(browser.ask("document.querySelectorAll('img[src=x]').length").await, 0);
}

#[tokio::test]
async fn times_are_the_readers_own_and_utc_for_who_points_at_them() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    app.is_projected().await;
    let view = app.teller().get(&format!("/v1/accounts/{ADA}")).await;
    let utc = view.text("/opened_at").to_owned();
    let browser = Browser::at(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.sees("✓ Verified").await;
    let time = "document.querySelector('.account-head time')";
    assert_eq!(browser.ask(&format!("{time}.title")).await, utc.replace('T', " ").replace('Z', " UTC"));
    let written = |zone: &str| {
        format!(
            "new Date('{utc}').toLocaleString(undefined, {{dateStyle: 'medium', timeStyle: 'medium', timeZone: '{zone}'}})"
        )
    };
    let shown = browser.ask(&format!("{time}.innerText")).await;
    assert_eq!(shown, browser.ask(&written("Europe/Berlin")).await);
    assert_ne!(shown, browser.ask(&written("UTC")).await);
}
