//! Currencies: the list, and those that were withdrawn from ISO 4217.

use passbook_testkit::spawn_app;
use serde_json::json;

const WITHDRAWN: [&str; 5] = ["BGN", "CUC", "HRK", "SLL", "ZWL"];

#[tokio::test]
async fn withdrawn_currency_cannot_be_opened() {
    let app = spawn_app().await;
    for code in WITHDRAWN {
        let refused = app.client().open(json!({"currency": code})).await.expect_problem(400, "invalid_currency");
        assert_eq!(refused.text("/errors/0/field"), "currency");
        assert!(refused.text("/detail").contains(code), "{}", refused.body);
        app.client().get(&format!("/v1/accounts?currency={code}")).await.expect(200);
    }
    assert_eq!(app.log().await.head.position, 0);
}

#[tokio::test]
async fn account_in_a_withdrawn_currency_still_works() {
    let mut app = spawn_app().await;
    let account = app.client().open_with_balance(100).await;
    app.wait_until_projected().await;
    // As if the account had been opened before the currency was withdrawn.
    app.tamper(r#"UPDATE event SET data = replace(data::text, 'EUR', 'HRK')::json"#).await;
    app.sabotage("UPDATE account_view SET currency = 'HRK'").await;
    app.restart().await;
    let client = app.client();
    let deposits = format!("/v1/accounts/{account}/deposits");
    let deposited = client.command(&deposits, json!({"amount": 1, "currency": "HRK"})).await.expect(201);
    assert_eq!((&deposited.body["currency"], &deposited.body["balance"]), (&json!("HRK"), &json!(101)));
    client.withdraw(account, 1).await.expect(201);
    let seen = client.get(&format!("/v1/accounts/{account}?min_position=3")).await.expect(200);
    assert_eq!(seen.body["currency"], "HRK");
}

#[tokio::test]
async fn currencies_in_use_are_listed_with_their_digits() {
    let app = spawn_app().await;
    let listed = app.client().get("/v1/currencies").await.expect(200);
    let entry = |code: &str| listed.data().iter().find(|currency| currency["code"] == code).cloned();
    assert_eq!(entry("EUR"), Some(json!({"code": "EUR", "name": "Euro", "digits": 2})));
    assert_eq!(entry("JPY").unwrap()["digits"], 0);
    assert_eq!(entry("KWD").unwrap()["digits"], 3);
    assert!(WITHDRAWN.into_iter().all(|code| entry(code).is_none()));
    app.client().get("/v1/currencies?limit=1").await.expect_problem(400, "invalid_parameter");
    let etag = listed.header("etag").unwrap();
    app.client().with_header("if-none-match", etag).get("/v1/currencies").await.expect(304);
}
