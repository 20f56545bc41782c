//! Holds that are over although their expiry is not recorded: every command is decided as if it were. A lock on the view of holds
//! keeps the expiry from being recorded until the test has seen all decisions.

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, App, audit::audit, eventually, spawn_app};
use serde_json::{Value, json};
use sqlx::{PgConnection, query_scalar};
use uuid::Uuid;

/// An app whose view of holds is locked, so that no expiry is found.
struct Fixture {
    app: App,
    client: ApiClient,
    lock: PgConnection,
}

impl Fixture {
    async fn spawn() -> Self {
        let app = spawn_app().await;
        let mut lock = app.database().await;
        sqlx::raw_sql("BEGIN; LOCK TABLE account_hold IN ACCESS EXCLUSIVE MODE").execute(&mut lock).await.unwrap();
        Self { client: app.client(), app, lock }
    }

    /// Opens an account with 1 000 minor units, all of them held for one second.
    async fn account_with_hold(&self) -> (Uuid, Uuid) {
        let account = self.client.open_with_balance(1_000).await;
        (account, self.place(account, 1_000).await)
    }

    /// Holds all that is available for one second.
    async fn place(&self, account: Uuid, amount: i64) -> Uuid {
        let body = json!({"amount": amount, "expires_in_seconds": 1});
        let placed = self.client.place_hold(account, body).await.expect(201);
        assert_eq!(placed.body["available"], 0);
        placed.uuid("/hold/hold_id")
    }

    /// Waits until all holds of one second are over on the clock of the log, and asserts that no expiry is recorded.
    async fn wait_until_over(&self) {
        let due =
            "SELECT clock_timestamp() > max(recorded_at) + interval '1 second' FROM event WHERE type = 'HoldPlaced'";
        eventually("the end of all holds", async || {
            let is_over: bool = query_scalar(due).fetch_one(&mut self.app.database().await).await.unwrap();
            is_over.then_some(())
        })
        .await;
        assert_eq!(self.recorded_expiries().await, 0);
    }

    async fn recorded_expiries(&self) -> i64 {
        let expiries = "SELECT count(*) FROM event WHERE type = 'HoldReleased' AND data->>'cause' = 'expired'";
        query_scalar(expiries).fetch_one(&mut self.app.database().await).await.unwrap()
    }

    /// Lets the expiries be recorded and compares the views with the log.
    async fn unlock(&mut self, expected: i64) {
        sqlx::raw_sql("COMMIT").execute(&mut self.lock).await.unwrap();
        eventually("the record of all expiries", async || {
            let found = self.recorded_expiries().await;
            assert!(found <= expected, "{found} expiries of {expected} holds");
            (found == expected).then_some(())
        })
        .await;
        audit(&self.app).await;
    }
}

/// Asserts the balance and what is available, as the next command is decided on them.
async fn expect_decided(client: &ApiClient, account: Uuid, expected: [i64; 2]) {
    let decided = client.dry_run().deposit(account, 1).await.expect(200).body;
    assert_eq!(["balance", "available"].map(|member| decided[member].as_i64().unwrap() - 1), expected);
}

#[tokio::test]
async fn hold_that_is_over_is_neither_captured_nor_voided() {
    let mut fixture = Fixture::spawn().await;
    let (client, other) = (&fixture.client.clone(), fixture.client.open_with_balance(0).await);
    let (account, hold) = fixture.account_with_hold().await;
    fixture.wait_until_over().await;
    for refused in [
        client.capture_hold(account, hold, json!({})).await,
        client.capture_hold(account, hold, json!({"amount": 1, "final": false})).await,
        client.capture_hold(account, hold, json!({"amount": 1_001})).await,
        client.capture_hold(account, hold, json!({"to": other})).await,
        client.void_hold(account, hold).await,
        client.dry_run().capture_hold(account, hold, json!({})).await,
        client.dry_run().void_hold(account, hold).await,
    ] {
        refused.expect_problem(422, "hold_not_active");
        expect_decided(client, account, [1_000, 1_000]).await;
    }
    expect_decided(client, other, [0, 0]).await;
    assert_eq!(fixture.recorded_expiries().await, 0, "a refusal records nothing");
    fixture.unlock(1).await;
}

#[tokio::test]
async fn money_of_a_hold_that_is_over_can_be_spent() {
    let mut fixture = Fixture::spawn().await;
    let (client, other) = (&fixture.client.clone(), fixture.client.open_with_balance(0).await);
    let mut accounts = Vec::new();
    for _ in 0..4 {
        accounts.push(fixture.account_with_hold().await.0);
    }
    fixture.wait_until_over().await;
    let placed = client.place_hold(accounts[0], json!({"amount": 1_000})).await.expect(201);
    assert_eq!(placed.body["available"], 0);
    let withdrawn = client.withdraw(accounts[1], 1_000).await.expect(201);
    assert_eq!((&withdrawn.body["balance"], &withdrawn.body["available"]), (&json!(0), &json!(0)));
    let sent = client.transfer(accounts[2], other, 1_000).await.expect(201);
    assert_eq!((&sent.body["from"]["available"], &sent.body["to"]["available"]), (&json!(0), &json!(1_000)));
    let reversed = client.reverse(accounts[3], 1, json!({})).await.expect(201);
    assert_eq!((&reversed.body["balance"], &reversed.body["available"]), (&json!(0), &json!(0)));
    for (account, expected) in accounts.iter().zip([[1_000, 0], [0, 0], [0, 0], [0, 0]]) {
        expect_decided(client, *account, expected).await;
        client.withdraw(*account, 1).await.expect_problem(422, "insufficient_funds");
    }
    expect_decided(client, other, [1_000, 1_000]).await;
    fixture.unlock(4).await;
}

#[tokio::test]
async fn receipts_count_no_hold_that_is_over() {
    let mut fixture = Fixture::spawn().await;
    let client = &fixture.client.clone();
    let (account, _) = fixture.account_with_hold().await;
    fixture.wait_until_over().await;
    let available = [
        client.deposit(account, 5).await.expect(201),
        client.set_limits(account, json!({"overdraft": 7})).await.expect(200),
        client.freeze(account).await.expect(200),
        client.unfreeze(account).await.expect(200),
    ]
    .map(|response| response.body["available"].clone());
    assert_eq!(available, [1_005, 1_012, 1_012, 1_012].map(|available| json!(available)));
    fixture.unlock(1).await;
}

#[tokio::test]
async fn account_closes_and_records_that_its_holds_are_over() {
    let mut fixture = Fixture::spawn().await;
    let client = &fixture.client.clone();
    let account = client.open_with_balance(0).await;
    client.set_limits(account, json!({"overdraft": 10})).await.expect(200);
    fixture.place(account, 10).await;
    fixture.wait_until_over().await;
    let closed = client.close(account).await.expect(200);
    assert_eq!((&closed.body["status"], &closed.body["balance"]), (&json!("closed"), &json!(0)));
    let log = fixture.app.log().await;
    let last: Vec<_> =
        log.event_payloads(account).into_iter().rev().take(2).map(|(event_type, _)| event_type).collect();
    assert_eq!(last, ["AccountClosed", "HoldReleased"]);
    fixture.unlock(1).await;
}

#[tokio::test]
async fn hold_that_is_over_uses_up_no_limit() {
    let mut fixture = Fixture::spawn().await;
    let client = &fixture.client.clone();
    let account = client.open_with_balance(1_000).await;
    client.set_limits(account, json!({"out_per_day": 1_000, "out_per_month": 1_000})).await.expect(200);
    fixture.place(account, 1_000).await;
    fixture.wait_until_over().await;
    client.deposit(account, 5_000).await.expect(201);
    client.withdraw(account, 1_001).await.expect_problem(422, "limit_exceeded");
    client.withdraw(account, 1_000).await.expect(201);
    client.withdraw(account, 1_001).await.expect_problem(422, "limit_exceeded");
    expect_decided(client, account, [5_000, 5_000]).await;
    fixture.unlock(1).await;
}

#[tokio::test]
async fn both_sides_of_a_payment_count_no_hold_that_is_over() {
    let mut fixture = Fixture::spawn().await;
    let client = &fixture.client.clone();
    let rich = client.open_with_balance(1_000).await;
    let paid = client.place_hold(rich, json!({"amount": 400})).await.expect(201).uuid("/hold/hold_id");
    // The receiver of this transfer has spent it, so that only the money of its hold can pay it back.
    let (sender, receiver) = (client.open_with_balance(1_100).await, client.open_with_balance(1_000).await);
    client.transfer(sender, receiver, 100).await.expect(201);
    client.withdraw(receiver, 100).await.expect(201);
    let spent = client.open_with_balance(1_050).await;
    client.withdraw(spent, 50).await.expect(201);
    for account in [sender, receiver, spent] {
        fixture.place(account, 1_000).await;
    }
    fixture.wait_until_over().await;

    let reversed = client.reverse(sender, 2, json!({})).await.expect(201);
    assert_eq!((&reversed.body["from"]["balance"], &reversed.body["from"]["available"]), (&json!(900), &json!(900)));
    assert_eq!((&reversed.body["to"]["balance"], &reversed.body["to"]["available"]), (&json!(1_100), &json!(1_100)));
    let reversed = client.reverse(spent, 2, json!({})).await.expect(201);
    assert_eq!((&reversed.body["balance"], &reversed.body["available"]), (&json!(1_050), &json!(1_050)));
    let captured = client.capture_hold(rich, paid, json!({"to": receiver})).await.expect(201);
    assert_eq!((&captured.body["from"]["available"], &captured.body["to"]["available"]), (&json!(600), &json!(1_300)));
    let sent = client.transfer(rich, receiver, 600).await.expect(201);
    assert_eq!((&sent.body["from"]["available"], &sent.body["to"]["available"]), (&json!(0), &json!(1_900)));
    for (account, balance) in [(rich, 0), (sender, 1_100), (receiver, 1_900), (spent, 1_050)] {
        expect_decided(client, account, [balance, balance]).await;
    }
    assert_eq!(fixture.recorded_expiries().await, 0);
    fixture.unlock(3).await;
}

#[tokio::test]
async fn hold_that_is_over_on_a_frozen_account_is_not_voided() {
    let mut fixture = Fixture::spawn().await;
    let client = &fixture.client.clone();
    let (account, hold) = fixture.account_with_hold().await;
    client.freeze(account).await.expect(200);
    fixture.wait_until_over().await;
    client.void_hold(account, hold).await.expect_problem(422, "hold_not_active");
    client.capture_hold(account, hold, json!({})).await.expect_problem(422, "account_frozen");
    client.close(account).await.expect_problem(422, "account_frozen");
    fixture.unlock(1).await;
    let unfrozen = client.unfreeze(account).await.expect(200);
    assert_eq!((&unfrozen.body["balance"], &unfrozen.body["available"]), (&json!(1_000), &json!(1_000)));
}

#[tokio::test]
async fn holds_that_are_over_leave_room_for_200_others() {
    let mut fixture = Fixture::spawn().await;
    let client = &fixture.client.clone();
    let account = client.open_with_balance(1_000).await;
    let place = async |body: &Value| client.place_hold(account, body.clone()).await;
    for body in [json!({"amount": 5, "expires_in_seconds": 1}), json!({"amount": 2})] {
        for placed in join_all((0..200).map(|_| place(&body))).await {
            placed.expect(201);
        }
        if body["amount"] == 5 {
            fixture.wait_until_over().await;
        }
    }
    client.place_hold(account, json!({"amount": 1})).await.expect_problem(422, "too_many_holds");
    expect_decided(client, account, [1_000, 600]).await;
    fixture.unlock(200).await;
}
