//! Each refusal that the state causes, and which comes first where several hold. None records anything.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Teller, spawn_app};

const CEILING: i64 = 9_007_199_254_740_991;

async fn move_money(teller: &Teller, account: Uuid, verb: &str, amount: i64, currency: &str) -> Answer {
    teller.command(&format!("/v1/accounts/{account}/{verb}"), json!({"amount": amount, "currency": currency})).await
}

async fn transfer(teller: &Teller, from: Uuid, to: Uuid, amount: i64, currency: &str) -> Answer {
    let body = json!({"from": from, "to": to, "amount": amount, "currency": currency});
    teller.command("/v1/transfers", body).await
}

/// Accounts in every state, each with a balance where one is possible.
struct Accounts {
    nobody: Uuid,
    open: Uuid,
    dollars: Uuid,
    frozen: Uuid,
    closed: Uuid,
    full: Uuid,
}

async fn accounts(teller: &Teller) -> Accounts {
    let all = Accounts {
        nobody: Uuid::from_u128(404),
        open: teller.account_with(100).await,
        dollars: teller.open(json!({"currency": "USD", "initial_deposit": 100})).await.expect(201).account_id(),
        frozen: teller.account_with(100).await,
        closed: teller.account_with(0).await,
        full: teller.account_with(CEILING).await,
    };
    teller.freeze(all.frozen).await.expect(200);
    teller.close(all.closed).await.expect(200);
    all
}

#[tokio::test]
async fn deposits_and_withdrawals_are_refused_by_the_first_reason_that_holds() {
    let app = spawn_app().await;
    let teller = app.teller();
    let Accounts { nobody, open, dollars, frozen, closed, full } = accounts(&teller).await;
    let before = app.log().await;
    let cases = [
        (nobody, "deposits", 1, "USD", 404, "account_not_found"),
        (nobody, "withdrawals", 101, "USD", 404, "account_not_found"),
        (closed, "deposits", CEILING, "USD", 422, "account_closed"),
        (closed, "withdrawals", 101, "USD", 422, "account_closed"),
        (frozen, "deposits", CEILING, "USD", 422, "account_frozen"),
        (frozen, "withdrawals", 101, "USD", 422, "account_frozen"),
        (open, "deposits", CEILING, "USD", 422, "currency_mismatch"),
        (dollars, "withdrawals", 101, "EUR", 422, "currency_mismatch"),
        (open, "withdrawals", 101, "EUR", 422, "insufficient_funds"),
        (open, "deposits", CEILING - 99, "EUR", 422, "balance_limit_exceeded"),
        (full, "deposits", 1, "EUR", 422, "balance_limit_exceeded"),
    ];
    for (account, verb, amount, currency, status, code) in cases {
        move_money(&teller, account, verb, amount, currency).await.refused(status, code);
    }
    assert_eq!(app.log().await, before);
    move_money(&teller, open, "deposits", CEILING - 100, "EUR").await.expect(201);
    move_money(&teller, full, "withdrawals", CEILING, "EUR").await.expect(201);
}

#[tokio::test]
async fn transfers_are_refused_by_the_first_reason_that_holds_on_either_side() {
    let app = spawn_app().await;
    let teller = app.teller();
    let Accounts { nobody, open, dollars, frozen, closed, full } = accounts(&teller).await;
    let before = app.log().await;
    let cases = [
        (nobody, closed, 1, "EUR", 404, "account_not_found"),
        (closed, nobody, 1, "EUR", 404, "account_not_found"),
        (frozen, closed, 1, "EUR", 422, "account_closed"),
        (closed, frozen, 1, "EUR", 422, "account_closed"),
        (open, closed, 101, "USD", 422, "account_closed"),
        (frozen, dollars, 101, "USD", 422, "account_frozen"),
        (open, frozen, 101, "USD", 422, "account_frozen"),
        (open, dollars, 101, "EUR", 422, "currency_mismatch"),
        (dollars, open, 101, "USD", 422, "currency_mismatch"),
        (open, full, 101, "USD", 422, "currency_mismatch"),
        (open, full, 101, "EUR", 422, "insufficient_funds"),
        (open, full, 100, "EUR", 422, "balance_limit_exceeded"),
    ];
    for (from, to, amount, currency, status, code) in cases {
        transfer(&teller, from, to, amount, currency).await.refused(status, code);
    }
    // Two accounts of different currencies, and nothing said of any.
    teller.transfer(open, dollars, 1).await.refused(422, "currency_mismatch");
    teller.transfer(open, open, 1).await.refused(400, "same_account");
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn a_change_of_status_is_refused_in_every_state_but_one() {
    let app = spawn_app().await;
    let teller = app.teller();
    let Accounts { nobody, open, frozen, closed, .. } = accounts(&teller).await;
    let before = app.log().await;
    for refused in [teller.freeze(nobody).await, teller.unfreeze(nobody).await, teller.close(nobody).await] {
        refused.refused(404, "account_not_found");
    }
    for refused in [teller.freeze(closed).await, teller.unfreeze(closed).await, teller.close(closed).await] {
        refused.refused(422, "account_closed");
    }
    for refused in [teller.freeze(frozen).await, teller.close(frozen).await] {
        refused.refused(422, "account_frozen");
    }
    teller.unfreeze(open).await.refused(422, "account_not_frozen");
    let full = teller.close(open).await.refused(422, "balance_not_zero");
    assert_eq!(full.body["balance"], 100);
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn a_lack_of_funds_says_what_is_there() {
    let app = spawn_app().await;
    let teller = app.teller();
    let (account, other) = (teller.account_with(100).await, teller.account_with(5).await);
    let refused = teller.withdraw(account, 101).await.refused(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 100);
    assert_eq!(refused.body["instance"], format!("/v1/accounts/{account}/withdrawals"));
    let refused = teller.transfer(other, account, 6).await.refused(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 5);
    assert_eq!(refused.body["current_version"], Value::Null);
}

#[tokio::test]
async fn an_id_is_opened_once_whatever_became_of_the_account() {
    let app = spawn_app().await;
    let teller = app.teller();
    let Accounts { open, frozen, closed, .. } = accounts(&teller).await;
    let before = app.log().await;
    for account in [open, frozen, closed] {
        teller.open(json!({"currency": "EUR", "account_id": account})).await.refused(409, "account_exists");
    }
    assert_eq!(app.log().await, before);
}
