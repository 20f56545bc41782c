//! Concurrent transfers neither lose nor create money.

use futures_util::future::join_all;
use passbook_testkit::{
    Rng,
    audit::{audit, fold},
    spawn_app, spawn_app_with,
};
use serde_json::json;

#[tokio::test]
async fn concurrent_transfers_keep_the_sum_of_balances() {
    let app = spawn_app().await;
    let client = app.client();
    let accounts = join_all((0..12).map(|_| client.open_with_balance(1_000))).await;
    let clients = (0..16).map(async |seed| {
        let mut rng = Rng::new(seed);
        for _ in 0..20 {
            let from = rng.below(12) as usize;
            let to = (from + 1 + rng.below(11) as usize) % 12;
            let amount = i64::try_from(rng.below(600)).unwrap() + 1;
            let moved = client.transfer(accounts[from], accounts[to], amount).await;
            if moved.status != 201 {
                moved.expect_problem(422, "insufficient_funds");
            }
        }
    });
    join_all(clients).await;
    let log = audit(&app).await;
    let total: i64 = fold(&log.events).values().map(|account| account.balance).sum();
    assert_eq!(total, 12_000);
    assert!(log.events.iter().filter(|event| event.event_type == "TransferSent").count() > 100, "money moved");
}

#[tokio::test]
async fn opposite_concurrent_transfers_succeed() {
    let app = spawn_app().await;
    let client = app.client();
    let (one, two) = (client.open_with_balance(100).await, client.open_with_balance(100).await);
    let there = join_all((0..16).map(|_| client.transfer(one, two, 5)));
    let back = join_all((0..16).map(|_| client.transfer(two, one, 5)));
    let (there, back) = tokio::join!(there, back);
    assert!(there.iter().chain(&back).all(|response| response.status == 201));
    let balances: Vec<i64> = fold(&audit(&app).await.events).values().map(|account| account.balance).collect();
    assert_eq!(balances, [100, 100]);
}

#[tokio::test]
async fn dependent_transfers_in_one_batch_are_decided_in_order() {
    let app = spawn_app_with(&["--cache-accounts=1"]).await;
    let client = app.client();
    let mut accounts = vec![client.open_with_balance(100).await];
    for _ in 0..8 {
        accounts.push(client.open_with_balance(0).await);
    }
    let log_head_lock = app.lock_log_heads().await;
    let transfers = join_all(accounts.windows(2).map(|pair| client.transfer(pair[0], pair[1], 100)));
    let release = async {
        app.wait_for_blocked_writer().await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        drop(log_head_lock);
    };
    let (responses, ()) = tokio::join!(transfers, release);
    // Each transfer needs the money of the one before it, so it succeeds only if that one was decided first.
    for response in responses {
        assert!(response.status == 201 || response.body["code"] == "insufficient_funds", "{}", response.body);
    }
    audit(&app).await;
}

#[tokio::test]
async fn both_sides_of_a_transfer_are_in_one_transaction() {
    let app = spawn_app().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    let body = json!({"from": from, "to": to, "amount": 30});
    client.with_key("one").command("/v1/transfers", body.clone()).await.expect(201);
    client.with_key("one").command("/v1/transfers", body).await.expect(201);
    let log = app.log().await;
    assert_eq!(log.events.len(), 4);
    let find = |event_type| log.events.iter().find(|event| event.event_type == event_type).unwrap();
    let (sent, received) = (find("TransferSent"), find("TransferReceived"));
    assert_eq!(sent.recorded_at, received.recorded_at);
    assert_eq!(sent.json()["transfer_id"], received.json()["transfer_id"]);
    assert_eq!((sent.stream_id, received.stream_id), (from, to));
    assert_eq!(
        (sent.json()["to"].as_str(), received.json()["from"].as_str()),
        (Some(to.to_string().as_str()), Some(from.to_string().as_str()))
    );
}
