//! The workflow of a teller: every command for an account and its immediate effect on the pages, including other browsers.

use passbook_testkit::{App, spawn_app, spawn_app_with};
use serde_json::json;

use crate::browser::Browser;

pub const ADA: &str = "01900000-0000-7000-8000-0000000000aa";
pub const BEN: &str = "01900000-0000-7000-8000-0000000000bb";

/// Opens two accounts in EUR: Ada's with a balance of 100.00, Ben's with zero.
pub async fn create_ada_and_ben(app: &App) {
    let teller = app.client();
    teller
        .open(json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000}))
        .await
        .expect(201);
    teller.open(json!({"account_id": BEN, "currency": "EUR", "owner": "ben"})).await.expect(201);
}

/// Starts an app with both accounts, and a browser that shows Ada's account.
pub async fn open_ada_account() -> (App, Browser) {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&browser, "€100.00").await;
    (app, browser)
}

/// Selects an option of a list by its value.
pub async fn choose(browser: &Browser, selector: &str, value: &str) {
    let script = format!(
        "const s = document.querySelector({}); s.value = {}; s.dispatchEvent(new Event('change', {{bubbles: true}}))",
        json!(selector),
        json!(value)
    );
    browser.run_script(&script).await;
}

/// Opens a tab of the account page, such as `Events`.
pub async fn open_tab(browser: &Browser, name: &str) {
    browser.click_text(name).await;
    browser
        .wait_until(name, &format!("document.querySelector('.tabs [aria-current]').innerText === {}", json!(name)))
        .await;
}

pub async fn wait_for_balance(browser: &Browser, money: &str) {
    browser.wait_until(money, &format!("document.querySelector('.balance-amount').innerText === '{money}'")).await;
}

/// Waits until the balance chart is rendered and its text alternative contains `text`.
async fn wait_for_chart_summary(browser: &Browser, text: &str) {
    browser.wait_until(text, &format!("document.querySelector('.chart[role=img]').ariaLabel.includes('{text}')")).await;
    browser.wait_until("the rendered chart", "document.querySelector('.chart canvas')").await;
}

#[tokio::test]
async fn account_lifecycle_from_opening_to_closing() {
    let app = spawn_app().await;
    app.client().open(json!({"account_id": BEN, "currency": "EUR", "owner": "ben"})).await.expect(201);
    let browser = Browser::start(&app.url()).await;
    let feed = browser.open_another().await;
    feed.open("").await;
    feed.wait_for_text("Live").await;

    browser.open("accounts").await;
    browser.click_text("Open an account").await;
    browser.fill("#open-owner", "ada").await;
    browser.fill("#open-deposit", "100").await;
    browser.click_text("Open account").await;
    wait_for_balance(&browser, "€100.00").await;
    let id = browser.evaluate("location.hash.split('/')[2]").await.as_str().unwrap().to_owned();
    feed.wait_for_text_in("tbody", "+€100.00").await;

    browser.fill("#deposit-amount", "1,250.50").await;
    browser.wait_for_text("Entered: €1,250.50").await;
    browser.fill("#deposit-reference", "salary").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Deposited: €1,250.50. New balance: €1,350.50.").await;
    wait_for_balance(&browser, "€1,350.50").await;
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "salary").await;
    wait_for_chart_summary(&browser, "last €1,350.50").await;
    feed.wait_for_text_in("tbody", "+€1,250.50").await;

    browser.open_action("Transfer").await;
    browser.fill("#transfer-to", BEN).await;
    browser.wait_for_text("ben, EUR, open").await;
    browser.fill("#transfer-amount", "50,50").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Transferred: €50.50. New balance: €1,300.00.").await;
    wait_for_balance(&browser, "€1,300.00").await;

    browser.open_action("Withdraw").await;
    browser.fill("#withdraw-amount", "300").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("Withdrawn: €300.00.").await;
    wait_for_balance(&browser, "€1,000.00").await;
    wait_for_chart_summary(&browser, "highest €1,350.50").await;
    feed.wait_for_text_in("tbody", "−€300.00").await;

    browser.open_action("Statement").await;
    browser.click_text("Show totals").await;
    for (label, money) in [("Money in", "€1,350.50"), ("Money out", "€350.50"), ("Closing balance", "€1,000.00")]
    {
        browser.wait_for_text_in(".totals tr", &format!("{label}\t{money}")).await;
    }
    let today = browser.evaluate("document.querySelector('#statement-to').value").await;
    browser.wait_for_text_in(".totals caption", &format!("to {}", today.as_str().unwrap())).await;
    browser.run_script("const f = document.querySelector('#statement-from'); f.value = '2020-01-01'; f.dispatchEvent(new Event('input', {bubbles: true}))").await;
    browser.wait_until("the totals of the previous period are hidden", "!document.querySelector('.totals')").await;
    browser.click_text("Show totals").await;
    browser.wait_for_text_in(".totals tr", "Closing balance\t€1,000.00").await;
    for (format, extension, text) in
        [("csv", "csv", "Closing balance"), ("camt053", "xml", "<Stmt>"), ("mt940", "sta", ":60F:")]
    {
        choose(&browser, "#statement-format", format).await;
        browser.click_text("Download").await;
        let statement = browser.download(extension).await;
        assert!(statement.contains("salary") && statement.contains(text), "{statement}");
    }
    assert!(
        browser.evaluate("!!document.querySelector('.totals')").await == json!(true),
        "a download keeps the totals"
    );

    // The historical view, by version and by time.
    open_tab(&browser, "Events").await;
    browser.wait_for_text_in("section[aria-labelledby=events]", "✓ Verified").await;
    let set_version = "const s = document.querySelector('#version'); s.value = 2; s.dispatchEvent(new Event('input', {bubbles: true}))";
    browser.run_script(set_version).await;
    browser.wait_for_text("Historical view: version 2").await;
    wait_for_balance(&browser, "€1,350.50").await;
    browser
        .wait_until("the events up to version 2", "document.querySelectorAll('.events tbody tr').length === 2")
        .await;
    open_tab(&browser, "Transactions").await;
    browser
        .wait_until(
            "the transactions up to version 2",
            "document.querySelectorAll('section[aria-labelledby=transactions] tbody tr').length === 2",
        )
        .await;
    wait_for_chart_summary(&browser, "last €1,350.50").await;
    assert!(!browser.shows_text("Open to print").await, "the historical view has no actions");
    let time =
        app.client().get(&format!("/v1/accounts/{id}?as_of_version=1")).await.text("/last_activity_at").to_owned();
    browser.open(&format!("accounts/{id}?at={time}")).await;
    wait_for_balance(&browser, "€100.00").await;
    browser.click_text("Show current state").await;
    wait_for_balance(&browser, "€1,000.00").await;

    browser.open_action("Freeze").await;
    browser.fill("#freeze-reason", "lost card").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text_in(".account-head .status", "frozen").await;
    browser.open_action("Withdraw").await;
    browser.fill("#withdraw-amount", "1").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("This account is frozen. Someone with permission must unfreeze it first.").await;
    browser
        .wait_until(
            "the field with the error has the focus",
            "document.activeElement.id === 'withdraw-amount' && document.activeElement.ariaInvalid === 'true'",
        )
        .await;
    browser.open_action("Unfreeze").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text_in(".account-head .status", "open").await;

    browser.open_action("Withdraw").await;
    browser.fill("#withdraw-amount", "1000.01").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("This account does not have enough money: €1,000.00 is available.").await;
    browser.fill("#withdraw-amount", "1000").await;
    browser.click("details[open] form button:not([type])").await;
    wait_for_balance(&browser, "€0.00").await;
    browser.open_action("Close").await;
    browser.click("details[open] form button:not([type])").await;
    browser.wait_for_text("This account is closed permanently.").await;
    browser.wait_for_text_in(".account-head .status", "closed").await;
    feed.wait_for_text_in("tbody", "Closed").await;
}

#[tokio::test]
async fn stale_form_is_rejected_after_a_change_in_another_browser() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let one = Browser::start(&app.url()).await;
    let other = one.open_another().await;
    for browser in [&one, &other] {
        browser.open(&format!("accounts/{ADA}")).await;
        wait_for_balance(browser, "€100.00").await;
    }
    // The second browser gets no response about the account, so its page becomes stale.
    let hold_responses = "const { fetch } = window, held = new Promise((resolve) => (window.release = resolve));
        window.fetch = async (path, options) => {
            const isAccount = options?.method !== 'POST' && /[/]accounts[/][^/]+$/.test(path.split('?')[0]);
            if (isAccount) await held;
            return fetch(path, options);
        };";
    other.run_script(hold_responses).await;
    one.fill("#deposit-amount", "7").await;
    one.click("details[open] form button:not([type])").await;
    wait_for_balance(&one, "€107.00").await;
    other.fill("#deposit-amount", "5").await;
    other.click("details[open] form button:not([type])").await;
    other.wait_for_text("The account has changed since this page showed it.").await;
    let log = app.log().await;
    let deposits = log.events.iter().filter(|event| event.event_type == "MoneyDeposited");
    assert_eq!(deposits.count(), 1, "the stale command was rejected");
    // The input is kept, and the form works after the page has loaded the current state.
    other.run_script("release()").await;
    wait_for_balance(&other, "€107.00").await;
    assert_eq!(other.evaluate("document.querySelector('#deposit-amount').value").await, "5");
    other.click("details[open] form button:not([type])").await;
    wait_for_balance(&other, "€112.00").await;
    wait_for_balance(&one, "€112.00").await;
}

#[tokio::test]
async fn lists_recover_from_a_failed_refresh() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "+€100.00").await;
    // The next request of the list fails.
    let fail = "const { fetch } = window; window.failing = new Set(['/transactions?limit=25']);
        window.fetch = async (path, options) => {
            const bare = path.replace(/min_position=[^&]*&?/, '');
            for (const each of failing) if (bare.includes(each) && failing.delete(each)) throw new TypeError('no answer');
            return fetch(path, options);
        };";
    browser.run_script(fail).await;
    app.client().deposit(ADA.parse().unwrap(), 777).await.expect(201);
    wait_for_balance(&browser, "€107.77").await;
    browser.wait_until("the request has failed", "failing.size === 0").await;
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "+€7.77").await;
}

#[tokio::test]
async fn new_rows_stay_above_older_rows_that_are_being_loaded() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let (teller, ada) = (app.client(), ADA.parse().unwrap());
    for n in 1..=30 {
        teller.deposit(ada, n).await.expect(201);
    }
    let browser = Browser::start(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "+€0.30").await;
    let hold_pages = "const { fetch } = window, held = new Promise((resolve) => (window.release = resolve));
        window.fetch = async (path, options) => {
            if (/[/]transactions.*[&?]after=/.test(path)) await held;
            return fetch(path, options);
        };";
    browser.run_script(hold_pages).await;
    browser.click_text("Load more transactions").await;
    browser.wait_for_text_in("section[aria-labelledby=transactions] .list-footer", "Loading…").await;
    teller.deposit(ada, 777).await.expect(201);
    browser.wait_for_text_in("section[aria-labelledby=transactions]", "+€7.77").await;
    browser.run_script("release()").await;
    let rows = "document.querySelectorAll('section[aria-labelledby=transactions] tbody tr')";
    browser.wait_until("all rows", &format!("{rows}.length === 32 && {rows}[0].innerText.includes('+€7.77')")).await;
}

#[tokio::test]
async fn feed_pauses_resumes_and_reports_a_lost_connection() {
    let mut app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open("").await;
    browser.wait_for_text_in("tbody", "+€100.00").await;
    browser.click_text("Pause").await;
    browser.wait_for_text("Paused").await;
    let account = ADA.parse().unwrap();
    app.client().deposit(account, 777).await.expect(201);
    // The totals above the feed are updated, so the feed has had time to receive the event.
    browser.wait_for_text("€107.77").await;
    assert!(!browser.shows_text("+€7.77").await);
    browser.click_text("Resume").await;
    browser.wait_for_text("+€7.77").await;
    app.stop().await;
    browser.wait_for_text("Connection lost").await;
    drop(app);
}

#[tokio::test]
async fn feed_restarts_after_the_log_was_replaced() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let browser = Browser::start(&app.url()).await;
    browser.open("accounts").await;
    let cut = "const { fetch } = window; window.streams = 0;
        window.fetch = (path, { signal, ...options }) => {
            const control = new AbortController();
            if (path.includes('/stream')) streams++, window.cut = () => control.abort();
            return fetch(path, { ...options, signal: AbortSignal.any([signal, control.signal]) });
        };";
    browser.run_script(cut).await;
    browser.click_text("Overview").await;
    browser.wait_for_text_in("tbody", "+€100.00").await;
    app.replace_last_event().await;
    browser.run_script("cut()").await;
    // The second connection is rejected, because its last event no longer exists.
    browser
        .wait_until("a third stream", "streams === 3 && document.querySelector('.state').innerText === 'Live'")
        .await;
    browser
        .wait_until(
            "each event shown once",
            "document.querySelectorAll('section[aria-labelledby=feed] tbody tr').length === 2",
        )
        .await;
}

#[tokio::test]
async fn search_finds_accounts_by_id_owner_status_and_currency() {
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    let teller = app.client();
    teller.open(json!({"currency": "JPY", "owner": "ada", "initial_deposit": 1_234})).await.expect(201);
    teller.freeze(BEN.parse().unwrap()).await.expect(200);
    let browser = Browser::start(&app.url()).await;
    let owners = "[...document.querySelectorAll('tbody td.name')].map((cell) => cell.innerText).join()";
    browser.open("accounts").await;
    browser.wait_until("all accounts, newest first", &format!("{owners} === 'ada,ben,ada'")).await;
    browser.wait_for_text("¥1,234").await;
    browser.fill("#search", "ada").await;
    browser.click_text("Search").await;
    browser.wait_until("Ada's accounts", &format!("{owners} === 'ada,ada'")).await;
    browser.run_script("const s = document.querySelector('#currency'); s.value = 'EUR'; s.dispatchEvent(new Event('change', {bubbles: true}))").await;
    browser.wait_until("Ada's account in EUR", &format!("{owners} === 'ada'")).await;
    browser.open("accounts?status=frozen").await;
    browser.wait_until("the frozen account", &format!("{owners} === 'ben'")).await;
    browser.fill("#search", BEN).await;
    browser.click_text("Search").await;
    browser.wait_for_text_in("h1 + p", BEN).await;
    browser.open("accounts/01900000-0000-7000-8000-0000000000cc").await;
    browser.wait_for_text("There is no account with this ID").await;
    for invalid_id in ["..%2Fprojections", "1"] {
        browser.open(&format!("accounts/{invalid_id}")).await;
        browser.wait_for_text("Page not found").await;
    }
}

#[tokio::test]
async fn search_finds_an_owner_whose_name_looks_like_an_account_id() {
    let owner = "4b0cbbd3-36f2-4a5e-9d3a-0a6a7d1f0c11";
    let app = spawn_app().await;
    create_ada_and_ben(&app).await;
    for currency in ["JPY", "USD"] {
        app.client().open(json!({"currency": currency, "owner": owner})).await.expect(201);
    }
    let browser = Browser::start(&app.url()).await;
    let shows_owner = format!(
        "[...document.querySelectorAll('tbody td.name')].map((cell) => cell.innerText).join() === '{owner},{owner}'"
    );
    browser.open("accounts").await;
    browser.fill("#search", owner).await;
    browser.click_text("Search").await;
    browser.click_text(&format!("Accounts of owner {owner}")).await;
    browser.wait_until("the accounts of the owner", &shows_owner).await;
    browser.wait_for_text_in("section[aria-labelledby=totals] tbody tr:nth-child(1)", "JPY\t1\t¥0").await;
    browser.click_text("Export as CSV").await;
    let exported = browser.download("csv").await;
    assert!(
        exported.starts_with("\u{feff}Account,Owner,Currency,Balance,") && exported.contains(",USD,0.00,"),
        "{exported}"
    );
    browser.click("tbody th a").await;
    browser.click(".account-head p.name a").await;
    browser.wait_until("the accounts of the owner", &shows_owner).await;
    browser.click_text("Accounts").await;
    browser.wait_until("all accounts", "document.querySelectorAll('tbody tr').length === 4").await;
    browser.click("td.name a").await;
    browser.wait_until("the accounts of the owner", &shows_owner).await;
}

#[tokio::test]
async fn partitioned_log_is_shown_as_one_bank() {
    let app = spawn_app_with(&["--partitions=3"]).await;
    create_ada_and_ben(&app).await;
    // Seven accounts: the feed starts seven events before the end of each partition, so it shows them however they are spread.
    for n in 1..=5 {
        app.client().open(json!({"currency": "USD", "initial_deposit": n})).await.expect(201);
    }
    let browser = Browser::start(&app.url()).await;
    browser.open("").await;
    browser.wait_for_text("Live").await;
    for n in 1..=5 {
        browser.wait_for_text_in("tbody", &format!("+$0.{n:02}")).await;
    }
    browser.wait_for_text_in(".tile:nth-child(4) .value", "7").await;
    let other = browser.open_another().await;
    other.open(&format!("accounts/{ADA}")).await;
    wait_for_balance(&other, "€100.00").await;
    other.open_action("Transfer").await;
    other.fill("#transfer-to", BEN).await;
    other.fill("#transfer-amount", "1").await;
    other.click("details[open] form button:not([type])").await;
    wait_for_balance(&other, "€99.00").await;
    other.wait_for_text_in("section[aria-labelledby=transactions]", "Transfer out").await;
    browser.wait_for_text_in("tbody", "+€1.00").await;
    browser.wait_for_text_in("tbody", "−€1.00").await;
    other.open("operations").await;
    other
        .wait_until(
            "the events applied from all partitions",
            "document.querySelector('tbody tr td:nth-child(4)').innerText === '9'",
        )
        .await;
    other
        .wait_until(
            "the head of each partition",
            "document.querySelectorAll('section[aria-labelledby=log] tbody tr').length === 3",
        )
        .await;
}
