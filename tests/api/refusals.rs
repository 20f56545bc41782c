//! Refusals by the account's state, and their precedence if several apply. A refusal records nothing.

use passbook_testkit::{ApiClient, Response, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

const CEILING: i64 = 9_007_199_254_740_991;

async fn move_money(client: &ApiClient, account: Uuid, verb: &str, amount: i64, currency: &str) -> Response {
    client.command(&format!("/v1/accounts/{account}/{verb}"), json!({"amount": amount, "currency": currency})).await
}

async fn transfer(client: &ApiClient, from: Uuid, to: Uuid, amount: i64, currency: &str) -> Response {
    let body = json!({"from": from, "to": to, "amount": amount, "currency": currency});
    client.command("/v1/transfers", body).await
}

/// An account in each state, with a balance where the state allows one.
struct Accounts {
    unknown: Uuid,
    open: Uuid,
    dollars: Uuid,
    frozen: Uuid,
    closed: Uuid,
    full: Uuid,
}

async fn accounts(client: &ApiClient) -> Accounts {
    let all = Accounts {
        unknown: Uuid::from_u128(404),
        open: client.open_with_balance(100).await,
        dollars: client.open(json!({"currency": "USD", "initial_deposit": 100})).await.expect(201).account_id(),
        frozen: client.open_with_balance(100).await,
        closed: client.open_with_balance(0).await,
        full: client.open_with_balance(CEILING).await,
    };
    client.freeze(all.frozen).await.expect(200);
    client.close(all.closed).await.expect(200);
    all
}

#[tokio::test]
async fn movements_are_refused_by_the_first_reason_that_applies() {
    let app = spawn_app().await;
    let client = app.client();
    let Accounts { unknown, open, dollars, frozen, closed, full } = accounts(&client).await;
    let before = app.log().await;
    let cases = [
        (unknown, "deposits", 1, "USD", 404, "account_not_found"),
        (unknown, "withdrawals", 101, "USD", 404, "account_not_found"),
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
        move_money(&client, account, verb, amount, currency).await.expect_problem(status, code);
    }
    assert_eq!(app.log().await, before);
    move_money(&client, open, "deposits", CEILING - 100, "EUR").await.expect(201);
    move_money(&client, full, "withdrawals", CEILING, "EUR").await.expect(201);
}

#[tokio::test]
async fn transfers_are_refused_by_the_first_reason_on_either_side() {
    let app = spawn_app().await;
    let client = app.client();
    let Accounts { unknown, open, dollars, frozen, closed, full } = accounts(&client).await;
    let before = app.log().await;
    let cases = [
        (unknown, closed, 1, "EUR", 404, "account_not_found", unknown),
        (closed, unknown, 1, "EUR", 404, "account_not_found", unknown),
        (frozen, closed, 1, "EUR", 422, "account_closed", closed),
        (closed, frozen, 1, "EUR", 422, "account_closed", closed),
        (open, closed, 101, "USD", 422, "account_closed", closed),
        (frozen, dollars, 101, "USD", 422, "account_frozen", frozen),
        (open, frozen, 101, "USD", 422, "account_frozen", frozen),
        (open, dollars, 101, "EUR", 422, "currency_mismatch", dollars),
        (dollars, open, 101, "USD", 422, "currency_mismatch", open),
        (open, full, 101, "USD", 422, "currency_mismatch", open),
        (open, full, 101, "EUR", 422, "insufficient_funds", open),
        (open, full, 100, "EUR", 422, "balance_limit_exceeded", full),
    ];
    for (from, to, amount, currency, status, code, account) in cases {
        let refused = transfer(&client, from, to, amount, currency).await.expect_problem(status, code);
        assert_eq!(refused.account_id(), account, "{}", refused.body);
    }
    // Different currencies are refused although the request names none. A transfer is in the sender's currency.
    let refused = client.transfer(open, dollars, 1).await.expect_problem(422, "currency_mismatch");
    assert_eq!(refused.account_id(), dollars);
    let refused = client.transfer(open, open, 1).await.expect_problem(400, "same_account");
    assert_eq!(refused.body["account_id"], Value::Null);
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn replayed_refusal_of_a_transfer_still_names_the_account() {
    let app = spawn_app().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    let poor = client.with_key("poor");
    poor.transfer(from, to, 101).await.expect_problem(422, "insufficient_funds");
    client.freeze(to).await.expect(200);
    let frozen = client.with_key("frozen");
    frozen.transfer(from, to, 1).await.expect_problem(422, "account_frozen");
    client.unfreeze(to).await.expect(200);
    client.deposit(from, 1).await.expect(201);
    for (replayed, account) in [(poor.transfer(from, to, 101).await, from), (frozen.transfer(from, to, 1).await, to)] {
        assert!(replayed.is_replay());
        assert_eq!(replayed.account_id(), account, "{}", replayed.body);
    }
}

#[tokio::test]
async fn status_commands_are_refused_in_all_other_states() {
    let app = spawn_app().await;
    let client = app.client();
    let Accounts { unknown, open, frozen, closed, .. } = accounts(&client).await;
    let before = app.log().await;
    for refused in [client.freeze(unknown).await, client.unfreeze(unknown).await, client.close(unknown).await] {
        assert_eq!(refused.expect_problem(404, "account_not_found").account_id(), unknown);
    }
    for refused in [client.freeze(closed).await, client.unfreeze(closed).await, client.close(closed).await] {
        refused.expect_problem(422, "account_closed");
    }
    for refused in [client.freeze(frozen).await, client.close(frozen).await] {
        refused.expect_problem(422, "account_frozen");
    }
    client.unfreeze(open).await.expect_problem(422, "account_not_frozen");
    let full = client.close(open).await.expect_problem(422, "balance_not_zero");
    assert_eq!(full.body["balance"], 100);
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn insufficient_funds_reports_the_balance() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(5).await);
    let refused = client.withdraw(account, 101).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 100);
    assert_eq!(refused.body["instance"], format!("/v1/accounts/{account}/withdrawals"));
    let refused = client.transfer(other, account, 6).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.body["balance"], 5);
    assert_eq!(refused.body["current_version"], Value::Null);
}

#[tokio::test]
async fn existing_id_is_refused_in_every_state_of_the_account() {
    let app = spawn_app().await;
    let client = app.client();
    let Accounts { open, frozen, closed, .. } = accounts(&client).await;
    let before = app.log().await;
    for account in [open, frozen, closed] {
        client.open(json!({"currency": "EUR", "account_id": account})).await.expect_problem(409, "account_exists");
    }
    assert_eq!(app.log().await, before);
}
