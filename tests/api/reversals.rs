//! Reversals: a movement is paid back in part or whole, never more than its amount in sum. Balances are compared after each step.

use passbook_testkit::{ApiClient, Response, spawn_app};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

async fn balance(client: &ApiClient, account: Uuid, after: &Response) -> i64 {
    client.get_account(account, after.position()).await.expect(200).body["balance"].as_i64().unwrap()
}

/// Asserts the balance in the receipt and in the view.
async fn expect_reversed(client: &ApiClient, account: Uuid, response: Response, expected: i64) -> Response {
    let response = response.expect(201);
    assert_eq!(response.body["balance"], expected);
    assert_eq!(response.body["events"][0]["type"], "MovementReversed");
    assert_eq!(balance(client, account, &response).await, expected);
    response
}

async fn transactions(client: &ApiClient, account: Uuid, after: &Response) -> Vec<Value> {
    let path = format!("/v1/accounts/{account}/transactions?min_position={}", after.position());
    client.get(&path).await.expect(200).data().to_vec()
}

#[tokio::test]
async fn deposit_is_reversed_in_parts_up_to_its_amount() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    client.deposit(account, 500).await.expect(201);
    client.deposit(account, 1_000).await.expect(201);
    let body = json!({"amount": 200, "reason": "wrong amount"});
    let first = client.reverse(account, 2, body).await;
    let first = expect_reversed(&client, account, first, 1_300).await;
    let event_id =
        app.log().await.events.iter().find(|event| event.version == 2 && event.stream_id == account).unwrap().id;
    let data = json!({
        "reverses_version": 2, "reverses_event_id": event_id, "effect": "debit", "amount": 200, "reason": "wrong amount"
    });
    assert_eq!(app.log().await.event_payloads(account).pop(), Some(("MovementReversed", data)));
    let refused = client.reverse(account, 2, json!({"amount": 301})).await.expect_problem(422, "exceeds_reversible");
    assert_eq!(refused.body["reversible"], 300);
    assert_eq!(balance(&client, account, &refused).await, 1_300);
    let rest = client.reverse(account, 2, json!({})).await;
    let rest = expect_reversed(&client, account, rest, 1_000).await;
    for amount in [json!({}), json!({"amount": 1}), json!({"amount": 500})] {
        let refused = client.reverse(account, 2, amount).await.expect_problem(422, "already_reversed");
        assert_eq!(balance(&client, account, &refused).await, 1_000);
    }
    let rows = transactions(&client, account, &rest).await;
    let shown = |version: i64| rows.iter().find(|row| row["version"] == version).unwrap();
    assert_eq!((&shown(2)["reversed"], &shown(3)["reversed"]), (&json!(500), &json!(0)));
    assert_eq!((&shown(4)["kind"], &shown(4)["reverses_version"]), (&json!("reversal_out"), &json!(2)));
    assert_eq!((&shown(5)["amount"], &shown(5)["balance_after"]), (&json!(300), &json!(1_000)));
    assert_eq!(first.body["version"], 4);
}

#[tokio::test]
async fn every_kind_of_movement_is_reversed() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    client.deposit(account, 100).await.expect(201);
    client.withdraw(account, 300).await.expect(201);
    let placed = client.place_hold(account, json!({"amount": 200})).await.expect(201);
    client.capture_hold(account, placed.uuid("/hold/hold_id"), json!({"amount": 150})).await.expect(201);
    // The opening deposit, the deposit, the withdrawal and the capture.
    let mut last = None;
    for (version, expected) in [(3, 950), (5, 1_100), (2, 1_000), (1, 0)] {
        let reversed = client.reverse(account, version, json!({})).await;
        last = Some(expect_reversed(&client, account, reversed, expected).await);
    }
    let last = last.unwrap();
    assert_eq!(last.body["available"], 0, "a reversal revives no hold");
    let kinds: Vec<Value> =
        transactions(&client, account, &last).await.iter().take(4).map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["reversal_out", "reversal_out", "reversal_in", "reversal_in"]);
}

#[tokio::test]
async fn transfer_is_reversed_from_either_side_on_both_accounts() {
    let app = spawn_app().await;
    let client = app.client();
    let (sender, receiver) = (client.open_with_balance(1_000).await, client.open_with_balance(50).await);
    let sent = client.transfer(sender, receiver, 600).await.expect(201);
    let transfer_id = sent.uuid("/transfer_id");
    let steps = [(sender, 100, [500, 550]), (receiver, 200, [700, 350]), (sender, 300, [1_000, 50])];
    for (account, amount, [of_sender, of_receiver]) in steps {
        let reversed = client.reverse(account, 2, json!({"amount": amount})).await.expect(201);
        let receipt = &reversed.body;
        assert_eq!((reversed.uuid("/transfer_id"), &receipt["amount"]), (transfer_id, &json!(amount)));
        // The account that received the transfer pays back.
        assert_eq!((&receipt["from"]["account_id"], &receipt["to"]["account_id"]), (&json!(receiver), &json!(sender)));
        assert_eq!((&receipt["from"]["balance"], &receipt["to"]["balance"]), (&json!(of_receiver), &json!(of_sender)));
        let own = if account == sender { "/to/version" } else { "/from/version" };
        assert_eq!(reversed.header("etag"), Some(&*format!("\"{}\"", receipt.pointer(own).unwrap())));
        assert_eq!(balance(&client, sender, &reversed).await, of_sender);
        assert_eq!(balance(&client, receiver, &reversed).await, of_receiver);
    }
    for account in [sender, receiver] {
        let refused = client.reverse(account, 2, json!({"amount": 1})).await.expect_problem(422, "already_reversed");
        assert_eq!(balance(&client, account, &refused).await, if account == sender { 1_000 } else { 50 });
        let rows = transactions(&client, account, &refused).await;
        let original = rows.iter().find(|row| row["version"] == 2).unwrap();
        assert_eq!(original["reversed"], 600);
    }
    let path = format!("/v1/transfers/{transfer_id}?min_position={}", client.deposit(sender, 1).await.position());
    assert_eq!(client.get(&path).await.expect(200).body["reversed"], 600);
}

#[tokio::test]
async fn capture_to_another_account_is_reversed_like_a_transfer() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, shop) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    let placed = client.place_hold(account, json!({"amount": 400})).await.expect(201);
    client.capture_hold(account, placed.uuid("/hold/hold_id"), json!({"to": shop})).await.expect(201);
    let reversed = client.reverse(account, 3, json!({"amount": 250})).await.expect(201);
    assert_eq!((balance(&client, account, &reversed).await, balance(&client, shop, &reversed).await), (850, 150));
    assert_eq!(reversed.body["hold"], Value::Null, "a reversal revives no hold");
}

#[tokio::test]
async fn only_movements_are_reversed_and_reversals_are_not() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(0).await, client.open_with_balance(500).await);
    client.deposit(account, 500).await.expect(201);
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    let hold = client.place_hold(account, json!({"amount": 1})).await.expect(201).uuid("/hold/hold_id");
    client.void_hold(account, hold).await.expect(200);
    client.set_limits(account, json!({})).await.expect(200);
    client.reverse(account, 2, json!({"amount": 100})).await.expect(201);
    client.transfer(account, other, 10).await.expect(201);
    client.reverse(account, 9, json!({"amount": 5})).await.expect(201);
    let before = app.log().await;
    // The opening without a deposit, the statuses, the hold and its release, the limits, and versions beyond the last one.
    for version in [1, 3, 4, 5, 6, 7, 11, 1_000, i64::MAX] {
        client.reverse(account, version, json!({})).await.expect_problem(404, "transaction_not_found");
    }
    for (account, version) in [(account, 8), (account, 10), (other, 3)] {
        for body in [json!({}), json!({"amount": 1}), json!({"amount": 1_000})] {
            client.reverse(account, version, body).await.expect_problem(422, "not_reversible");
        }
    }
    client.reverse(Uuid::from_u128(404), 1, json!({})).await.expect_problem(404, "account_not_found");
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn account_that_pays_back_needs_the_money_available() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(0).await, client.open_with_balance(0).await);
    client.deposit(account, 500).await.expect(201);
    client.transfer(account, other, 100).await.expect(201);
    let hold = client.place_hold(account, json!({"amount": 100})).await.expect(201).uuid("/hold/hold_id");
    let refused = client.reverse(account, 2, json!({})).await.expect_problem(422, "insufficient_funds");
    assert_eq!((&refused.body["balance"], &refused.body["available"]), (&json!(400), &json!(300)));
    client.withdraw(other, 50).await.expect(201);
    // The other account pays back the transfer.
    let refused = client.reverse(account, 3, json!({})).await.expect_problem(422, "insufficient_funds");
    assert_eq!((refused.account_id(), &refused.body["available"]), (other, &json!(50)));
    let reversed = client.reverse(account, 3, json!({"amount": 50})).await.expect(201);
    assert_eq!((balance(&client, account, &reversed).await, balance(&client, other, &reversed).await), (450, 0));
    client.void_hold(account, hold).await.expect(200);
    client.set_limits(account, json!({"overdraft": 50})).await.expect(200);
    let reversed = client.reverse(account, 2, json!({})).await;
    expect_reversed(&client, account, reversed, -50).await;
}

#[tokio::test]
async fn frozen_and_closed_accounts_refuse_reversals() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    client.withdraw(account, 40).await.expect(201);
    client.transfer(account, other, 60).await.expect(201);
    client.freeze(other).await.expect(200);
    client.reverse(account, 3, json!({})).await.expect_problem(422, "account_frozen");
    client.reverse(other, 2, json!({})).await.expect_problem(422, "account_frozen");
    client.unfreeze(other).await.expect(200);
    client.close(account).await.expect(200);
    for (account, version) in [(account, 1), (account, 2), (account, 3), (other, 2)] {
        client.reverse(account, version, json!({})).await.expect_problem(422, "account_closed");
    }
    let refused = client.reverse(account, 9, json!({})).await.expect_problem(404, "transaction_not_found");
    assert_eq!((balance(&client, account, &refused).await, balance(&client, other, &refused).await), (0, 60));
}

#[tokio::test]
async fn reversals_neither_count_for_limits_nor_give_back() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    client
        .set_limits(account, json!({"per_movement": 100, "out_per_day": 100, "out_per_month": 100}))
        .await
        .expect(200);
    client.withdraw(account, 100).await.expect(201);
    // The opening deposit is paid out: 900 in one movement.
    let paid = client.reverse(account, 1, json!({"amount": 900})).await;
    let paid = expect_reversed(&client, account, paid, 0).await;
    let returned = client.reverse(account, 3, json!({})).await;
    let returned = expect_reversed(&client, account, returned, 100).await;
    let refused = client.withdraw(account, 1).await.expect_problem(422, "limit_exceeded");
    assert_eq!((&refused.body["limit"], &refused.body["used"]), (&json!("out_per_day"), &json!(100)));
    drop((paid, returned));
}

#[tokio::test]
async fn keyed_reversal_takes_effect_once() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    client.transfer(account, other, 400).await.expect(201);
    let (deposit, transfer) = (client.with_key("refund-1"), client.with_key("refund-2"));
    let first = deposit.reverse(account, 1, json!({"amount": 100})).await.expect(201);
    let second = transfer.reverse(account, 2, json!({"amount": 100})).await.expect(201);
    let late = client.with_key("refund-3");
    late.reverse(account, 2, json!({"amount": 301})).await.expect_problem(422, "exceeds_reversible");
    let before = app.log().await;
    for _ in 0..2 {
        for (first, again) in [
            (&first, deposit.reverse(account, 1, json!({"amount": 100})).await),
            (&second, transfer.reverse(account, 2, json!({"amount": 100})).await),
        ] {
            assert!(again.is_replay());
            assert_eq!((again.status, &again.body), (first.status, &first.body));
            assert_eq!(again.header("etag"), first.header("etag"));
        }
        let refused = late.reverse(account, 2, json!({"amount": 301})).await;
        let refused = refused.expect_problem(422, "exceeds_reversible");
        assert_eq!((refused.is_replay(), &refused.body["reversible"]), (true, &json!(300)));
        assert_eq!((balance(&client, account, &refused).await, balance(&client, other, &refused).await), (600, 300));
    }
    for reused in [
        deposit.reverse(account, 1, json!({"amount": 101})).await,
        deposit.reverse(account, 2, json!({"amount": 100})).await,
        transfer.reverse(account, 2, json!({"amount": 100, "reason": "again"})).await,
    ] {
        reused.expect_problem(422, "idempotency_key_reused");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn dry_run_and_stale_if_match_reverse_nothing() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    client.transfer(account, other, 400).await.expect(201);
    let before = app.log().await;
    for _ in 0..2 {
        let dry = client.dry_run().reverse(account, 1, json!({})).await.expect_problem(422, "insufficient_funds");
        assert_eq!(dry.body["available"], 600);
        let dry = client.dry_run().reverse(account, 2, json!({})).await.expect(200);
        assert_eq!((&dry.body["from"]["balance"], &dry.body["to"]["balance"]), (&json!(0), &json!(1_000)));
        assert_eq!(dry.body["to"]["events"], json!([{"type": "MovementReversed", "version": 3}]));
    }
    let stale = client.if_match("\"1\"");
    for refused in [
        stale.reverse(account, 1, json!({"amount": 1})).await,
        stale.reverse(account, 2, json!({})).await,
        stale.reverse(account, 2, json!({"amount": 401})).await,
        stale.dry_run().reverse(other, 2, json!({})).await,
    ] {
        assert_eq!(refused.expect_problem(412, "version_mismatch").body["current_version"], 2);
    }
    assert_eq!(app.log().await, before);
    // The condition is on the account that the path names.
    client.deposit(other, 1).await.expect(201);
    client.if_match("\"2\"").reverse(account, 2, json!({"amount": 1})).await.expect(201);
    client.if_match("\"4\"").reverse(other, 2, json!({"amount": 1})).await.expect(201);
}

#[tokio::test]
async fn invalid_reversals_are_refused() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let before = app.log().await;
    for (body, code, field) in [
        (json!({"amount": 0}), "invalid_amount", "amount"),
        (json!({"amount": -1}), "invalid_amount", "amount"),
        (json!({"amount": "1"}), "invalid_amount", "amount"),
        (json!({"reason": "x".repeat(501)}), "invalid_parameter", "reason"),
        (json!({"currency": "EUR"}), "malformed_request", "currency"),
        (json!({"reference": "x"}), "malformed_request", "reference"),
    ] {
        let refused = client.reverse(account, 1, body).await.expect_problem(400, code);
        assert_eq!(refused.body["errors"][0]["field"].as_str().unwrap_or_default(), field);
    }
    for version in ["0", "-1", "01", "+1", "1.0", "x", "9223372036854775808"] {
        let path = format!("/v1/accounts/{account}/transactions/{version}/reversal");
        let refused = client.command(&path, json!({})).await.expect_problem(400, "invalid_parameter");
        assert_eq!(refused.body["errors"][0]["field"], "version", "{version}");
    }
    let path = format!("/v1/accounts/{account}/transactions/1/reversal");
    client.send(Method::PUT, &path, "{}").await.expect_problem(405, "method_not_allowed");
    assert_eq!(app.log().await, before);
}
