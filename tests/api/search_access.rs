//! Searches by a customer: no filter finds an account or a transaction of another owner.

use passbook_testkit::spawn_auth_app;
use serde_json::json;

use crate::search::{all, encoded};

#[tokio::test]
async fn customers_find_nothing_of_other_owners() {
    let auth = spawn_auth_app().await;
    let (ada, ben) = (auth.customer("ada"), auth.customer("ben"));
    let opening = json!({"currency": "EUR", "initial_deposit": 500, "metadata": {"branch": "17"}});
    let of_ada = ada.open(opening.clone()).await.expect(201).account_id();
    let of_ben = ben.open(opening).await.expect(201).account_id();
    for (client, account) in [(&ada, of_ada), (&ben, of_ben)] {
        let body = json!({"amount": 20, "reference": "Rent"});
        client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
    }
    ada.command("/v1/transfers", json!({"from": of_ada, "to": of_ben, "amount": 5, "reference": "Rent, shared"}))
        .await
        .expect(201);
    auth.app.wait_until_projected().await;
    let part = &of_ada.to_string()[..13];
    for search in [
        "q=ada".to_owned(),
        format!("q={part}"),
        format!("q={of_ada}"),
        "metadata.branch=17".to_owned(),
        "currency=EUR&min_balance=1".to_owned(),
        "currency=EUR&sort=balance".to_owned(),
        "currency=EUR&sort=-last_activity_at&q=a".to_owned(),
        "currency=EUR&sort=-balance&metadata.branch=17".to_owned(),
    ] {
        for row in all(&ben, &format!("/v1/accounts?{search}")).await {
            assert_eq!(row["account_id"], json!(of_ben), "{search}");
        }
        let found = all(&auth.clerk(), &format!("/v1/accounts?{search}")).await;
        assert!(found.iter().any(|row| row["account_id"] == json!(of_ada)), "{search} finds it for a teller");
    }
    for search in
        ["", "reference=rent", "reference=RENT%2C", "min_amount=1&currency=EUR", "owner=ben", "owner=ben&reference=r"]
    {
        let rows = all(&ben, &format!("/v1/transactions?{search}")).await;
        assert!(rows.iter().all(|row| row["account_id"] == json!(of_ben)), "{search}");
        assert!(!rows.is_empty(), "{search}");
    }
    assert_eq!(all(&auth.clerk(), "/v1/transactions?reference=rent").await.len(), 4);
    assert_eq!(all(&auth.clerk(), "/v1/transactions?owner=ada").await.len(), 3);
    assert_eq!(all(&auth.customer("eve"), "/v1/transactions?reference=rent").await.len(), 0);
    for path in ["accounts", "transactions"] {
        for owner in ["ada", "unknown", "ada%"] {
            let path = format!("/v1/{path}?owner={}", encoded(owner));
            ben.get(&path).await.expect_problem(403, "forbidden");
        }
    }
}
