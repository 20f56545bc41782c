//! Read your own writes: `min_position`, and the position that every read-model response reports.

use passbook_testkit::{Response, audit::audit, eventually, spawn_app, spawn_app_in_one_partition, spawn_app_with};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn read_with_min_position_sees_the_write() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    for balance in 1..=20 {
        let deposited = client.deposit(account, 1).await.expect(201);
        assert_eq!(deposited.position(), deposited.text("/position"));
        let seen = client.get_account(account, deposited.position()).await.expect(200);
        assert_eq!(seen.body["balance"], balance);
        assert!(seen.position().parse::<i64>().unwrap() > balance);
    }
}

#[tokio::test]
async fn read_model_responses_report_the_position_of_their_view() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let moved = client.transfer(from, to, 5).await.expect(201);
    let transfer = moved.uuid("/transfer_id");
    for path in [
        format!("/v1/accounts/{from}"),
        format!("/v1/accounts/{from}/transactions"),
        "/v1/accounts".to_owned(),
        format!("/v1/transfers/{transfer}"),
    ] {
        let seen = client.get(&format!("{path}?min_position=4")).await.expect(200);
        assert_eq!(seen.position(), "4", "{path}");
    }
}

#[tokio::test]
async fn min_position_beyond_the_head_gives_503_after_two_seconds() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    let paths = [
        format!("/v1/accounts/{account}?min_position=2"),
        format!("/v1/accounts/{account}/transactions?min_position=9223372036854775807"),
        "/v1/accounts?min_position=2".to_owned(),
        format!("/v1/transfers/{account}?min_position=2"),
    ];
    let started = std::time::Instant::now();
    for response in futures_util::future::join_all(paths.iter().map(|path| client.get(path))).await {
        response.expect_problem(503, "projection_behind");
    }
    assert!(started.elapsed().as_millis() >= 2_000, "the reads waited");
    // The read waits until a concurrent command reaches the position.
    let (seen, _) = tokio::join!(client.get_account(account, "2"), client.deposit(account, 1));
    assert_eq!(seen.expect(200).body["balance"], 11);
}

#[tokio::test]
async fn stopped_view_serves_positions_that_it_has_read() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    client.get_account(account, "1").await.expect(200);
    app.sabotage("ALTER TABLE account_transaction ADD CONSTRAINT broken CHECK (version < 2)").await;
    client.deposit(account, 1).await.expect(201);
    let history = |position| format!("/v1/accounts/{account}/transactions?min_position={position}");
    client.get(&history(2)).await.expect_problem(503, "projection_behind");
    let seen = client.get(&history(1)).await.expect(200);
    assert_eq!((&seen.data()[0]["balance_after"], seen.position()), (&json!(10), "1"));
    app.sabotage("ALTER TABLE account_transaction DROP CONSTRAINT broken").await;
    let seen = eventually("the recovered view", async || {
        let seen = client.get(&history(2)).await;
        (seen.status == 200).then_some(seen)
    })
    .await;
    assert_eq!(seen.data()[0]["balance_after"], 11);
    passbook_testkit::audit::audit(&app).await;
}

#[tokio::test]
async fn malformed_min_position_is_refused() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(10).await;
    for malformed in ["", "x", "-1", "1.0", "%2B1", "0x1", "9223372036854775808", "1&min_position=1"] {
        for path in [format!("/v1/accounts/{account}"), "/v1/accounts".to_owned()] {
            let response: Response = app.client().get(&format!("{path}?min_position={malformed}")).await;
            response.expect_problem(400, "invalid_parameter");
        }
    }
}

#[tokio::test]
async fn projections_report_position_and_lag() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(10).await;
    client.get_account(account, "1").await.expect(200);
    let list = eventually("views at position 1", async || {
        let list = client.send(Method::GET, "/v1/projections", "").await.expect(200);
        list.data().iter().all(|view| view["position"] == "1").then_some(list)
    })
    .await;
    let names: Vec<&str> = list.data().iter().map(|view| view["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"accounts") && names.contains(&"transactions"), "{names:?}");
    for view in list.data() {
        assert_eq!(
            (&view["state"], &view["lag_events"], &view["lag_seconds"]),
            (&json!("live"), &json!(0), &json!(0.0))
        );
        assert!(view["schema_version"].is_i64(), "{view}");
    }
}

#[tokio::test]
async fn refusals_carry_the_position_of_the_state_that_refuses() {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(1).await;
    let other = client.open_with_balance(1).await;
    client.freeze(other).await.expect(200);
    let refusals = [
        client.deposit(app.new_account_id(), 1).await.expect_problem(404, "account_not_found"),
        client.open(json!({"currency": "EUR", "account_id": account})).await.expect_problem(409, "account_exists"),
        client.if_match("\"7\"").deposit(account, 1).await.expect_problem(412, "version_mismatch"),
        client.withdraw(account, 5).await.expect_problem(422, "insufficient_funds"),
        client.transfer(account, other, 1).await.expect_problem(422, "account_frozen"),
        client.dry_run().withdraw(account, 5).await.expect_problem(422, "insufficient_funds"),
    ];
    for refused in refusals {
        assert_eq!(refused.header("passbook-position"), Some("3"), "{}", refused.body);
    }
    client.with_key("one").deposit(account, 1).await.expect(201);
    let reused = client.with_key("one").deposit(account, 2).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(reused.position(), "4");
    let behind = client.get_account(account, "5").await.expect_problem(503, "projection_behind");
    assert_eq!(behind.position(), "4");
}

#[tokio::test]
async fn refused_transfer_carries_the_positions_of_both_partitions() {
    let app = spawn_app_with(&["--partitions=2"]).await;
    let client = app.client();
    let in_partition = |partition| {
        let (partitions, mut n) = (app.partitions(), 0..);
        n.find_map(|n| Some(Uuid::from_u128(n)).filter(|id| partitions.partition_of(*id) == partition)).unwrap()
    };
    let [from, to] = [in_partition(0), in_partition(1)];
    for account_id in [from, to] {
        client.open(json!({"currency": "EUR", "account_id": account_id})).await.expect(201);
    }
    let refused = client.with_key("one").transfer(from, to, 5).await.expect_problem(422, "insufficient_funds");
    assert_eq!(refused.position(), "0:1,1:1");
    client.deposit(from, 5).await.expect(201);
    let again = client.with_key("one").transfer(from, to, 5).await.expect_problem(422, "insufficient_funds");
    assert_eq!((again.position(), again.is_replay()), ("0:2,1:1", true));
    audit(&app).await;
}
