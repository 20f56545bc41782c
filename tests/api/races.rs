//! Concurrent commands on one account: the outcome is that of some sequential order.

use futures_util::future::join_all;
use passbook_testkit::{Rng, audit::audit, spawn_app};
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn close_and_deposit_leave_no_money_on_a_closed_account() {
    let app = spawn_app().await;
    let client = app.client();
    for round in 0..20 {
        let account = client.open_with_balance(0).await;
        // Alternate the order in which the two are sent.
        let (closed, deposited) = match round % 2 {
            0 => tokio::join!(client.close(account), client.deposit(account, 1)),
            _ => {
                let (deposited, closed) = tokio::join!(client.deposit(account, 1), client.close(account));
                (closed, deposited)
            }
        };
        match closed.status {
            200 => drop(deposited.expect_problem(422, "account_closed")),
            _ => {
                closed.expect_problem(422, "balance_not_zero");
                deposited.expect(201);
            }
        }
    }
    audit(&app).await;
}

#[tokio::test]
async fn one_of_many_openings_of_the_same_id_succeeds() {
    let app = spawn_app().await;
    let client = app.client();
    let body = json!({"currency": "EUR", "account_id": Uuid::from_u128(17), "initial_deposit": 5});
    let responses = join_all((0..32).map(|_| client.open(body.clone()))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 201).count(), 1);
    for refused in responses.into_iter().filter(|response| response.status != 201) {
        refused.expect_problem(409, "account_exists");
    }
    assert_eq!(audit(&app).await.head.position, 1);
}

#[tokio::test]
async fn one_of_two_large_withdrawals_is_refused_with_the_balance() {
    let app = spawn_app().await;
    let client = app.client();
    for _ in 0..20 {
        let account = client.open_with_balance(100).await;
        let (one, two) = tokio::join!(client.withdraw(account, 80), client.withdraw(account, 80));
        let (paid, refused) = if one.status == 201 { (one, two) } else { (two, one) };
        assert_eq!(paid.expect(201).body["balance"], 20);
        assert_eq!(refused.expect_problem(422, "insufficient_funds").body["balance"], 20);
    }
}

#[tokio::test]
async fn hot_account_refuses_only_uncovered_withdrawals() {
    let app = spawn_app().await;
    let client = app.client();
    let hot = client.open_with_balance(1_000).await;
    let clients = (0..64).map(async |seed| {
        let mut rng = Rng::new(seed);
        for _ in 0..8 {
            let amount = i64::try_from(rng.below(400)).unwrap() + 1;
            match rng.below(2) {
                0 => drop(client.deposit(hot, amount).await.expect(201)),
                _ => match client.withdraw(hot, amount).await {
                    paid if paid.status == 201 => {}
                    refused => {
                        let balance =
                            refused.expect_problem(422, "insufficient_funds").body["balance"].as_i64().unwrap();
                        assert!(balance < amount, "a balance of {balance} covers {amount}");
                    }
                },
            }
        }
    });
    join_all(clients).await;
    audit(&app).await;
}

#[tokio::test]
async fn hot_account_accepts_every_deposit() {
    let app = spawn_app().await;
    let client = app.client();
    let hot = client.open_with_balance(0).await;
    let responses = join_all((0..256).map(|_| client.deposit(hot, 3))).await;
    let mut versions: Vec<i64> =
        responses.into_iter().map(|response| response.expect(201).body["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert!(versions.into_iter().eq(2..=257), "each deposit has its own version");
    let events = audit(&app).await.events;
    assert_eq!(events.len(), 257);
}
