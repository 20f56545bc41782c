//! Endpoints that fail: each event is sent until it is accepted, in the order of its account, and no other endpoint waits.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use passbook_testkit::eventually;
use serde_json::json;
use sqlx::query_scalar;
use tokio::{io::AsyncWriteExt, net::TcpListener};
use uuid::Uuid;

use crate::webhook_receiver::{
    Received, Receiver, first_versions, register, spawn_sending_app, wait_for_member, webhook,
};

/// Answers each event with this response once, and accepts it then.
fn failing_once(failure: impl Fn() -> Response + Send + Sync + 'static) -> impl Fn(&Received, usize) -> Response {
    let failed: Arc<Mutex<HashSet<String>>> = Arc::default();
    move |received, _| match failed.lock().unwrap().insert(received.header("webhook-id").to_owned()) {
        true => failure(),
        false => StatusCode::OK.into_response(),
    }
}

/// Each event is sent twice, and in the order of its account, to an endpoint that fails once for each.
async fn assert_retried(failure: impl Fn() -> Response + Send + Sync + 'static) {
    let (app, receiver) = (spawn_sending_app().await, Receiver::answering(failing_once(failure)).await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    client.deposit(account, 1).await.expect(201);
    client.deposit(account, 1).await.expect(201);
    let settled = wait_for_member(&client, id, "lag_events", &json!(0)).await;
    assert_eq!((&settled["state"], &settled["failing_since"]), (&json!("active"), &json!(null)));
    let versions: Vec<i64> = receiver.of_account(account).iter().map(|received| received.version()).collect();
    assert_eq!(versions, [1, 1, 2, 2, 3, 3]);
}

#[tokio::test]
async fn an_error_is_retried() {
    assert_retried(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let elsewhere = Receiver::start().await;
    let location = elsewhere.url.clone();
    assert_retried(move || (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location.clone())]).into_response())
        .await;
    assert_eq!(elsewhere.received().len(), 0);
}

#[tokio::test]
async fn retry_after_is_respected() {
    assert_retried(|| (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "20")]).into_response()).await;
}

#[tokio::test]
async fn a_response_without_end_is_not_read() {
    let endless = || {
        let chunk = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
        let body = stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        (StatusCode::OK, Body::from_stream(body)).into_response()
    };
    let (app, receiver) = (spawn_sending_app().await, Receiver::answering(move |_, _| endless()).await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    client.deposit(account, 1).await.expect(201);
    receiver.wait_for_version(account, 2).await;
    let settled = wait_for_member(&client, id, "lag_events", &json!(0)).await;
    assert_eq!(settled["last_status"], 200);
}

#[tokio::test]
async fn connections_that_hang_or_are_reset_are_retried() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let accepting: std::net::SocketAddr = receiver.url["http://".len()..].split('/').next().unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            match number % 3 {
                0 => kept.push(stream),
                1 => stream.set_zero_linger().unwrap(),
                _ => {
                    let mut server = tokio::net::TcpStream::connect(accepting).await.unwrap();
                    tokio::spawn(async move {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
                        let _ = stream.shutdown().await;
                    });
                }
            }
        }
    });
    let client = app.client();
    let id = register(&client, &url).await;
    let account = client.open_with_balance(1).await;
    client.deposit(account, 1).await.expect(201);
    receiver.wait_for_version(account, 2).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    assert_eq!(first_versions(&receiver.of_account(account)), [1, 2]);
    let errors = eventually("three attempts", async || {
        let page = client.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200);
        let errors: Vec<String> =
            page.data().iter().filter_map(|attempt| Some(attempt["error"].as_str()?.to_owned())).collect();
        (errors.len() >= 2).then_some(errors)
    })
    .await;
    assert!(errors.iter().any(|error| error.contains("no response within")), "{errors:?}");
}

#[tokio::test]
async fn gone_pauses_at_once() {
    let (app, receiver) =
        (spawn_sending_app().await, Receiver::answering(|_, _| StatusCode::GONE.into_response()).await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    let paused = wait_for_member(&client, id, "state", &json!("paused")).await;
    assert_eq!(paused["last_status"], 410);
    assert_eq!(receiver.of_account(account).len(), 1);
    let log = app.log().await;
    let last = log.events.iter().find(|event| event.event_type == "WebhookPaused").unwrap();
    assert_eq!(last.json(), json!({"cause": "gone"}));
    assert!(last.metadata.contains("passbook:webhooks"), "{}", last.metadata);
}

/// Refuses the events of an account until the flag is set.
fn failing_until_healed(
    account: Uuid,
    is_healed: &Arc<AtomicBool>,
) -> impl Fn(&Received, usize) -> Response + Send + Sync + 'static {
    let is_healed = Arc::clone(is_healed);
    move |received, _| match received.account() == account && !is_healed.load(Ordering::Relaxed) {
        true => StatusCode::BAD_GATEWAY.into_response(),
        false => StatusCode::OK.into_response(),
    }
}

#[tokio::test]
async fn an_account_that_fails_holds_up_no_other_account() {
    let app = spawn_sending_app().await;
    let client = app.client();
    let (failing, healthy) = (client.open_with_balance(1).await, client.open_with_balance(1).await);
    let is_healed = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::answering(failing_until_healed(failing, &is_healed)).await;
    let id = register(&client, &receiver.url).await;
    for _ in 0..20 {
        client.deposit(failing, 1).await.expect(201);
        client.deposit(healthy, 1).await.expect(201);
    }
    receiver.wait_for_version(healthy, 21).await;
    assert!(receiver.of_account(failing).iter().all(|received| received.version() == 1));
    let waiting = wait_for_member(&client, id, "lag_events", &json!(21)).await;
    assert_eq!(waiting["state"], "active");
    assert!(waiting["failing_since"].is_string(), "{waiting}");
    is_healed.store(true, Ordering::Relaxed);
    receiver.wait_for_version(failing, 21).await;
    assert_eq!(first_versions(&receiver.of_account(failing)), (1..=21).collect::<Vec<_>>());
    let versions: Vec<i64> = receiver.of_account(healthy).iter().map(|received| received.version()).collect();
    assert_eq!(versions, (1..=21).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dead_endpoint_slows_no_other() {
    let app = spawn_sending_app().await;
    let client = app.client();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = register(&client, &format!("http://{}/", silent.local_addr().unwrap())).await;
    let receiver = Receiver::start().await;
    register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    for _ in 0..50 {
        client.deposit(account, 1).await.expect(201);
    }
    receiver.wait_for_version(account, 51).await;
    assert_eq!(receiver.received().len(), 51);
    assert!(webhook(&client, dead).await["lag_events"].as_i64().unwrap() > 0);
}

#[tokio::test]
async fn parked_accounts_survive_a_restart() {
    let mut app = spawn_sending_app().await;
    let client = app.client();
    let (failing, healthy) = (client.open_with_balance(1).await, client.open_with_balance(1).await);
    let is_healed = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::answering(failing_until_healed(failing, &is_healed)).await;
    let id = register(&client, &receiver.url).await;
    client.deposit(failing, 1).await.expect(201);
    client.deposit(healthy, 1).await.expect(201);
    receiver.wait_for_version(healthy, 2).await;
    wait_for_member(&client, id, "lag_events", &json!(2)).await;
    app.restart().await;
    is_healed.store(true, Ordering::Relaxed);
    app.client().deposit(failing, 1).await.expect(201);
    receiver.wait_for_version(failing, 3).await;
    assert_eq!(first_versions(&receiver.of_account(failing)), [1, 2, 3]);
    let versions: Vec<i64> = receiver.of_account(healthy).iter().map(|received| received.version()).collect();
    assert_eq!(versions, [1, 2], "what was delivered is not sent again");
}

#[tokio::test]
async fn events_behind_a_recovered_one_survive_a_restart() {
    let mut app = spawn_sending_app().await;
    let client = app.client();
    let (failing, healthy) = (client.open_with_balance(1).await, client.open_with_balance(1).await);
    let (is_healed, is_restarted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let restarted = Arc::clone(&is_restarted);
    let holds = move |received: &Received| {
        received.account() == failing && received.version() == 2 && !restarted.load(Ordering::Relaxed)
    };
    let receiver = Receiver::holding(holds, failing_until_healed(failing, &is_healed)).await;
    let id = register(&client, &receiver.url).await;
    for _ in 0..2 {
        client.deposit(failing, 1).await.expect(201);
    }
    client.deposit(healthy, 1).await.expect(201);
    receiver.wait_for_version(healthy, 2).await;
    // The cursor is now behind all events, and those of the failing account are parked.
    wait_for_member(&client, id, "lag_events", &json!(3)).await;
    is_healed.store(true, Ordering::Relaxed);
    receiver.wait_for_version(failing, 2).await;
    let path = format!("/v1/webhooks/{id}/deliveries");
    eventually("the stored success", async || {
        let attempts = client.get(&path).await.expect(200);
        let accepted = attempts.data().iter().filter(|attempt| attempt["status"] == 200).count();
        (accepted == 3).then_some(())
    })
    .await;
    app.stop().await;
    is_restarted.store(true, Ordering::Relaxed);
    app.start_again().await;
    receiver.wait_for_version(failing, 3).await;
    assert_eq!(first_versions(&receiver.of_account(failing)), [1, 2, 3]);
}

#[tokio::test]
async fn an_event_that_fails_for_three_days_makes_the_endpoint_failing_until_resume() {
    let is_healed = Arc::new(Mutex::new(false));
    let healed = Arc::clone(&is_healed);
    let receiver = Receiver::answering(move |_, _| match *healed.lock().unwrap() {
        true => StatusCode::OK.into_response(),
        false => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
    .await;
    let app = spawn_sending_app().await;
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    client.deposit(account, 1).await.expect(201);
    let failing = eventually("a parked account", async || {
        let waiting: i64 =
            query_scalar("SELECT count(*) FROM webhook_parked").fetch_one(&mut app.database().await).await.unwrap();
        (waiting == 1).then_some(())
    });
    failing.await;
    // The pause of an instance that starts is measured from the stored time.
    let mut app = app;
    app.stop().await;
    app.tamper("UPDATE webhook_parked SET failing_since = failing_since - interval '3 days', next_attempt_at = clock_timestamp()").await;
    app.start_again().await;
    let client = app.client();
    let failing = wait_for_member(&client, id, "state", &json!("failing")).await;
    assert_eq!((&failing["last_status"], failing["failing_since"].is_string()), (&json!(500), true));
    let attempts = receiver.received().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.received().len(), attempts, "a failing endpoint waits");
    *is_healed.lock().unwrap() = true;
    let resumed = client.command(&format!("/v1/webhooks/{id}/resume"), json!({})).await.expect(200);
    assert_eq!((&resumed.body["state"], &resumed.body["failing_since"]), (&json!("active"), &json!(null)));
    receiver.wait_for_version(account, 2).await;
    assert_eq!(first_versions(&receiver.of_account(account)), [1, 2]);
}
