//! Deliveries to webhooks: what is sent, in which order, and what the filters select.

use passbook_testkit::{audit::audit, eventually};
use serde_json::json;
use uuid::Uuid;

use crate::webhook_receiver::{
    Receiver, first_versions, register, register_with, spawn_sending_app, spawn_sending_app_with_one_partition,
    wait_for_member, webhook,
};

#[tokio::test]
async fn each_event_is_sent_as_the_log_shows_it() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 5).await.expect(201);
    register(&client, &receiver.url).await;
    client.deposit(account, 6).await.expect(201);
    let received = receiver.wait_for_version(account, 3).await;
    let events = client.get(&format!("/v1/accounts/{account}/events")).await.expect(200);
    assert_eq!(received.iter().map(|received| received.json()).collect::<Vec<_>>(), events.data());
    for received in received {
        assert_eq!(received.header("webhook-id"), received.json()["id"]);
        assert_eq!(received.header("content-type"), "application/json");
        assert!(received.header("webhook-signature").starts_with("v1,"));
    }
    audit(&app).await;
}

#[tokio::test]
async fn without_a_cursor_only_later_events_are_sent() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let id = register_with(&client, json!({"url": receiver.url})).await;
    client.deposit(account, 5).await.expect(201);
    let received = receiver.wait_for(1).await;
    assert_eq!((received[0].account(), received[0].version()), (account, 2));
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn filters_select_types_accounts_and_owners() {
    let app = spawn_sending_app().await;
    let client = app.client();
    let open = async |owner: &str| {
        client.open(json!({"currency": "EUR", "owner": owner, "initial_deposit": 100})).await.expect(201).account_id()
    };
    let (ada, other, bob) = (open("ada").await, open("ada").await, open("bob").await);
    client.transfer(ada, bob, 1).await.expect(201);
    for (filter, expected) in [
        (json!({"types": ["TransferSent"]}), vec![(ada, 2)]),
        (json!({"account_id": bob}), vec![(bob, 1), (bob, 2)]),
        (json!({"owner": "ada"}), vec![(ada, 1), (ada, 2), (other, 1)]),
        (json!({"owner": "ada", "account_id": other}), vec![(other, 1)]),
        (json!({"owner": "bob", "types": ["TransferReceived", "TransferSent"]}), vec![(bob, 2)]),
    ] {
        let receiver = Receiver::start().await;
        let mut body = json!({"url": receiver.url, "after": "0"});
        body.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
        let id = register_with(&client, body).await;
        receiver.wait_for(expected.len()).await;
        wait_for_member(&client, id, "lag_events", &json!(0)).await;
        let mut received: Vec<(Uuid, i64)> =
            receiver.received().iter().map(|received| (received.account(), received.version())).collect();
        let mut expected = expected;
        received.sort_unstable();
        expected.sort_unstable();
        assert_eq!(received, expected, "{filter}");
    }
}

#[tokio::test]
async fn many_events_arrive_once_and_in_order_of_each_account() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let mut accounts = Vec::new();
    for _ in 0..5 {
        accounts.push(client.open_with_balance(1).await);
    }
    let deposits: Vec<_> =
        (0..400).map(|index| json!({"command": "deposit", "account_id": accounts[index % 5], "amount": 1})).collect();
    client.batch("each", &deposits).await.expect(200);
    receiver.wait_for(405).await;
    for account in accounts {
        let versions: Vec<i64> = receiver.of_account(account).iter().map(|received| received.version()).collect();
        assert_eq!(versions, (1..=81).collect::<Vec<_>>());
    }
    let settled = wait_for_member(&client, id, "lag_events", &json!(0)).await;
    assert_eq!((&settled["last_status"], &settled["last_error"]), (&json!(204), &json!(null)));
}

#[tokio::test]
async fn a_restart_continues_where_deliveries_stopped() {
    let (mut app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let id = register(&app.client(), &receiver.url).await;
    let account = app.client().open_with_balance(1).await;
    receiver.wait_for_version(account, 1).await;
    wait_for_member(&app.client(), id, "lag_events", &json!(0)).await;
    app.restart().await;
    app.client().deposit(account, 1).await.expect(201);
    receiver.wait_for_version(account, 2).await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn two_instances_deliver_each_event_once() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let mut peer = app.spawn_peer().await;
    let client = app.client();
    let ids = [register(&client, &receiver.url).await, register(&client, &format!("{}/2", receiver.url)).await];
    let account = client.open_with_balance(1).await;
    for _ in 0..20 {
        client.deposit(account, 1).await.expect(201);
    }
    receiver.wait_for(42).await;
    for id in ids {
        wait_for_member(&client, id, "lag_events", &json!(0)).await;
    }
    assert_eq!(receiver.received().len(), 42);
    // The instance that stays takes over.
    peer.stop().await;
    client.deposit(account, 1).await.expect(201);
    receiver.wait_for(44).await;
    assert_eq!(first_versions(&receiver.received()), (1..=22).collect::<Vec<_>>());
}

#[tokio::test]
async fn attempts_are_listed_newest_first() {
    let (app, receiver) = (spawn_sending_app_with_one_partition().await, Receiver::start().await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    client.deposit(account, 1).await.expect(201);
    receiver.wait_for(2).await;
    let path = format!("/v1/webhooks/{id}/deliveries");
    let page = eventually("two attempts", async || {
        let page = client.get(&path).await.expect(200);
        (page.data().len() == 2).then_some(page)
    })
    .await;
    let types: Vec<_> = page.data().iter().map(|attempt| attempt["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["MoneyDeposited", "AccountOpened"]);
    assert!(page.data().iter().all(|attempt| attempt["status"] == 204 && attempt["error"].is_null()));
    let first = client.get(&format!("{path}?limit=1")).await.expect(200);
    let rest = client.get(&format!("{path}?limit=1&after={}", first.text("/next"))).await.expect(200);
    assert_eq!((first.data(), rest.data()), (&page.data()[..1], &page.data()[1..]));
    assert_eq!(rest.body["next"], json!(null));
    assert_eq!(webhook(&client, id).await["position"], app.log().await.head.position.to_string());
}
