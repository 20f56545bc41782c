//! What pages show when something is missing: accounts, scopes, the service, or room on the screen.

use passbook_testkit::{spawn_app, spawn_auth_app, tokens::claims};
use serde_json::json;

use crate::{
    access::enter_token,
    browser::Browser,
    teller_workflow::{create_ada_and_ben, open_ada_account, wait_for_balance},
};

/// The largest balance, in currencies with two, no, three and four digits.
const LARGEST: i64 = 9_007_199_254_740_991;

#[tokio::test]
async fn empty_bank_has_a_first_step() {
    let app = spawn_app().await;
    let browser = Browser::start(&app.url()).await;
    browser.open("").await;
    browser.click_text("Open the first account").await;
    browser.wait_until("the form is open", "document.querySelector('#open-owner').checkVisibility()").await;
    browser.open("operations").await;
    browser.wait_for_text("daily_balances").await;
    browser.click("tbody tr:nth-child(1) button").await;
    browser.wait_until("the rebuilt generation is live", "document.querySelector('tbody td').innerText === '2'").await;
    browser.wait_until("the message is gone", "!document.body.innerText.includes('is being built')").await;
}

#[tokio::test]
async fn pages_say_which_figures_are_stale_and_recover() {
    let (_app, browser) = open_ada_account().await;
    let lose = "const { fetch } = window; window.restore = () => (window.fetch = fetch);
        window.fetch = async (path, options) => { if (String(path).startsWith('/v1/')) throw new TypeError('no answer'); return fetch(path, options) }";
    browser.run_script(lose).await;
    browser.wait_for_text_in("[role=alert]", "Not up to date: these figures are from").await;
    browser.run_script("restore()").await;
    browser.wait_until("the notice is gone", "!document.body.innerText.includes('Not up to date')").await;
    browser.open("").await;
    browser.wait_for_text("€100.00").await;
    browser.run_script(lose).await;
    browser.wait_for_text_in("[role=alert]", "Not up to date: these figures are from").await;
    browser.wait_for_text_in(".tile", "as of").await;
    browser.run_script("restore()").await;
    browser.wait_until("the notice is gone", "!document.body.innerText.includes('Not up to date')").await;
    browser.wait_until("no tile is stale", "!document.body.innerText.includes('as of')").await;
}

#[tokio::test]
async fn overview_without_audit_scope_says_so_and_does_not_ask_again() {
    let bank = spawn_auth_app().await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open("").await;
    enter_token(&browser, &bank.signer.sign(&claims("reader", "accounts:read:any"))).await;
    browser.wait_for_text("does not permit reading events").await;
    browser.reload().await;
    browser.wait_for_text("does not permit reading events").await;
    let requests = |part: &str| {
        format!("performance.getEntriesByType('resource').filter((e) => e.name.includes('{part}')).length")
    };
    browser.wait_until("three polls", &format!("{} >= 3", requests("/v1/overview"))).await;
    for part in ["/v1/log/head", "/v1/events", "/v1/projections"] {
        assert_eq!(browser.evaluate(&requests(part)).await, 0, "{part}");
    }
}

#[tokio::test]
async fn customer_lands_on_their_own_accounts() {
    let bank = spawn_auth_app().await;
    bank.customer("ada").open(json!({"currency": "EUR", "initial_deposit": 10_000})).await.expect(201);
    bank.app.wait_until_projected().await;
    let browser = Browser::start(&bank.app.url()).await;
    browser.open("").await;
    enter_token(&browser, &bank.signer.sign(&claims("ada", "accounts:read accounts:write"))).await;
    browser.wait_for_text_in("h1", "My accounts").await;
    browser.wait_for_text_in("tbody", "€100.00").await;
    browser.click("tbody th a").await;
    wait_for_balance(&browser, "€100.00").await;
    let shown = "[...document.querySelectorAll('.actions summary, .top nav a')].map((s) => s.innerText).join()";
    assert_eq!(browser.evaluate(shown).await, "Accounts,Batch,Deposit,Withdraw,Transfer,Close,Statement");
}

#[tokio::test]
async fn pages_fit_a_phone_with_the_largest_balances_in_every_locale() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let teller = app.client();
    let mut largest = vec![];
    for currency in ["EUR", "JPY", "BHD", "CLF"] {
        let owner = format!("the-owner-of-the-largest-account-in-{currency}@example.com");
        let body = json!({"currency": currency, "owner": owner, "initial_deposit": LARGEST});
        largest.push(teller.open(body).await.expect(201).text("/account_id").to_owned());
    }
    app.wait_until_projected().await;
    for (language, money, month) in
        [("de-DE", "90.071.992.547.409,91\u{a0}€", "Nov"), ("ja-JP", "€90,071,992,547,409.91", "")]
    {
        let browser = Browser::start_in(&app.url(), language).await;
        browser.set_viewport(390, 844).await;
        let mut pages = vec![String::new(), "accounts".to_owned(), "batch".to_owned(), "operations".to_owned()];
        pages.extend(largest.iter().map(|id| format!("accounts/{id}")));
        pages.push(format!("accounts/{}?tab=events", largest[0]));
        for page in pages {
            browser.open(&page).await;
            browser.wait_until("the content", "!document.body.innerText.includes('…\\n') && document.querySelectorAll('main td, #batch-text').length > 0").await;
            let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(overflow).await, 0, "{page} in {language}");
            let is_cut = "[...document.querySelectorAll('.figures dd, .stacked td.name, .stacked .money')].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 || e.getBoundingClientRect().right > innerWidth).map((e) => e.innerText)";
            assert_eq!(browser.evaluate(is_cut).await, json!([]), "{page} in {language}");
            browser.screenshot(&format!("phone-{language}-{}", page.replace(['/', '?', '='], "-"))).await;
        }
        browser.open(&format!("accounts/{}", largest[0])).await;
        wait_for_balance(&browser, money).await;
        // The chart uses the locale of the browser, and ends today.
        browser.wait_until("the chart", "document.querySelector('.chart canvas')").await;
        let label = browser
            .evaluate("import('/console/chart.js').then(({timeLabels}) => timeLabels(null, [1795996800, 1796083200], 0, 0, 86400).join())")
            .await;
        let expected = browser
            .evaluate("new Date(1795996800000).toLocaleDateString(undefined, {day: 'numeric', month: 'short'})")
            .await;
        let label = label.as_str().unwrap();
        assert!(label.starts_with(expected.as_str().unwrap()) && label.contains(month), "{label}");
        assert_eq!(browser.evaluate("navigator.language").await, language);
    }
}
