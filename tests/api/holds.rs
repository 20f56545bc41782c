//! Holds: money that is set aside, then captured, voided or expired. Balances are compared after each step, not only statuses.

use std::time::Duration;

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, Response, response::is_time, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

const HOLDS_MAX: usize = 200;

/// Asserts what the view says about the money of an account, once it has read up to the response.
pub async fn expect_money(client: &ApiClient, account: Uuid, after: &Response, expected: [i64; 3]) {
    let view = client.get_account(account, after.position()).await.expect(200).body;
    let money = ["balance", "held", "available"].map(|member| view[member].as_i64().unwrap());
    assert_eq!(money, expected, "balance, held and available of {view}");
}

pub async fn place(client: &ApiClient, account: Uuid, amount: i64) -> Uuid {
    client.place_hold(account, json!({"amount": amount})).await.expect(201).uuid("/hold/hold_id")
}

/// Waits until the hold has expired on the clock of the log.
pub async fn wait_until_expired(client: &ApiClient, account: Uuid, hold: Uuid) {
    for _ in 0..600 {
        let view = client.get(&format!("/v1/accounts/{account}/holds/{hold}")).await;
        if view.status == 200 && view.body["status"] == "expired" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the hold {hold} did not expire");
}

#[tokio::test]
async fn hold_lowers_available_and_not_the_balance() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let body = json!({"amount": 600, "currency": "EUR", "reference": "order 17", "metadata": {"order": "17"}});
    let placed = client.place_hold(account, body).await.expect(201);
    let (receipt, hold) = (&placed.body, &placed.body["hold"]);
    assert_eq!(
        (&receipt["balance"], &receipt["available"], &receipt["version"]),
        (&json!(1_000), &json!(400), &json!(2))
    );
    assert_eq!(placed.header("etag"), Some("\"2\""));
    assert_eq!(receipt["events"][0]["type"], "HoldPlaced");
    let hold_id = placed.uuid("/hold/hold_id");
    assert_eq!(placed.header("location"), Some(&*format!("/v1/accounts/{account}/holds/{hold_id}")));
    for (member, expected) in [
        ("account_id", json!(account)),
        ("status", json!("active")),
        ("amount", json!(600)),
        ("captured", json!(0)),
        ("remaining", json!(600)),
        ("version", json!(2)),
    ] {
        assert_eq!(hold[member], expected, "{member} of {hold}");
    }
    assert!(is_time(&hold["placed_at"]) && is_time(&hold["expires_at"]));
    let time = |member: &str| hold[member].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!((time("expires_at") - time("placed_at")).num_seconds(), 604_800, "7 days by default");
    expect_money(&client, account, &placed, [1_000, 600, 400]).await;

    let mut expected = hold.clone();
    expected["reference"] = json!("order 17");
    expected["metadata"] = json!({"order": "17"});
    let path = format!("/v1/accounts/{account}/holds/{hold_id}?min_position={}", placed.position());
    assert_eq!(client.get(&path).await.expect(200).body, expected);

    let refused = client.withdraw(account, 401).await.expect_problem(422, "insufficient_funds");
    assert_eq!((&refused.body["balance"], &refused.body["available"]), (&json!(1_000), &json!(400)));
    client.place_hold(account, json!({"amount": 401})).await.expect_problem(422, "insufficient_funds");
    let withdrawn = client.withdraw(account, 400).await.expect(201);
    assert_eq!((&withdrawn.body["balance"], &withdrawn.body["available"]), (&json!(600), &json!(0)));
    assert_eq!(withdrawn.body["hold"], Value::Null, "only receipts of holds have a hold");
    expect_money(&client, account, &withdrawn, [600, 600, 0]).await;
}

#[tokio::test]
async fn captures_take_at_most_what_the_hold_has_left() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let hold = place(&client, account, 600).await;
    let refused = client.capture_hold(account, hold, json!({"amount": 601})).await.expect_problem(422, "exceeds_hold");
    assert_eq!(refused.body["remaining"], 600);
    expect_money(&client, account, &refused, [1_000, 600, 400]).await;

    let part = client.capture_hold(account, hold, json!({"amount": 200, "final": false})).await.expect(201);
    assert_eq!(part.body["events"][0]["type"], "HoldCaptured");
    assert_eq!(part.body["hold"]["status"], "active");
    assert_eq!((&part.body["hold"]["captured"], &part.body["hold"]["remaining"]), (&json!(200), &json!(400)));
    assert_eq!((&part.body["balance"], &part.body["available"]), (&json!(800), &json!(400)));
    expect_money(&client, account, &part, [800, 400, 400]).await;

    let refused = client.capture_hold(account, hold, json!({"amount": 401})).await.expect_problem(422, "exceeds_hold");
    assert_eq!(refused.body["remaining"], 400);
    let last = client.capture_hold(account, hold, json!({"amount": 300})).await.expect(201);
    assert_eq!(last.body["hold"]["status"], "captured");
    assert_eq!((&last.body["hold"]["captured"], &last.body["hold"]["remaining"]), (&json!(500), &json!(0)));
    assert_eq!((&last.body["balance"], &last.body["available"]), (&json!(500), &json!(500)), "100 were released");
    expect_money(&client, account, &last, [500, 0, 500]).await;
    client.capture_hold(account, hold, json!({})).await.expect_problem(422, "hold_not_active");
    let refused = client.void_hold(account, hold).await.expect_problem(422, "hold_not_active");
    expect_money(&client, account, &refused, [500, 0, 500]).await;
}

#[tokio::test]
async fn capture_without_amount_takes_all_that_is_left() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let hold = place(&client, account, 600).await;
    client.capture_hold(account, hold, json!({"amount": 100, "final": false})).await.expect(201);
    // All that remains is taken, so the hold is over although the capture is not final.
    let rest = client.capture_hold(account, hold, json!({"final": false, "reference": "parcel"})).await.expect(201);
    assert_eq!(rest.body["hold"]["status"], "captured");
    assert_eq!(rest.body["hold"]["captured"], 600);
    expect_money(&client, account, &rest, [400, 0, 400]).await;
    let events = app.log().await;
    let (event_type, data) = events.event_payloads(account).pop().unwrap();
    assert_eq!(event_type, "HoldCaptured");
    assert_eq!(data, json!({"hold_id": hold, "amount": 500, "final": true, "reference": "parcel"}));
}

#[tokio::test]
async fn capture_needs_neither_available_nor_limits() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.set_limits(account, json!({"overdraft": 100})).await.expect(200);
    let hold = place(&client, account, 200).await;
    let limited = client.set_limits(account, json!({"per_movement": 1, "out_per_day": 0})).await.expect(200);
    assert_eq!(limited.body["available"], -100, "the overdraft is lower than what is used");
    let captured = client.capture_hold(account, hold, json!({})).await.expect(201);
    assert_eq!((&captured.body["balance"], &captured.body["available"]), (&json!(-100), &json!(-100)));
    expect_money(&client, account, &captured, [-100, 0, -100]).await;
}

#[tokio::test]
async fn capture_to_another_account_is_a_transfer() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, shop) = (client.open_with_balance(1_000).await, client.open_with_balance(7).await);
    let hold = place(&client, account, 600).await;
    let body = json!({"amount": 200, "final": false, "to": shop, "reference": "parcel 1"});
    let captured = client.capture_hold(account, hold, body).await.expect(201);
    let receipt = &captured.body;
    assert_eq!((&receipt["amount"], &receipt["currency"]), (&json!(200), &json!("EUR")));
    assert_eq!((&receipt["from"]["balance"], &receipt["from"]["available"]), (&json!(800), &json!(400)));
    assert_eq!((&receipt["to"]["balance"], &receipt["to"]["available"]), (&json!(207), &json!(207)));
    assert_eq!((&receipt["hold"]["captured"], &receipt["hold"]["remaining"]), (&json!(200), &json!(400)));
    assert_eq!(captured.header("etag"), Some("\"3\""), "the version of the account in the path");
    let transfer_id = captured.uuid("/transfer_id");
    let log = app.log().await;
    let (sent, received) = (log.event_payloads(account).pop().unwrap(), log.event_payloads(shop).pop().unwrap());
    let common = json!({"transfer_id": transfer_id, "amount": 200, "reference": "parcel 1", "hold_id": hold});
    let with = |more: Value| {
        let mut data = common.clone();
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    assert_eq!(sent, ("TransferSent", with(json!({"to": shop, "final": false}))));
    assert_eq!(received, ("TransferReceived", with(json!({"from": account}))));
    expect_money(&client, account, &captured, [800, 400, 400]).await;
    expect_money(&client, shop, &captured, [207, 0, 207]).await;
    let transfer = client.get(&format!("/v1/transfers/{transfer_id}?min_position={}", captured.position())).await;
    assert_eq!(transfer.expect(200).body["amount"], 200);

    let rest = client.capture_hold(account, hold, json!({"to": shop})).await.expect(201);
    assert_eq!((&rest.body["amount"], &rest.body["hold"]["status"]), (&json!(400), &json!("captured")));
    expect_money(&client, account, &rest, [400, 0, 400]).await;
    expect_money(&client, shop, &rest, [607, 0, 607]).await;
}

#[tokio::test]
async fn capture_to_an_account_that_cannot_be_paid_changes_nothing() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let hold = place(&client, account, 600).await;
    let [frozen, closed] = [client.open_with_balance(0).await, client.open_with_balance(0).await];
    client.freeze(frozen).await.expect(200);
    client.close(closed).await.expect(200);
    let dollars = client.open(json!({"currency": "USD"})).await.expect(201).account_id();
    let full = client.open_with_balance(9_007_199_254_740_991).await;
    let before = app.log().await;
    for (to, status, code) in [
        (account, 400, "same_account"),
        (Uuid::from_u128(404), 404, "account_not_found"),
        (frozen, 422, "account_frozen"),
        (closed, 422, "account_closed"),
        (dollars, 422, "currency_mismatch"),
        (full, 422, "balance_limit_exceeded"),
    ] {
        client.capture_hold(account, hold, json!({"to": to})).await.expect_problem(status, code);
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn voided_hold_makes_its_money_available_again() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let hold = place(&client, account, 600).await;
    client.capture_hold(account, hold, json!({"amount": 100, "final": false})).await.expect(201);
    let path = format!("/v1/accounts/{account}/holds/{hold}/void");
    let voided = client.command(&path, json!({"reason": "order cancelled"})).await.expect(200);
    assert_eq!((&voided.body["balance"], &voided.body["available"]), (&json!(900), &json!(900)));
    assert_eq!((&voided.body["hold"]["status"], &voided.body["hold"]["remaining"]), (&json!("voided"), &json!(0)));
    assert_eq!(voided.body["hold"]["captured"], 100);
    let released = json!({"hold_id": hold, "amount": 500, "cause": "voided", "reason": "order cancelled"});
    assert_eq!(app.log().await.event_payloads(account).pop(), Some(("HoldReleased", released)));
    let refused = client.void_hold(account, hold).await.expect_problem(422, "hold_not_active");
    client.capture_hold(account, hold, json!({"amount": 1})).await.expect_problem(422, "hold_not_active");
    expect_money(&client, account, &refused, [900, 0, 900]).await;
}

#[tokio::test]
async fn hold_is_over_when_it_expires_recorded_or_not() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let body = json!({"amount": 1_000, "expires_in_seconds": 1});
    let hold = client.place_hold(account, body).await.expect(201).uuid("/hold/hold_id");
    client.place_hold(account, json!({"amount": 1})).await.expect_problem(422, "insufficient_funds");
    wait_until_expired(&client, account, hold).await;
    let view = client.get(&format!("/v1/accounts/{account}/holds/{hold}")).await.expect(200).body;
    assert_eq!((&view["remaining"], &view["captured"]), (&json!(0), &json!(0)));
    for refused in [
        client.capture_hold(account, hold, json!({})).await,
        client.capture_hold(account, hold, json!({"amount": 1_000})).await,
        client.void_hold(account, hold).await,
    ] {
        let refused = refused.expect_problem(422, "hold_not_active");
        expect_money(&client, account, &refused, [1_000, 0, 1_000]).await;
    }
    let withdrawn = client.withdraw(account, 1_000).await.expect(201);
    assert_eq!((&withdrawn.body["balance"], &withdrawn.body["available"]), (&json!(0), &json!(0)));
    // An account whose holds are over can be closed.
    client.close(account).await.expect(200);
}

#[tokio::test]
async fn hold_of_another_account_or_of_none_is_not_found() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(1_000).await);
    let (own, foreign) = (place(&client, account, 10).await, place(&client, other, 10).await);
    client.deposit(account, 1).await.expect(201);
    app.wait_until_projected().await;
    let before = app.log().await;
    for hold in [foreign, Uuid::from_u128(404), Uuid::now_v7(), Uuid::nil()] {
        for refused in [
            client.capture_hold(account, hold, json!({})).await,
            client.capture_hold(account, hold, json!({"to": other})).await,
            client.void_hold(account, hold).await,
            client.get(&format!("/v1/accounts/{account}/holds/{hold}")).await,
        ] {
            refused.expect_problem(404, "hold_not_found");
        }
    }
    for refused in [
        client.place_hold(Uuid::from_u128(404), json!({"amount": 1})).await,
        client.capture_hold(Uuid::from_u128(404), own, json!({})).await,
        client.void_hold(Uuid::from_u128(404), own).await,
        client.get(&format!("/v1/accounts/{}/holds", Uuid::from_u128(404))).await,
        client.get(&format!("/v1/accounts/{}/holds/{own}", Uuid::from_u128(404))).await,
    ] {
        refused.expect_problem(404, "account_not_found");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn frozen_account_voids_holds_but_places_and_captures_none() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    let hold = place(&client, account, 600).await;
    client.freeze(account).await.expect(200);
    for refused in [
        client.place_hold(account, json!({"amount": 1})).await,
        client.place_hold(account, json!({"amount": 1, "currency": "USD"})).await,
        client.capture_hold(account, hold, json!({})).await,
        client.capture_hold(account, hold, json!({"amount": 601})).await,
        client.capture_hold(account, hold, json!({"to": other})).await,
    ] {
        refused.expect_problem(422, "account_frozen");
    }
    client.capture_hold(account, Uuid::now_v7(), json!({})).await.expect_problem(404, "hold_not_found");
    let voided = client.void_hold(account, hold).await.expect(200);
    assert_eq!((&voided.body["status"], &voided.body["available"]), (&json!("frozen"), &json!(1_000)));
    expect_money(&client, account, &voided, [1_000, 0, 1_000]).await;
}

#[tokio::test]
async fn account_with_active_holds_cannot_be_closed() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    client.set_limits(account, json!({"overdraft": 10})).await.expect(200);
    let hold = place(&client, account, 10).await;
    client.close(account).await.expect_problem(422, "holds_active");
    client.deposit(account, 5).await.expect(201);
    client.close(account).await.expect_problem(422, "holds_active");
    client.void_hold(account, hold).await.expect(200);
    client.close(account).await.expect_problem(422, "balance_not_zero");
    client.withdraw(account, 5).await.expect(201);
    client.close(account).await.expect(200);
    for refused in [
        client.place_hold(account, json!({"amount": 1})).await,
        client.capture_hold(account, hold, json!({})).await,
        client.void_hold(account, hold).await,
    ] {
        refused.expect_problem(422, "account_closed");
    }
}

#[tokio::test]
async fn account_has_at_most_200_active_holds() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let placed = join_all((0..HOLDS_MAX + 20).map(|_| client.place_hold(account, json!({"amount": 1})))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = placed.into_iter().partition(|response| response.status == 201);
    assert_eq!((accepted.len(), refused.len()), (HOLDS_MAX, 20));
    for response in refused {
        response.expect_problem(422, "too_many_holds");
    }
    let hold = accepted[17].uuid("/hold/hold_id");
    let voided = client.void_hold(account, hold).await.expect(200);
    expect_money(&client, account, &voided, [1_000, 199, 801]).await;
    let last = client.place_hold(account, json!({"amount": 1})).await.expect(201);
    let refused = client.place_hold(account, json!({"amount": 1})).await.expect_problem(422, "too_many_holds");
    expect_money(&client, account, &refused, [1_000, 200, 800]).await;
    assert_eq!(last.body["available"], 800);
}
