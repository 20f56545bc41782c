//! Ownership of accounts: no response reveals anything about an account that the caller may not see.

use passbook_testkit::{ApiClient, AuthApp, Response, spawn_auth_app};
use serde_json::{Value, json};
use sqlx::Connection;
use uuid::Uuid;

/// Status, headers and body of a response without the parts that identify the request.
fn comparable(response: &Response, account: Uuid) -> (u16, Vec<(String, String)>, String) {
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

/// Opens an account for `ada` and deposits money.
async fn account_of_ada(auth: &AuthApp) -> Uuid {
    let account = auth.customer("ada").open_with_balance(1_000).await;
    let paid = auth.customer("ada").deposit(account, 500).await.expect(201);
    auth.customer("ada").get_account(account, paid.position()).await.expect(200);
    account
}

#[tokio::test]
async fn hidden_account_and_unknown_account_get_the_same_response() {
    let auth = spawn_auth_app().await;
    let (ben, theirs) = (auth.customer("ben"), account_of_ada(&auth).await);
    // A response contains the position of the id's partition, also for an unknown account. Both ids are in one
    // partition.
    let partitions = auth.app.partitions();
    let unknown = partitions.new_id_in(partitions.partition_of(theirs));
    let own = ben.open_with_balance(1_000).await;
    let settled = ben.deposit(own, 1).await.expect(201);
    ben.get_account(own, settled.position()).await.expect(200);
    let before = auth.app.log().await;
    async fn all_requests(ben: &ApiClient, own: Uuid, account: Uuid) -> Vec<Response> {
        let path = format!("/v1/accounts/{account}");
        vec![
            ben.get(&path).await,
            ben.with_header("if-none-match", "*").get(&path).await,
            ben.with_header("if-none-match", "\"2\"").get(&path).await,
            ben.get(&format!("{path}?as_of_version=1")).await,
            ben.get(&format!("{path}?as_of_version=99")).await,
            ben.get(&format!("{path}?as_of=2026-01-01T00:00:00Z")).await,
            ben.get(&format!("{path}/transactions?to=2026-01-01T00:00:00Z")).await,
            ben.get(&format!("{path}?min_position=1")).await,
            ben.get(&format!("{path}/transactions")).await,
            ben.get(&format!("{path}/transactions?kind=deposit&limit=1&min_position=1")).await,
            ben.get(&format!("{path}/holds")).await,
            ben.get(&format!("{path}/holds?status=active&limit=1")).await,
            ben.get(&format!("{path}/holds/{}", Uuid::from_u128(1))).await,
            ben.get(&format!("{path}/limits")).await,
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
    let (hidden, missing) = (all_requests(&ben, own, theirs).await, all_requests(&ben, own, unknown).await);
    for (n, (hidden, missing)) in hidden.into_iter().zip(missing).enumerate() {
        assert_eq!(comparable(&hidden, theirs), comparable(&missing, unknown), "request {n}");
        hidden.expect_problem(404, "account_not_found");
    }
    assert_eq!(auth.app.log().await.events, before.events);
}

#[tokio::test]
async fn account_list_contains_only_visible_accounts() {
    let auth = spawn_auth_app().await;
    let (ada, ben) = (auth.customer("ada"), auth.customer("ben"));
    let of_ada = ada.open_with_balance(1).await;
    let last = ben.open(json!({"currency": "USD"})).await.expect(201);
    let ids = async |client: &ApiClient, query: &str| {
        let list = client.get(&format!("/v1/accounts?min_position={}{query}", last.position())).await.expect(200);
        list.data().iter().map(|row| row["account_id"].as_str().unwrap().parse().unwrap()).collect::<Vec<Uuid>>()
    };
    assert_eq!(ids(&ada, "").await, [of_ada]);
    assert_eq!(ids(&ada, "&owner=ada").await, [of_ada]);
    assert_eq!(ids(&ben, "").await, [last.account_id()]);
    assert_eq!(ids(&ben, "&currency=EUR").await, [] as [Uuid; 0]);
    assert_eq!(ids(&auth.customer("eve"), "&status=open").await, [] as [Uuid; 0]);
    assert_eq!(ids(&auth.clerk(), "").await, [last.account_id(), of_ada]);
    assert_eq!(ids(&auth.clerk(), "&owner=ada").await, [of_ada]);
    for owner in ["ada", "unknown"] {
        ben.get(&format!("/v1/accounts?owner={owner}")).await.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn only_scope_any_may_choose_owner_or_id_of_a_new_account() {
    let auth = spawn_auth_app().await;
    let ada = auth.customer("ada");
    let taken = ada.open(json!({"currency": "EUR", "owner": "ada"})).await.expect(201).account_id();
    let before = auth.app.log().await;
    for body in [
        json!({"currency": "EUR", "owner": "ben"}),
        json!({"currency": "EUR", "account_id": taken}),
        json!({"currency": "EUR", "account_id": Uuid::now_v7()}),
        json!({"currency": "EUR", "owner": "ada", "account_id": Uuid::now_v7()}),
    ] {
        ada.open(body.clone()).await.expect_problem(403, "forbidden");
        ada.dry_run().open(body).await.expect_problem(403, "forbidden");
    }
    assert_eq!(auth.app.log().await, before);
    let chosen = Uuid::now_v7();
    auth.clerk().open(json!({"currency": "EUR", "owner": "ben", "account_id": chosen})).await.expect(201);
    auth.customer("ben").deposit(chosen, 1).await.expect(201);
    ada.deposit(chosen, 1).await.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn event_metadata_names_the_user() {
    let auth = spawn_auth_app().await;
    let account = account_of_ada(&auth).await;
    auth.clerk().freeze(account).await.expect(200);
    let auditor = auth.client_with_scope("auditor", "audit:read");
    let events = auditor.get(&format!("/v1/accounts/{account}/events")).await.expect(200);
    let users: Vec<&Value> = events.data().iter().map(|event| &event["metadata"]["user_id"]).collect();
    assert_eq!(users, ["ada", "ada", "clerk"]);
    assert_eq!(events.data()[0]["data"]["owner"], "ada");
}

#[tokio::test]
async fn transfer_receipt_hides_account_of_another_owner() {
    let auth = spawn_auth_app().await;
    let (ada, ben) = (auth.customer("ada"), auth.customer("ben"));
    let (from, to) = (ada.open_with_balance(1_000).await, ben.open_with_balance(77).await);
    for sent in [
        ada.dry_run().transfer(from, to, 5).await.expect(200),
        ada.with_key("rent").transfer(from, to, 5).await.expect(201),
    ] {
        assert_eq!(sent.body["to"], json!({"account_id": to}));
        assert_eq!(sent.body["from"]["balance"], 995);
    }
    let replayed = ada.with_key("rent").transfer(from, to, 5).await.expect(201);
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    assert_eq!(replayed.body["to"], json!({"account_id": to}));

    // Both owners see the transfer, other callers do not.
    let transfer = format!("/v1/transfers/{}?min_position={}", replayed.text("/transfer_id"), replayed.position());
    for client in [&ada, &ben, &auth.clerk()] {
        assert_eq!(client.get(&transfer).await.expect(200).body["amount"], 5);
    }
    let unknown = format!("/v1/transfers/{}", Uuid::now_v7());
    let (hidden, missing) = (auth.customer("eve").get(&transfer).await, auth.customer("eve").get(&unknown).await);
    assert_eq!(hidden.body["detail"], missing.body["detail"]);
    hidden.expect_problem(404, "not_found");

    // A transfer between own accounts, or by a clerk, shows both sides.
    let second = ada.open_with_balance(0).await;
    assert_eq!(ada.transfer(from, second, 5).await.expect(201).body["to"]["balance"], 5);
    assert_eq!(auth.clerk().transfer(from, to, 5).await.expect(201).body["to"]["balance"], 87);
}

#[tokio::test]
async fn capture_receipt_hides_the_account_that_is_paid() {
    let auth = spawn_auth_app().await;
    let (from, to) = (account_of_ada(&auth).await, auth.customer("ben").open_with_balance(77).await);
    let merchant = auth.client_with_scope("shop", "accounts:holds");
    let placed = merchant.place_hold(from, json!({"amount": 100})).await.expect(201);
    let capture = format!("/v1/accounts/{from}/holds/{}/capture", placed.uuid("/hold/hold_id"));
    let body = json!({"amount": 5, "final": false, "to": to});
    let tried = merchant.dry_run().command(&capture, body.clone()).await.expect(200);
    let captured = merchant.with_key("parcel-1").command(&capture, body.clone()).await.expect(201);
    let replayed = merchant.with_key("parcel-1").command(&capture, body.clone()).await.expect(201);
    assert!(replayed.is_replay());
    for receipt in [tried, captured, replayed] {
        assert_eq!(receipt.body["to"], json!({"account_id": to}));
        assert_eq!(receipt.body["hold"]["captured"], 5);
    }
    // Who may read the account that is paid sees it.
    let reader = auth.client_with_scope("desk", "accounts:holds accounts:read:any");
    assert_eq!(reader.command(&capture, body).await.expect(201).body["to"]["balance"], 87);
}

#[tokio::test]
async fn refusal_by_hidden_payee_account_is_not_found() {
    let auth = spawn_auth_app().await;
    let (ada, clerk) = (auth.customer("ada"), auth.clerk());
    let from = ada.open_with_balance(1_000).await;
    // A response contains the position of the receiver's partition, also for an unknown account. All are in one partition.
    let partitions = auth.app.partitions();
    let none = Uuid::now_v7();
    let new_id = || partitions.new_id_in(partitions.partition_of(none));
    let open_for_ben = async |body: Value| {
        let mut whole = json!({"currency": "EUR", "owner": "ben", "account_id": new_id()});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        clerk.open(whole).await.expect(201).account_id()
    };
    let [frozen, closed] = [open_for_ben(json!({})).await, open_for_ben(json!({})).await];
    clerk.freeze(frozen).await.expect(200);
    clerk.close(closed).await.expect(200);
    let dollars = open_for_ben(json!({"currency": "USD"})).await;
    let full = open_for_ben(json!({"initial_deposit": 9_007_199_254_740_991_i64})).await;
    let open = open_for_ben(json!({"initial_deposit": 5})).await;
    let before = auth.app.log().await;

    let expected = comparable(&ada.transfer(from, none, 10).await, none);
    for to in [frozen, closed, dollars, full, none] {
        for client in [&ada, &ada.dry_run(), &ada.with_key(&to.to_string())] {
            let refused = client.transfer(from, to, 10).await;
            assert_eq!(comparable(&refused, to), expected);
            refused.expect_problem(404, "account_not_found");
        }
    }

    // A lack of funds is reported before anything about the other account, for any amount.
    for amount in [1_001, 9_007_199_254_740_990, 9_007_199_254_740_991] {
        let expected = comparable(&ada.transfer(from, none, amount).await, none);
        for to in [frozen, closed, dollars, full, open] {
            let refused = ada.transfer(from, to, amount).await;
            assert_eq!(comparable(&refused, to), expected, "{amount}");
            refused.expect_problem(422, "insufficient_funds");
        }
    }
    let mismatched = |to: Uuid| json!({"from": from, "to": to, "amount": 1, "currency": "USD"});
    for to in [dollars, open, none] {
        ada.command("/v1/transfers", mismatched(to)).await.expect_problem(422, "currency_mismatch");
    }
    assert_eq!(auth.app.log().await.events, before.events);
}

#[tokio::test]
async fn owner_may_use_a_new_account_before_it_is_projected() {
    let auth = spawn_auth_app().await;
    let (ada, ben) = (auth.customer("ada"), auth.customer("ben"));
    ada.open_with_balance(0).await;
    // Locking the checkpoints stops the projector.
    let checkpoint_lock = auth.app.lock_checkpoints().await;
    let account = ada.open_with_balance(10).await;
    ada.deposit(account, 1).await.expect(201);
    ben.deposit(account, 1).await.expect_problem(404, "account_not_found");
    ben.transfer(account, ben.open_with_balance(0).await, 1).await.expect_problem(404, "account_not_found");
    ada.get(&format!("/v1/accounts/{account}")).await.expect_problem(404, "account_not_found");
    checkpoint_lock.close().await.unwrap();
    let seen = ada.deposit(account, 1).await.expect(201);
    assert_eq!(ada.get_account(account, seen.position()).await.expect(200).body["balance"], 12);
}

#[tokio::test]
async fn access_is_checked_per_command_within_one_batch() {
    let auth = spawn_auth_app().await;
    let account = account_of_ada(&auth).await;
    let (ada, ben) = (auth.customer("ada"), auth.customer("ben"));
    let responses = auth
        .app
        .run_as_one_batch_after(auth.clerk(), async {
            tokio::join!(ada.deposit(account, 1), ben.deposit(account, 1), ada.withdraw(account, 1), ben.close(account))
        })
        .await;
    responses.0.expect(201);
    responses.1.expect_problem(404, "account_not_found");
    responses.2.expect(201);
    responses.3.expect_problem(404, "account_not_found");
}

#[tokio::test]
async fn idempotency_keys_are_scoped_to_the_caller() {
    let auth = spawn_auth_app().await;
    let (ada, ben) = (auth.customer("ada").with_key("shared"), auth.customer("ben").with_key("shared"));
    let body = json!({"currency": "EUR", "initial_deposit": 4_711});
    let of_ada = ada.open(body.clone()).await.expect(201);
    let of_ben = ben.open(body.clone()).await.expect(201);
    assert_eq!(of_ben.header("idempotency-replayed"), None);
    assert_ne!(of_ben.account_id(), of_ada.account_id());
    assert_eq!(ada.open(body).await.expect(201).body, of_ada.body);
    // A response does not reveal that another caller uses the key.
    ben.with_header("idempotency-key", "x").get("/v1/accounts").await.expect(200);
    let deposit = auth.customer("ada").with_key("pay").deposit(of_ada.account_id(), 1).await.expect(201);
    auth.customer("ben").with_key("pay").deposit(of_ada.account_id(), 1).await.expect_problem(404, "account_not_found");
    drop(deposit);
}

#[tokio::test]
async fn replay_shows_only_accounts_that_are_visible_now() {
    let auth = spawn_auth_app().await;
    let (of_ada, of_dora) =
        (auth.customer("ada").open_with_balance(100).await, auth.customer("dora").open_with_balance(0).await);
    let any_scope = auth.client_with_scope("dora", "accounts:read:any accounts:write:any");
    any_scope.with_key("pay").deposit(of_ada, 1).await.expect(201);
    any_scope.with_key("move").transfer(of_ada, of_dora, 1).await.expect(201);
    let sent = any_scope.with_key("back").transfer(of_dora, of_ada, 1).await.expect(201);
    assert_eq!(sent.body["to"]["balance"], 101);

    let dora = auth.customer("dora");
    dora.with_key("pay").deposit(of_ada, 1).await.expect_problem(404, "account_not_found");
    dora.with_key("move").transfer(of_ada, of_dora, 1).await.expect_problem(404, "account_not_found");
    let replayed = dora.with_key("back").transfer(of_dora, of_ada, 1).await.expect(201);
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    assert_eq!(replayed.body["to"], json!({"account_id": of_ada}));
    assert_eq!(any_scope.with_key("back").transfer(of_dora, of_ada, 1).await.expect(201).body, sent.body);
}
