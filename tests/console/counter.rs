//! A teller's day: everything that is done to an account, and what is seen of it at once.

use serde_json::json;

use crate::{
    browser::Browser,
    support::{App, spawn_app, spawn_app_with},
};

pub const ADA: &str = "01900000-0000-7000-8000-0000000000aa";
pub const BEN: &str = "01900000-0000-7000-8000-0000000000bb";

/// Two accounts in EUR: Ada's holds 100.00, Ben's nothing.
pub async fn ada_and_ben(app: &App) {
    let teller = app.teller();
    teller
        .open(json!({"account_id": ADA, "currency": "EUR", "owner": "ada", "initial_deposit": 10_000}))
        .await
        .expect(201);
    teller.open(json!({"account_id": BEN, "currency": "EUR", "owner": "ben"})).await.expect(201);
}

/// A bank with the two, and a browser that shows Ada's account.
pub async fn at_the_counter() -> (App, Browser) {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    balance_is(&browser, "€100.00").await;
    (app, browser)
}

pub async fn balance_is(browser: &Browser, money: &str) {
    browser.until(money, &format!("document.querySelector('.figure').innerText === '{money}'")).await;
}

/// How many points of the chart stand for money that came in, and that went out.
async fn chart_says(browser: &Browser, text: &str) {
    browser.until(text, &format!("document.querySelector('.chart[role=img]').ariaLabel.includes('{text}')")).await;
    browser.until("the chart is drawn", "document.querySelector('.chart canvas')").await;
}

#[tokio::test]
async fn an_account_lives_from_its_opening_to_its_end() {
    let app = spawn_app().await;
    app.teller().open(json!({"account_id": BEN, "currency": "EUR", "owner": "ben"})).await.expect(201);
    let browser = Browser::at(&app.url()).await;
    let feed = browser.beside().await;
    feed.open("").await;
    feed.sees("Live").await;

    browser.open("accounts").await;
    browser.press("Open an account").await;
    browser.fill("#open-owner", "ada").await;
    browser.fill("#open-deposit", "100").await;
    browser.press("Open the account").await;
    balance_is(&browser, "€100.00").await;
    let id = browser.ask("location.hash.split('/')[2]").await.as_str().unwrap().to_owned();
    feed.sees_in("tbody", "+€100.00").await;

    browser.fill("#deposit-amount", "1,250.50").await;
    browser.sees("Read as €1,250.50").await;
    browser.fill("#deposit-reference", "salary").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("Paid in: €1,250.50. The balance is €1,350.50.").await;
    balance_is(&browser, "€1,350.50").await;
    browser.sees_in("section[aria-labelledby=transactions]", "salary").await;
    chart_says(&browser, "€1,350.50 in the end").await;
    feed.sees_in("tbody", "+€1,250.50").await;

    browser.counter("Transfer").await;
    browser.fill("#transfer-to", BEN).await;
    browser.sees("ben, EUR, open").await;
    browser.fill("#transfer-amount", "50,50").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("Transferred: €50.50. The balance is €1,300.00.").await;
    balance_is(&browser, "€1,300.00").await;

    browser.counter("Withdraw").await;
    browser.fill("#withdraw-amount", "300").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("Paid out: €300.00.").await;
    balance_is(&browser, "€1,000.00").await;
    chart_says(&browser, "at most €1,350.50").await;
    feed.sees_in("tbody", "−€300.00").await;

    browser.counter("Statement").await;
    browser.press("Show totals").await;
    for (word, money) in [("In", "€1,350.50"), ("Out", "€350.50"), ("After", "€1,000.00")] {
        browser.sees_in(".totals tr", &format!("{word}\t{money}")).await;
    }
    let today = browser.ask("document.querySelector('#statement-to').value").await;
    browser.sees_in(".totals caption", &format!("to {}", today.as_str().unwrap())).await;
    browser.run("const f = document.querySelector('#statement-from'); f.value = '2020-01-01'; f.dispatchEvent(new Event('input', {bubbles: true}))").await;
    browser.until("totals of other days are gone", "!document.querySelector('.totals')").await;
    browser.press("Download CSV").await;
    let statement = browser.download("csv").await;
    assert!(statement.contains("salary") && statement.contains("closing_balance"), "{statement}");

    // Back in time, by the slider and by the keyboard alone.
    browser.sees_in("section[aria-labelledby=events]", "✓ Verified").await;
    let slide = "const s = document.querySelector('#version'); s.value = 2; s.dispatchEvent(new Event('input', {bubbles: true}))";
    browser.run(slide).await;
    browser.sees("You see the past: version 2").await;
    balance_is(&browser, "€1,350.50").await;
    browser
        .until(
            "the rows of then",
            "document.querySelectorAll('section[aria-labelledby=transactions] tbody tr').length === 2",
        )
        .await;
    browser.until("the events of then", "document.querySelectorAll('.events tbody tr').length === 2").await;
    chart_says(&browser, "€1,350.50 in the end").await;
    assert!(!browser.shows("Download CSV").await, "nothing is done in the past");
    let moment =
        app.teller().get(&format!("/v1/accounts/{id}?as_of_version=1")).await.text("/last_activity_at").to_owned();
    browser.open(&format!("accounts/{id}?at={moment}")).await;
    balance_is(&browser, "€100.00").await;
    browser.press("Back to now").await;
    balance_is(&browser, "€1,000.00").await;

    browser.counter("Freeze").await;
    browser.fill("#freeze-reason", "lost card").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees_in(".account-head .status", "frozen").await;
    browser.counter("Withdraw").await;
    browser.fill("#withdraw-amount", "1").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("The account is frozen: The account is frozen.").await;
    browser
        .until(
            "the field is marked",
            "document.activeElement.id === 'withdraw-amount' && document.activeElement.ariaInvalid === 'true'",
        )
        .await;
    browser.counter("Unfreeze").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees_in(".account-head .status", "open").await;

    browser.counter("Withdraw").await;
    browser.fill("#withdraw-amount", "1000.01").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("The balance does not cover the amount:").await;
    browser.sees("The account holds €1,000.00.").await;
    browser.fill("#withdraw-amount", "1000").await;
    browser.click("details[open] form button:not([type])").await;
    balance_is(&browser, "€0.00").await;
    browser.counter("Close").await;
    browser.click("details[open] form button:not([type])").await;
    browser.sees("This account is closed. It stays as it is.").await;
    browser.sees_in(".account-head .status", "closed").await;
    feed.sees_in("tbody", "Closed").await;
}

#[tokio::test]
async fn what_one_browser_does_the_other_sees_and_a_change_between_is_told() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let one = Browser::at(&app.url()).await;
    let other = one.beside().await;
    for browser in [&one, &other] {
        browser.open(&format!("accounts/{ADA}")).await;
        balance_is(browser, "€100.00").await;
    }
    // The other hears nothing of the account while the one goes on: what it shows is of before.
    let deafen = "const { fetch } = window, held = new Promise((go) => (window.hear = go));
        window.fetch = async (path, options) => {
            const isAccount = options?.method !== 'POST' && /[/]accounts[/][^/]+$/.test(path.split('?')[0]);
            if (isAccount) await held;
            return fetch(path, options);
        };";
    other.run(deafen).await;
    one.fill("#deposit-amount", "7").await;
    one.click("details[open] form button:not([type])").await;
    balance_is(&one, "€107.00").await;
    other.fill("#deposit-amount", "5").await;
    other.click("details[open] form button:not([type])").await;
    other.sees("The account has changed:").await;
    let log = app.log().await;
    let deposits = log.events.iter().filter(|event| event.event_type == "MoneyDeposited");
    assert_eq!(deposits.count(), 1, "nothing was done unseen");
    // What was typed is still there, and with what it sees now it may send it.
    other.run("hear()").await;
    balance_is(&other, "€107.00").await;
    assert_eq!(other.ask("document.querySelector('#deposit-amount').value").await, "5");
    other.click("details[open] form button:not([type])").await;
    balance_is(&other, "€112.00").await;
    balance_is(&one, "€112.00").await;
}

#[tokio::test]
async fn no_movement_stays_out_of_the_lists_for_a_question_that_failed() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.sees_in("section[aria-labelledby=transactions]", "+€100.00").await;
    browser.sees_in(".events", "+€100.00").await;
    // The next question for each of the lists has no answer.
    let fail = "const { fetch } = window; window.failing = new Set(['/transactions?limit=25', '/events?after_version']);
        window.fetch = async (path, options) => {
            const asked = path.replace(/min_position=[^&]*&?/, '');
            for (const each of failing) if (asked.includes(each) && failing.delete(each)) throw new TypeError('no answer');
            return fetch(path, options);
        };";
    browser.run(fail).await;
    app.teller().deposit(ADA.parse().unwrap(), 777).await.expect(201);
    balance_is(&browser, "€107.77").await;
    browser.until("both have failed", "failing.size === 0").await;
    browser.sees_in("section[aria-labelledby=transactions]", "+€7.77").await;
    browser.sees_in(".events", "+€7.77").await;
}

#[tokio::test]
async fn what_happens_while_older_rows_are_read_stays_before_them() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let (teller, ada) = (app.teller(), ADA.parse().unwrap());
    for n in 1..=30 {
        teller.deposit(ada, n).await.expect(201);
    }
    let browser = Browser::at(&app.url()).await;
    browser.open(&format!("accounts/{ADA}")).await;
    browser.sees_in("section[aria-labelledby=transactions]", "+€0.30").await;
    let hold = "const { fetch } = window, held = new Promise((go) => (window.hear = go));
        window.fetch = async (path, options) => {
            if (/[/]transactions.*[&?]after=/.test(path)) await held;
            return fetch(path, options);
        };";
    browser.run(hold).await;
    browser.press("More transactions").await;
    browser.sees_in("section[aria-labelledby=transactions] .more", "Loading…").await;
    teller.deposit(ada, 777).await.expect(201);
    browser.sees_in("section[aria-labelledby=transactions]", "+€7.77").await;
    browser.run("hear()").await;
    let rows = "document.querySelectorAll('section[aria-labelledby=transactions] tbody tr')";
    browser.until("all rows", &format!("{rows}.length === 32 && {rows}[0].innerText.includes('+€7.77')")).await;
}

#[tokio::test]
async fn the_feed_is_paused_goes_on_and_comes_back_by_itself() {
    let mut app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    browser.open("").await;
    browser.sees_in("tbody", "+€100.00").await;
    browser.press("Pause").await;
    browser.sees("Paused").await;
    let account = ADA.parse().unwrap();
    app.teller().deposit(account, 777).await.expect(201);
    // The rest of the page goes on, so that time has certainly passed.
    browser.sees("€107.77").await;
    assert!(!browser.shows("+€7.77").await);
    browser.press("Go on").await;
    browser.sees("+€7.77").await;
    app.stop().await;
    browser.sees("Connection lost").await;
    drop(app);
}

#[tokio::test]
async fn the_feed_begins_anew_where_the_log_has_another_history() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let browser = Browser::at(&app.url()).await;
    browser.open("accounts").await;
    let cut = "const { fetch } = window; window.streams = 0;
        window.fetch = (path, { signal, ...options }) => {
            const control = new AbortController();
            if (path.includes('/stream')) streams++, window.cut = () => control.abort();
            return fetch(path, { ...options, signal: AbortSignal.any([signal, control.signal]) });
        };";
    browser.run(cut).await;
    browser.press("Overview").await;
    browser.sees_in("tbody", "+€100.00").await;
    app.replace_last_event().await;
    browser.run("cut()").await;
    // The second is refused, for it goes on behind an event that is no more.
    browser.until("a third stream", "streams === 3 && document.querySelector('.state').innerText === 'Live'").await;
    browser
        .until("each event once", "document.querySelectorAll('section[aria-labelledby=feed] tbody tr').length === 2")
        .await;
}

#[tokio::test]
async fn accounts_are_found_by_id_owner_status_and_currency() {
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    let teller = app.teller();
    teller.open(json!({"currency": "JPY", "owner": "ada", "initial_deposit": 1_234})).await.expect(201);
    teller.freeze(BEN.parse().unwrap()).await.expect(200);
    let browser = Browser::at(&app.url()).await;
    let owners = "[...document.querySelectorAll('tbody td.by')].map((cell) => cell.innerText).join()";
    browser.open("accounts").await;
    browser.until("all, newest first", &format!("{owners} === 'ada,ben,ada'")).await;
    browser.sees("¥1,234").await;
    browser.fill("#find", "ada").await;
    browser.press("Find").await;
    browser.until("Ada's", &format!("{owners} === 'ada,ada'")).await;
    browser.run("const s = document.querySelector('#currency'); s.value = 'EUR'; s.dispatchEvent(new Event('change', {bubbles: true}))").await;
    browser.until("Ada's in EUR", &format!("{owners} === 'ada'")).await;
    browser.open("accounts?status=frozen").await;
    browser.until("the frozen", &format!("{owners} === 'ben'")).await;
    browser.fill("#find", BEN).await;
    browser.press("Find").await;
    browser.sees_in("h1 + p", BEN).await;
    browser.open("accounts/01900000-0000-7000-8000-0000000000cc").await;
    browser.sees("There is no such account").await;
    for no_id in ["..%2Fprojections", "1"] {
        browser.open(&format!("accounts/{no_id}")).await;
        browser.sees("There is no such page").await;
    }
}

#[tokio::test]
async fn the_accounts_of_an_owner_are_found_also_where_the_owner_looks_like_an_account() {
    let owner = "4b0cbbd3-36f2-4a5e-9d3a-0a6a7d1f0c11";
    let app = spawn_app().await;
    ada_and_ben(&app).await;
    for currency in ["JPY", "USD"] {
        app.teller().open(json!({"currency": currency, "owner": owner})).await.expect(201);
    }
    let browser = Browser::at(&app.url()).await;
    let theirs = format!(
        "[...document.querySelectorAll('tbody td.by')].map((cell) => cell.innerText).join() === '{owner},{owner}'"
    );
    browser.open("accounts").await;
    browser.fill("#find", owner).await;
    browser.press("Find").await;
    browser.press(&format!("Accounts of owner {owner}")).await;
    browser.until("theirs", &theirs).await;
    browser.run("const s = document.querySelector('#currency'); s.value = 'JPY'; s.dispatchEvent(new Event('change', {bubbles: true}))").await;
    browser.sees("¥0").await;
    browser.until("the one in JPY", "document.querySelectorAll('tbody tr').length === 1").await;
    browser.click("tbody th a").await;
    browser.click(".account-head p.by a").await;
    browser.until("theirs", &theirs).await;
    browser.press("Accounts").await;
    browser.until("all", "document.querySelectorAll('tbody tr').length === 4").await;
    browser.click("td.by a").await;
    browser.until("theirs", &theirs).await;
}

#[tokio::test]
async fn a_bank_of_several_partitions_is_shown_as_one() {
    let app = spawn_app_with(&["--partitions=3"]).await;
    ada_and_ben(&app).await;
    for n in 1..=12 {
        app.teller().open(json!({"currency": "USD", "initial_deposit": n})).await.expect(201);
    }
    let browser = Browser::at(&app.url()).await;
    browser.open("").await;
    browser.sees("Live").await;
    for n in 1..=12 {
        browser.sees_in("tbody", &format!("+$0.{n:02}")).await;
    }
    browser.sees_in(".tile:nth-child(4) .value", "14").await;
    let other = browser.beside().await;
    other.open(&format!("accounts/{ADA}")).await;
    balance_is(&other, "€100.00").await;
    other.counter("Transfer").await;
    other.fill("#transfer-to", BEN).await;
    other.fill("#transfer-amount", "1").await;
    other.click("details[open] form button:not([type])").await;
    balance_is(&other, "€99.00").await;
    other.sees_in("section[aria-labelledby=transactions]", "Transfer out").await;
    browser.sees_in("tbody", "+€1.00").await;
    browser.sees_in("tbody", "−€1.00").await;
    other.open("operations").await;
    other
        .until("what the view has read of all", "document.querySelector('tbody tr td:nth-child(4)').innerText === '16'")
        .await;
    other.until("every head", "document.querySelectorAll('section[aria-labelledby=log] tbody tr').length === 3").await;
}
