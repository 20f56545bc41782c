//! Holds and reversals in one batch, over partitions, and with the expiries that the service records by itself.
//! Verification of the log, of the receipts and of the rows of reversals follows each test.

use futures_util::future::join_all;
use passbook_audit::verification;
use passbook_testkit::{App, audit::audit, eventually, spawn_app, spawn_app_with};
use serde_json::{Value, json};
use sqlx::{Connection, raw_sql};
use uuid::Uuid;

async fn verify(app: &App) {
    audit(app).await;
    verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn reversals_in_one_batch_see_each_other() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    client.deposit(account, 100).await.expect(201);
    let reversals = join_all((0..8).map(|_| client.reverse(account, 2, json!({"amount": 30}))));
    let responses = app.run_as_one_batch(reversals).await;
    assert_eq!(responses.iter().filter(|response| response.status == 201).count(), 3);
    let view = client.reverse(account, 2, json!({"amount": 10})).await.expect(201);
    assert_eq!(view.body["balance"], 1_000);
    verify(&app).await;
}

#[tokio::test]
async fn transfer_between_partitions_is_reversed_from_both_sides() {
    let app = spawn_app_with(&["--partitions=4"]).await;
    let client = app.client();
    let from = client.open_with_balance(1_000).await;
    let mut to = client.open_with_balance(0).await;
    while app.partitions().partition_of(to) == app.partitions().partition_of(from) {
        to = client.open_with_balance(0).await;
    }
    let sent = client.transfer(from, to, 100).await.expect(201);
    let received_version = sent.body["to"]["version"].as_i64().unwrap();
    let responses = join_all((0..64).map(|n| {
        let client = client.with_key(&format!("key-{n}"));
        async move {
            match n % 2 {
                0 => client.reverse(from, 2, json!({"amount": 7})).await,
                _ => client.reverse(to, received_version, json!({"amount": 7})).await,
            }
        }
    }))
    .await;
    let accepted: Vec<_> = responses.iter().filter(|response| response.status == 201).collect();
    assert_eq!(accepted.len(), 14);
    for receipt in accepted {
        assert_eq!(receipt.body["transfer_id"], sent.body["transfer_id"]);
        assert_eq!(receipt.body["from"]["account_id"], json!(to), "the account that pays back");
    }
    let again = client.with_key("key-0").reverse(from, 2, json!({"amount": 7})).await;
    assert_eq!(again.status, responses[0].status, "a key has one outcome");
    let last = client.reverse(to, received_version, json!({})).await.expect(201);
    assert_eq!((&last.body["amount"], &last.body["to"]["balance"]), (&json!(2), &json!(1_000)));
    verify(&app).await;
}

#[tokio::test]
async fn expiries_are_recorded_by_the_reserved_user() {
    let app = spawn_app_with(&["--partitions=4"]).await;
    let client = app.client();
    for _ in 0..4 {
        let account = client.open_with_balance(1_000).await;
        for _ in 0..3 {
            client.place_hold(account, json!({"amount": 100, "expires_in_seconds": 1})).await.expect(201);
        }
    }
    let expired = eventually("recorded expiries", async || {
        let log = app.log().await;
        let released: Vec<_> = log.events.into_iter().filter(|event| event.event_type == "HoldReleased").collect();
        (released.len() == 12).then_some(released)
    })
    .await;
    for event in expired {
        let [metadata, data] = [event.metadata, event.data].map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(metadata["user_id"], "passbook:expiry");
        assert_eq!((&data["cause"], &data["amount"]), (&json!("expired"), &json!(100)));
    }
    verify(&app).await;
}

#[tokio::test]
async fn receipt_of_a_placement_contains_the_expiries_before_it() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    // The view does not show the hold, so the service does not record its expiry by itself.
    let mut lock = app.database().await;
    raw_sql("BEGIN; LOCK TABLE account_hold IN SHARE MODE").execute(&mut lock).await.unwrap();
    client.with_key("first").place_hold(account, json!({"amount": 900, "expires_in_seconds": 1})).await.expect(201);
    let placed = eventually("a placement after the expiry", async || {
        let placed = client.with_key(&Uuid::now_v7().to_string()).place_hold(account, json!({"amount": 800})).await;
        (placed.status == 201).then_some(placed)
    })
    .await;
    lock.close().await.unwrap();
    assert_eq!((&placed.body["balance"], &placed.body["available"]), (&json!(1_000), &json!(200)));
    let events = placed.body["events"].as_array().unwrap();
    let members = |event: &Value| json!([event["type"], event["version"]]);
    let expected = json!([["HoldReleased", 3], ["HoldPlaced", 4]]);
    assert_eq!(json!(events.iter().map(members).collect::<Vec<_>>()), expected);
    let log = app.log().await;
    let (event_type, released) = &log.event_payloads(account)[2];
    assert_eq!(
        (*event_type, &released["amount"], &released["cause"]),
        ("HoldReleased", &json!(900), &json!("expired"))
    );
    client
        .with_key("capture")
        .capture_hold(account, placed.uuid("/hold/hold_id"), json!({"amount": 300}))
        .await
        .expect(201);
    verify(&app).await;
}

/// Hides this version of all accounts from the connections with this application name, as a former primary without these events
/// would.
async fn hide_version(app: &App, version: i64, application: &str) {
    app.tamper(&format!(
        "ALTER TABLE event ENABLE ROW LEVEL SECURITY;
         CREATE POLICY former_primary ON event
         USING (version <> {version} OR current_setting('application_name') NOT LIKE '%{application}%') WITH CHECK (true)"
    ))
    .await;
}

#[tokio::test]
async fn reversal_is_decided_on_the_log_that_the_executor_sees() {
    for (application, is_transfer) in [("lookup", false), ("writer", false), ("lookup", true), ("writer", true)] {
        let app = spawn_app().await;
        let client = app.client();
        let account = client.open_with_balance(1_000).await;
        let mut other = client.open_with_balance(1_000).await;
        while app.partitions().partition_of(other) != app.partitions().partition_of(account) {
            other = client.open_with_balance(1_000).await;
        }
        match is_transfer {
            true => client.transfer(account, other, 100).await.expect(201),
            false => client.deposit(account, 100).await.expect(201),
        };
        client.reverse(account, 1, json!({"amount": 1})).await.expect(201);
        let before = app.log().await;
        hide_version(&app, 2, application).await;
        for client in [client.with_key("reversal"), client.dry_run(), app.client()] {
            let refused = client.reverse(account, 2, json!({})).await;
            refused.expect_problem(503, "storage_unavailable");
        }
        app.tamper("DROP POLICY former_primary ON event; ALTER TABLE event DISABLE ROW LEVEL SECURITY").await;
        assert_eq!(app.log().await, before, "{application}");
        // Nothing was recorded under the key.
        let reversed = client.with_key("reversal").reverse(account, 2, json!({})).await.expect(201);
        assert!(!reversed.is_replay());
        verify(&app).await;
    }
}

#[tokio::test]
async fn reversal_of_an_event_that_is_being_recorded_is_decided() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let (mut version, mut reversals) = (1, 0);
    for _ in 0..50 {
        let reverse = client.reverse(account, version + 1, json!({}));
        let (deposited, reversed) = tokio::join!(client.deposit(account, 1), reverse);
        let deposited = deposited.expect(201).body["version"].as_i64().unwrap();
        assert_eq!(deposited, version + 1);
        version = match reversed.status {
            201 => reversed.body["version"].as_i64().unwrap(),
            _ => deposited,
        };
        if reversed.status == 201 {
            reversals += 1;
        } else {
            reversed.expect_problem(404, "transaction_not_found");
        }
    }
    let view = client.get_account(account, client.deposit(account, 1).await.position()).await.expect(200);
    assert_eq!(view.body["balance"], 1_000 + 50 - reversals + 1);
    verify(&app).await;
}

#[tokio::test]
async fn refusal_without_a_key_is_decided_after_the_time_of_the_log() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(500).await;
    client.place_hold(account, json!({"amount": 500, "expires_in_seconds": 3_600})).await.expect(201);
    client.withdraw(account, 500).await.expect_problem(422, "insufficient_funds");
    // Another instance has answered a read of a moment after the end of the hold, and the log keeps that time.
    app.tamper("UPDATE log_head SET recorded_at = now() + interval '2 hours'").await;
    assert_eq!(client.dry_run().withdraw(account, 500).await.expect(200).body["available"], 0);
    assert_eq!(client.withdraw(account, 500).await.expect(201).body["balance"], 0);
}
