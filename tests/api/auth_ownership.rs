//! Whose accounts they are: everything that could tell somebody of an account that is not theirs.

use serde_json::{Value, json};
use sqlx::Connection;
use uuid::Uuid;

use crate::support::{Response, AuthApp, ApiClient, spawn_auth_app};

/// What an response tells, but for which request it was.
fn told(response: &Response, account: Uuid) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = response
        .headers
        .iter()
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let mut body = response.body.clone();
    body["request_id"] = Value::Null;
    (response.status, headers, body.to_string().replace(&account.to_string(), "<account>"))
}

/// An account of Ada's that has seen something.
async fn account_of_ada(bank: &AuthApp) -> Uuid {
    let account = bank.customer("ada").open_with_balance(1_000).await;
    let paid = bank.customer("ada").deposit(account, 500).await.expect(201);
    bank.customer("ada").get_account(account, paid.position()).await.expect(200);
    account
}

#[tokio::test]
async fn an_account_of_somebody_else_is_answered_word_for_word_as_one_that_is_not_there() {
    let bank = spawn_auth_app().await;
    let (ben, theirs) = (bank.customer("ben"), account_of_ada(&bank).await);
    // A view's position is told of the partition that an id leads to, whether there is an account or not.
    let partitions = bank.app.partitions();
    let none = partitions.new_id_in(partitions.of(theirs));
    let own = ben.open_with_balance(1_000).await;
    let settled = ben.deposit(own, 1).await.expect(201);
    ben.get_account(own, settled.position()).await.expect(200);
    let before = bank.app.log().await;
    async fn every_way(ben: &ApiClient, own: Uuid, account: Uuid) -> Vec<Response> {
        let path = format!("/v1/accounts/{account}");
        vec![
            ben.get(&path).await,
            ben.with_header("if-none-match", "*").get(&path).await,
            ben.with_header("if-none-match", "\"2\"").get(&path).await,
            ben.get(&format!("{path}?as_of_version=1")).await,
            ben.get(&format!("{path}?as_of_version=99")).await,
            ben.get(&format!("{path}?as_of=2100-01-01T00:00:00Z")).await,
            ben.get(&format!("{path}?min_position=1")).await,
            ben.get(&format!("{path}/transactions")).await,
            ben.get(&format!("{path}/transactions?kind=deposit&limit=1&min_position=1")).await,
            ben.deposit(account, 1).await,
            ben.deposit(account, 9_007_199_254_740_991).await,
            ben.if_match("\"1\"").deposit(account, 1).await,
            ben.if_match("\"2\"").deposit(account, 1).await,
            ben.if_match("*").withdraw(account, 1).await,
            ben.dry_run().deposit(account, 1).await,
            ben.withdraw(account, 1_000_000).await,
            ben.with_key(&format!("key-{account}")).withdraw(account, 1).await,
            ben.command(&format!("{path}/deposits"), json!({"amount": 1, "currency": "USD"})).await,
            ben.close(account).await,
            ben.if_match("\"1\"").close(account).await,
            ben.transfer(account, own, 1).await,
            ben.transfer(account, own, 1_000_000).await,
            ben.dry_run().transfer(account, own, 1).await,
        ]
    }
    let (of_ada, of_nobody) = (every_way(&ben, own, theirs).await, every_way(&ben, own, none).await);
    for (n, (there, not_there)) in of_ada.into_iter().zip(of_nobody).enumerate() {
        assert_eq!(told(&there, theirs), told(&not_there, none), "way {n}");
        there.expect_problem(404, "account_not_found");
    }
    assert_eq!(bank.app.log().await, before);
}

#[tokio::test]
async fn a_list_holds_ones_own_accounts_and_no_others() {
    let bank = spawn_auth_app().await;
    let (ada, ben) = (bank.customer("ada"), bank.customer("ben"));
    let of_ada = ada.open_with_balance(1).await;
    let last = ben.open(json!({"currency": "USD"})).await.expect(201);
    let ids = async |who: &ApiClient, query: &str| {
        let list = who.get(&format!("/v1/accounts?min_position={}{query}", last.position())).await.expect(200);
        list.data().iter().map(|row| row["account_id"].as_str().unwrap().parse().unwrap()).collect::<Vec<Uuid>>()
    };
    assert_eq!(ids(&ada, "").await, [of_ada]);
    assert_eq!(ids(&ada, "&owner=ada").await, [of_ada]);
    assert_eq!(ids(&ben, "").await, [last.account_id()]);
    assert_eq!(ids(&ben, "&currency=EUR").await, [] as [Uuid; 0]);
    assert_eq!(ids(&bank.customer("eve"), "&status=open").await, [] as [Uuid; 0]);
    assert_eq!(ids(&bank.clerk(), "").await, [last.account_id(), of_ada]);
    assert_eq!(ids(&bank.clerk(), "&owner=ada").await, [of_ada]);
    for owner in ["ada", "nobody"] {
        ben.get(&format!("/v1/accounts?owner={owner}")).await.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn who_opens_an_account_owns_it_and_only_a_clerk_opens_one_for_others_or_chooses_its_id() {
    let bank = spawn_auth_app().await;
    let ada = bank.customer("ada");
    let taken = ada.open(json!({"currency": "EUR", "owner": "ada"})).await.expect(201).account_id();
    let before = bank.app.log().await;
    for body in [
        json!({"currency": "EUR", "owner": "ben"}),
        json!({"currency": "EUR", "account_id": taken}),
        json!({"currency": "EUR", "account_id": Uuid::now_v7()}),
        json!({"currency": "EUR", "owner": "ada", "account_id": Uuid::now_v7()}),
    ] {
        ada.open(body.clone()).await.expect_problem(403, "forbidden");
        ada.dry_run().open(body).await.expect_problem(403, "forbidden");
    }
    assert_eq!(bank.app.log().await, before);
    let chosen = Uuid::now_v7();
    bank.clerk().open(json!({"currency": "EUR", "owner": "ben", "account_id": chosen})).await.expect(201);
    bank.customer("ben").deposit(chosen, 1).await.expect(201);
    ada.deposit(chosen, 1).await.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn every_event_tells_whose_doing_it_was() {
    let bank = spawn_auth_app().await;
    let account = account_of_ada(&bank).await;
    bank.clerk().freeze(account).await.expect(200);
    let auditor = bank.client_with_scope("auditor", "audit:read");
    let events = auditor.get(&format!("/v1/accounts/{account}/events")).await.expect(200);
    let users: Vec<&Value> = events.data().iter().map(|event| &event["metadata"]["user_id"]).collect();
    assert_eq!(users, ["ada", "ada", "clerk"]);
    assert_eq!(events.data()[0]["data"]["owner"], "ada");
}

#[tokio::test]
async fn money_can_be_sent_to_anybody_and_the_sender_learns_nothing_but_that_it_was() {
    let bank = spawn_auth_app().await;
    let (ada, ben) = (bank.customer("ada"), bank.customer("ben"));
    let (from, to) = (ada.open_with_balance(1_000).await, ben.open_with_balance(77).await);
    for sent in
        [ada.dry_run().transfer(from, to, 5).await.expect(200), ada.with_key("rent").transfer(from, to, 5).await.expect(201)]
    {
        assert_eq!(sent.body["to"], json!({"account_id": to}));
        assert_eq!(sent.body["from"]["balance"], 995);
    }
    let replayed = ada.with_key("rent").transfer(from, to, 5).await.expect(201);
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    assert_eq!(replayed.body["to"], json!({"account_id": to}));

    // Both know of the transfer, and nobody else does.
    let transfer = format!("/v1/transfers/{}?min_position={}", replayed.text("/transfer_id"), replayed.position());
    for who in [&ada, &ben, &bank.clerk()] {
        assert_eq!(who.get(&transfer).await.expect(200).body["amount"], 5);
    }
    let none = format!("/v1/transfers/{}", Uuid::now_v7());
    let (theirs, nobodys) = (bank.customer("eve").get(&transfer).await, bank.customer("eve").get(&none).await);
    assert_eq!(theirs.body["detail"], nobodys.body["detail"]);
    theirs.expect_problem(404, "not_found");

    // Between one's own accounts, and for a clerk, both sides are told.
    let second = ada.open_with_balance(0).await;
    assert_eq!(ada.transfer(from, second, 5).await.expect(201).body["to"]["balance"], 5);
    assert_eq!(bank.clerk().transfer(from, to, 5).await.expect(201).body["to"]["balance"], 87);
}

#[tokio::test]
async fn whatever_the_other_account_refuses_it_is_as_if_it_were_not_there() {
    let bank = spawn_auth_app().await;
    let (ada, clerk) = (bank.customer("ada"), bank.clerk());
    let from = ada.open_with_balance(1_000).await;
    let of_ben = async |body: Value| {
        let mut whole = json!({"currency": "EUR", "owner": "ben"});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        clerk.open(whole).await.expect(201).account_id()
    };
    let [frozen, closed] = [of_ben(json!({})).await, of_ben(json!({})).await];
    clerk.freeze(frozen).await.expect(200);
    clerk.close(closed).await.expect(200);
    let dollars = of_ben(json!({"currency": "USD"})).await;
    let full = of_ben(json!({"initial_deposit": 9_007_199_254_740_991_i64})).await;
    let (open, none) = (of_ben(json!({"initial_deposit": 5})).await, Uuid::now_v7());
    let before = bank.app.log().await;

    let expected = told(&ada.transfer(from, none, 10).await, none);
    for to in [frozen, closed, dollars, full, none] {
        for who in [&ada, &ada.dry_run(), &ada.with_key("a-key")] {
            let refused = who.transfer(from, to, 10).await;
            assert_eq!(told(&refused, to), expected);
            refused.expect_problem(404, "account_not_found");
        }
    }

    // Who has not the money finds out nothing, however much is asked.
    for amount in [1_001, 9_007_199_254_740_990, 9_007_199_254_740_991] {
        let expected = told(&ada.transfer(from, none, amount).await, none);
        for to in [frozen, closed, dollars, full, open] {
            let refused = ada.transfer(from, to, amount).await;
            assert_eq!(told(&refused, to), expected, "{amount}");
            refused.expect_problem(422, "insufficient_funds");
        }
    }
    let wrong = |to: Uuid| json!({"from": from, "to": to, "amount": 1, "currency": "USD"});
    for to in [dollars, open, none] {
        ada.command("/v1/transfers", wrong(to)).await.expect_problem(422, "currency_mismatch");
    }
    assert_eq!(bank.app.log().await, before);
}

#[tokio::test]
async fn the_owner_of_an_account_that_no_view_knows_yet_may_use_it_and_nobody_else() {
    let bank = spawn_auth_app().await;
    let (ada, ben) = (bank.customer("ada"), bank.customer("ben"));
    ada.open_with_balance(0).await;
    // Whoever holds the checkpoints keeps the projector away.
    let mut projector = bank.app.database().await;
    sqlx::raw_sql("BEGIN; SELECT FROM projection FOR UPDATE").execute(&mut projector).await.unwrap();
    let account = ada.open_with_balance(10).await;
    ada.deposit(account, 1).await.expect(201);
    ben.deposit(account, 1).await.expect_problem(404, "account_not_found");
    ben.transfer(account, ben.open_with_balance(0).await, 1).await.expect_problem(404, "account_not_found");
    ada.get(&format!("/v1/accounts/{account}")).await.expect_problem(404, "account_not_found");
    projector.close().await.unwrap();
    let seen = ada.deposit(account, 1).await.expect(201);
    assert_eq!(ada.get_account(account, seen.position()).await.expect(200).body["balance"], 12);
}

#[tokio::test]
async fn in_one_batch_with_the_owner_a_stranger_is_still_one() {
    let bank = spawn_auth_app().await;
    let account = account_of_ada(&bank).await;
    let (ada, ben) = (bank.customer("ada"), bank.customer("ben"));
    let responses = bank
        .app
        .run_as_one_batch_after(bank.clerk(), async {
            tokio::join!(ada.deposit(account, 1), ben.deposit(account, 1), ada.withdraw(account, 1), ben.close(account))
        })
        .await;
    responses.0.expect(201);
    responses.1.expect_problem(404, "account_not_found");
    responses.2.expect(201);
    responses.3.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn a_key_is_its_callers_own() {
    let bank = spawn_auth_app().await;
    let (ada, ben) = (bank.customer("ada").with_key("shared"), bank.customer("ben").with_key("shared"));
    let body = json!({"currency": "EUR", "initial_deposit": 4_711});
    let of_ada = ada.open(body.clone()).await.expect(201);
    let of_ben = ben.open(body.clone()).await.expect(201);
    assert_eq!(of_ben.header("idempotency-replayed"), None);
    assert_ne!(of_ben.account_id(), of_ada.account_id());
    assert_eq!(ada.open(body).await.expect(201).body, of_ada.body);
    // Not even that there is such a key is told.
    ben.with_header("idempotency-key", "x").get("/v1/accounts").await.expect(200);
    let deposit = bank.customer("ada").with_key("pay").deposit(of_ada.account_id(), 1).await.expect(201);
    bank.customer("ben").with_key("pay").deposit(of_ada.account_id(), 1).await.expect_problem(404, "account_not_found");
    drop(deposit);
}

#[tokio::test]
async fn a_replay_shows_only_what_the_caller_may_see_today() {
    let bank = spawn_auth_app().await;
    let (of_ada, of_dora) = (bank.customer("ada").open_with_balance(100).await, bank.customer("dora").open_with_balance(0).await);
    let mighty = bank.client_with_scope("dora", "accounts:read:any accounts:write:any");
    mighty.with_key("pay").deposit(of_ada, 1).await.expect(201);
    mighty.with_key("move").transfer(of_ada, of_dora, 1).await.expect(201);
    let sent = mighty.with_key("back").transfer(of_dora, of_ada, 1).await.expect(201);
    assert_eq!(sent.body["to"]["balance"], 101);

    let dora = bank.customer("dora");
    dora.with_key("pay").deposit(of_ada, 1).await.expect_problem(404, "account_not_found");
    dora.with_key("move").transfer(of_ada, of_dora, 1).await.expect_problem(404, "account_not_found");
    let replayed = dora.with_key("back").transfer(of_dora, of_ada, 1).await.expect(201);
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    assert_eq!(replayed.body["to"], json!({"account_id": of_ada}));
    assert_eq!(mighty.with_key("back").transfer(of_dora, of_ada, 1).await.expect(201).body, sent.body);
}
