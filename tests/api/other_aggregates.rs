//! Events of other aggregates than accounts are in the log, and change no account, view, sum or verification.

use passbook_testkit::{App, audit::audit};
use serde_json::json;
use uuid::Uuid;

use crate::{
    journal,
    webhook_receiver::{register_with, spawn_sending_app},
};

/// An app whose log has events of webhooks between those of accounts.
async fn app_with_webhooks() -> (App, Uuid, Uuid) {
    let app = spawn_sending_app().await;
    let client = app.client();
    let first = register_with(&client, json!({"url": "http://127.0.0.1:1/"})).await;
    let account = client.open_with_balance(100).await;
    client.command(&format!("/v1/webhooks/{first}/pause"), json!({})).await.expect(200);
    client.deposit(account, 5).await.expect(201);
    register_with(&client, json!({"url": "http://127.0.0.1:1/2"})).await;
    client.withdraw(account, 1).await.expect(201);
    (app, account, first)
}

#[tokio::test]
async fn views_and_the_audit_pass_over_them() {
    let (app, account, webhook) = app_with_webhooks().await;
    let client = app.client();
    let log = audit(&app).await;
    let types: Vec<&str> = log
        .events
        .iter()
        .filter(|event| event.event_type.starts_with("Webhook"))
        .map(|event| &*event.event_type)
        .collect();
    assert_eq!(types, ["WebhookRegistered", "WebhookPaused", "WebhookRegistered"]);
    for view in ["accounts", "transactions", "daily_balances", "bank_totals", "holds", "ledger_totals"] {
        client.post(&format!("/v1/projections/{view}/rebuild?verify=true"), "").await.expect(202);
    }
    app.wait_until_projected().await;
    passbook_testkit::eventually("rebuilt views", async || {
        let status = client.get("/v1/projections").await.expect(200);
        assert!(status.data().iter().all(|view| view["state"] != "failed"), "{}", status.body);
        status.data().iter().all(|view| view["state"] == "live" && view["generation"].as_i64() > Some(1)).then_some(())
    })
    .await;
    client.get(&format!("/v1/accounts/{account}/verification")).await.expect(200);
    let events = client.get("/v1/events?type=WebhookPaused").await.expect(200);
    assert_eq!(
        (&events.data()[0]["aggregate_type"], &events.data()[0]["aggregate_id"]),
        (&json!("Webhook"), &json!(webhook))
    );
    let journal = client.get(&journal::path(journal::ALL_DAYS)).await.expect(200);
    assert_eq!(journal.lines().len(), 3);
    audit(&app).await;
}

#[tokio::test]
async fn their_streams_are_no_accounts() {
    let (mut app, account, webhook) = app_with_webhooks().await;
    for is_restarted in [false, true] {
        if is_restarted {
            app.restart().await;
        }
        let client = app.client();
        client.deposit(webhook, 1).await.expect_problem(404, "account_not_found");
        client.transfer(account, webhook, 1).await.expect_problem(404, "account_not_found");
        client.reverse(webhook, 1, json!({})).await.expect_problem(404, "account_not_found");
        client.freeze(webhook).await.expect_problem(404, "account_not_found");
        let opening = client.open(json!({"currency": "EUR", "account_id": webhook})).await;
        opening.expect_problem(409, "account_exists");
        for path in ["", "/events", "/verification", "/transactions"] {
            client.get(&format!("/v1/accounts/{webhook}{path}")).await.expect_problem(404, "account_not_found");
        }
    }
    audit(&app).await;
}

#[tokio::test]
async fn an_instance_with_cached_accounts_continues_behind_them() {
    let (app, account, webhook) = app_with_webhooks().await;
    let peer = app.spawn_peer().await;
    peer.client().deposit(account, 1).await.expect(201);
    app.client().command(&format!("/v1/webhooks/{webhook}/resume"), json!({})).await.expect(200);
    assert_eq!(peer.client().withdraw(account, 105).await.expect(201).body["balance"], 0);
    app.client().command(&format!("/v1/webhooks/{webhook}/pause"), json!({})).await.expect(200);
    app.client().withdraw(account, 1).await.expect_problem(422, "insufficient_funds");
    audit(&app).await;
}
