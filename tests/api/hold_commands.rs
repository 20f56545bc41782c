//! The commands of holds as requests: dry runs, keys, conditions, lists and invalid bodies.

use passbook_testkit::{Response, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::holds::{expect_money, place, wait_until_expired};

#[tokio::test]
async fn dry_runs_of_hold_commands_record_nothing() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, shop) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    let hold = place(&client, account, 600).await;
    let (before, dry) = (app.log().await, client.dry_run());
    let placed = dry.place_hold(account, json!({"amount": 400})).await.expect(200);
    assert_eq!((placed.header("location"), &placed.body["available"]), (None, &json!(0)));
    assert_eq!(placed.body["events"], json!([{"type": "HoldPlaced", "version": 3}]));
    assert_eq!((&placed.body["hold"]["status"], &placed.body["hold"]["version"]), (&json!("active"), &json!(3)));
    let captured = dry.capture_hold(account, hold, json!({"amount": 100})).await.expect(200);
    assert_eq!((&captured.body["balance"], &captured.body["available"]), (&json!(900), &json!(900)));
    let paid = dry.capture_hold(account, hold, json!({"to": shop})).await.expect(200);
    assert_eq!((&paid.body["from"]["balance"], &paid.body["to"]["balance"]), (&json!(400), &json!(600)));
    assert_eq!(paid.body["hold"]["status"], "captured");
    let voided = dry.void_hold(account, hold).await.expect(200);
    assert_eq!((&voided.body["available"], &voided.body["hold"]["status"]), (&json!(1_000), &json!("voided")));
    dry.place_hold(account, json!({"amount": 401})).await.expect_problem(422, "insufficient_funds");
    dry.capture_hold(account, hold, json!({"amount": 601})).await.expect_problem(422, "exceeds_hold");
    dry.void_hold(account, Uuid::now_v7()).await.expect_problem(404, "hold_not_found");
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn keyed_hold_commands_take_effect_once() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, shop) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    #[track_caller]
    fn assert_replayed(first: &Response, again: &Response) {
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        for header in ["etag", "location", "passbook-position"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
        assert!(!first.is_replay() && again.is_replay());
    }
    let place = client.with_key("place");
    let placed = place.place_hold(account, json!({"amount": 600})).await.expect(201);
    let hold = placed.uuid("/hold/hold_id");
    let capture = client.with_key("capture");
    let captured = capture.capture_hold(account, hold, json!({"amount": 100, "final": false})).await.expect(201);
    let pay = client.with_key("pay");
    let paid = pay.capture_hold(account, hold, json!({"amount": 200, "final": false, "to": shop})).await.expect(201);
    let void = client.with_key("void");
    let voided = void.void_hold(account, hold).await.expect(200);
    expect_money(&client, account, &voided, [700, 0, 700]).await;
    let late = client.with_key("late");
    let refused = late.capture_hold(account, hold, json!({})).await.expect_problem(422, "hold_not_active");
    let before = app.log().await;
    for _ in 0..2 {
        assert_replayed(&placed, &place.place_hold(account, json!({"amount": 600})).await);
        assert_replayed(&captured, &capture.capture_hold(account, hold, json!({"final": false, "amount": 100})).await);
        let again = pay.capture_hold(account, hold, json!({"amount": 200, "final": false, "to": shop})).await;
        assert_replayed(&paid, &again);
        assert_replayed(&voided, &void.void_hold(account, hold).await);
        assert!(late.capture_hold(account, hold, json!({})).await.expect_problem(422, "hold_not_active").is_replay());
        expect_money(&client, account, &refused, [700, 0, 700]).await;
        expect_money(&client, shop, &refused, [200, 0, 200]).await;
    }
    for reused in [
        place.place_hold(account, json!({"amount": 601})).await,
        place.capture_hold(account, hold, json!({"amount": 600})).await,
        capture.capture_hold(account, hold, json!({"amount": 100})).await,
        capture.capture_hold(account, hold, json!({"amount": 100, "final": false, "to": shop})).await,
        void.capture_hold(account, hold, json!({})).await,
        void.void_hold(account, Uuid::now_v7()).await,
    ] {
        reused.expect_problem(422, "idempotency_key_reused");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn stale_if_match_stops_hold_commands() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, shop) = (client.open_with_balance(1_000).await, client.open_with_balance(0).await);
    client.if_match("\"1\"").place_hold(account, json!({"amount": 600})).await.expect(201);
    let hold = place(&client, account, 100).await;
    let before = app.log().await;
    let stale = client.if_match("\"1\", \"2\"");
    for refused in [
        stale.place_hold(account, json!({"amount": 1})).await,
        stale.capture_hold(account, hold, json!({"amount": 101})).await,
        stale.capture_hold(account, hold, json!({"to": shop})).await,
        stale.void_hold(account, hold).await,
    ] {
        assert_eq!(refused.expect_problem(412, "version_mismatch").body["current_version"], 3);
    }
    // A hold that was never placed is not found at any version.
    stale.void_hold(account, Uuid::now_v7()).await.expect_problem(404, "hold_not_found");
    assert_eq!(app.log().await, before);
    let captured = client.if_match("\"3.2\"").capture_hold(account, hold, json!({"amount": 1, "final": false})).await;
    captured.expect(201);
    client
        .if_match("\"4\"")
        .capture_hold(account, hold, json!({"amount": 1, "final": false, "to": shop}))
        .await
        .expect(201);
    client.if_match("\"5.1.7\"").void_hold(account, hold).await.expect(200);
}

#[tokio::test]
async fn holds_are_listed_newest_first_by_status() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let mut holds = Vec::new();
    for _ in 0..5 {
        holds.push(place(&client, account, 10).await);
    }
    let short = json!({"amount": 10, "expires_in_seconds": 1});
    holds.push(client.place_hold(account, short).await.expect(201).uuid("/hold/hold_id"));
    client.capture_hold(account, holds[1], json!({})).await.expect(201);
    let last = client.void_hold(account, holds[3]).await.expect(200);
    wait_until_expired(&client, account, holds[5]).await;
    let list = async |query: &str| {
        let path = format!("/v1/accounts/{account}/holds?min_position={}{query}", last.position());
        client.get(&path).await.expect(200)
    };
    let ids = |page: &Response| page.data().iter().map(|hold| hold["hold_id"].clone()).collect::<Vec<_>>();
    let all: Vec<Value> = holds.iter().rev().map(|hold| json!(hold)).collect();
    assert_eq!(ids(&list("").await), all);
    for (status, expected) in
        [("active", vec![4, 2, 0]), ("captured", vec![1]), ("voided", vec![3]), ("expired", vec![5])]
    {
        let page = list(&format!("&status={status}")).await;
        assert_eq!(ids(&page), expected.iter().map(|index| json!(holds[*index])).collect::<Vec<_>>(), "{status}");
        assert!(page.data().iter().all(|hold| hold["status"] == status && hold["account_id"] == json!(account)));
    }
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("&limit=2{after}")).await;
        paged.extend(ids(&page));
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
    for invalid in ["status=open", "limit=0", "after=v1", "after=h", "from=2026-01-01"] {
        let path = format!("/v1/accounts/{account}/holds?{invalid}");
        client.get(&path).await.expect_problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn invalid_hold_requests_are_refused_before_the_state_is_read() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    let hold = place(&client, account, 600).await;
    let before = app.log().await;
    let placing = [
        (json!({}), "malformed_request", "amount"),
        (json!({"amount": 0}), "invalid_amount", "amount"),
        (json!({"amount": 1.5}), "invalid_amount", "amount"),
        (json!({"amount": 1, "currency": "XYZ"}), "invalid_currency", "currency"),
        (json!({"amount": 1, "expires_in_seconds": 0}), "invalid_parameter", "expires_in_seconds"),
        (json!({"amount": 1, "expires_in_seconds": -1}), "invalid_parameter", "expires_in_seconds"),
        (json!({"amount": 1, "expires_in_seconds": 31_536_001}), "invalid_parameter", "expires_in_seconds"),
        (json!({"amount": 1, "expires_in_seconds": i64::MAX}), "invalid_parameter", "expires_in_seconds"),
        (json!({"amount": 1, "expires_in_seconds": 1.5}), "malformed_request", "expires_in_seconds"),
        (json!({"amount": 1, "expires_in_seconds": "60"}), "malformed_request", "expires_in_seconds"),
        (json!({"amount": 1, "expires_at": "2030-01-01T00:00:00Z"}), "malformed_request", "expires_at"),
        (json!({"amount": 1, "reference": "x".repeat(501)}), "invalid_parameter", "reference"),
    ];
    let capturing = [
        (json!({"amount": 0}), "invalid_amount", "amount"),
        (json!({"final": "no"}), "malformed_request", "final"),
        (json!({"final": 0}), "malformed_request", "final"),
        (json!({"to": "shop"}), "invalid_parameter", "to"),
        (json!({"to": account}), "same_account", "to"),
        (json!({"reference": "a\u{0}"}), "invalid_parameter", "reference"),
        (json!({"metadata": {}}), "malformed_request", "metadata"),
    ];
    let voiding = [
        (json!({"reason": "x".repeat(501)}), "invalid_parameter", "reason"),
        (json!({"amount": 1}), "malformed_request", "amount"),
    ];
    let path = |end: &str| format!("/v1/accounts/{account}/holds{end}");
    let (capture, void) = (path(&format!("/{hold}/capture")), path(&format!("/{hold}/void")));
    let all = [(path(""), &placing[..]), (capture, &capturing[..]), (void, &voiding[..])];
    for (path, bodies) in &all {
        for (body, code, field) in *bodies {
            let refused = client.command(path, body.clone()).await.expect_problem(400, code);
            let named = refused.body["errors"][0]["field"].as_str().unwrap_or_default();
            assert_eq!(named, *field, "{body}: {}", refused.body);
        }
    }
    for id in ["x", "17", "%20"] {
        let refused = client.command(&path(&format!("/{id}/void")), json!({})).await;
        assert_eq!(refused.expect_problem(400, "invalid_parameter").body["errors"][0]["field"], "hold_id");
        let refused = client.get(&path(&format!("/{id}"))).await;
        assert_eq!(refused.expect_problem(400, "invalid_parameter").body["errors"][0]["field"], "hold_id");
    }
    client.place_hold(account, json!({"amount": 1, "expires_in_seconds": null, "metadata": null})).await.expect(201);
    assert_eq!(app.log().await.events.len(), before.events.len() + 1);
    client.place_hold(account, json!({"amount": 1, "currency": "USD"})).await.expect_problem(422, "currency_mismatch");
}
