//! The commands on webhooks: registration, pause, resume, deletion, replay, rotation and test.

use std::{fs, time::Duration};

use passbook_testkit::{App, audit::audit, eventually, spawn_app};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{query_as, query_scalar};
use standardwebhooks::Webhook;
use uuid::Uuid;

use crate::webhook_receiver::{
    Received, Receiver, first_versions, register, register_with, spawn_sending_app,
    spawn_sending_app_with_one_partition, wait_for_member, webhook,
};

/// Whether a secret has made one of the signatures of a request.
fn is_signed_by(received: &Received, secret: &str) -> bool {
    Webhook::new(secret).unwrap().verify(&received.body, &received.headers).is_ok()
}

/// A wrapping key that the key file of an app does not have.
const NEW_KEY: &str = "dGhlIHNlY29uZCBrZXkgb2YgdGhlc2UgdGVzdHMhISE=\n";

#[tokio::test]
async fn a_registration_shows_the_secret_this_once() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let body = json!({"url": receiver.url, "types": ["MoneyWithdrawn", "MoneyDeposited"], "owner": "ada"});
    let registered = client.command("/v1/webhooks", body.clone()).await.expect(201);
    assert_eq!(registered.header("location").unwrap(), format!("/v1/webhooks/{}", registered.uuid("/webhook_id")));
    assert_eq!(registered.header("cache-control"), Some("no-store"));
    assert!(registered.text("/secret").starts_with("whsec_"));
    let mut expected = registered.body.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(
        (&expected["types"], &expected["state"]),
        (&json!(["MoneyDeposited", "MoneyWithdrawn"]), &json!("active"))
    );
    let id = registered.uuid("/webhook_id");
    let shown = webhook(&client, id).await;
    assert_eq!((&shown["url"], shown.get("secret")), (&expected["url"], None));
    let page = client.get("/v1/webhooks").await.expect(200);
    assert_eq!((page.data()[0]["webhook_id"].as_str(), &page.body["next"]), (Some(&*id.to_string()), &Value::Null));
    client.command("/v1/webhooks", body).await.expect_problem(409, "webhook_exists");
    let other = register_with(&client, json!({"url": receiver.url})).await;
    let first = client.get("/v1/webhooks?limit=1").await.expect(200);
    let second = client.get(&format!("/v1/webhooks?limit=1&after={}", first.text("/next"))).await.expect(200);
    let ids: Vec<&str> = [&first, &second].map(|page| page.data()[0]["webhook_id"].as_str().unwrap()).to_vec();
    assert_eq!(ids, [id.to_string(), other.to_string()]);
}

#[tokio::test]
async fn invalid_registrations_are_refused() {
    let app = spawn_app().await;
    let client = app.client();
    client.open_with_balance(1).await;
    for (body, field) in [
        (json!({"url": "http://example.com/"}), "url"),
        (json!({"url": "https://user@example.com/"}), "url"),
        (json!({"url": "https://127.0.0.1/"}), "url"),
        (json!({"url": "https://localhost/"}), "url"),
        (json!({"url": "https://10.1.2.3/"}), "url"),
        (json!({"url": "https://169.254.169.254/latest"}), "url"),
        (json!({"url": "https://[::1]/"}), "url"),
        (json!({"url": "https://[::ffff:127.0.0.1]/"}), "url"),
        (json!({"url": "https://0.0.0.0/"}), "url"),
        (json!({"url": format!("https://example.com/{}", "x".repeat(3_000))}), "url"),
        (json!({"url": "https://8.8.8.8/", "types": ["Nothing"]}), "types"),
        (json!({"url": "https://8.8.8.8/", "types": vec!["MoneyDeposited"; 65]}), "types"),
        (json!({"url": "https://8.8.8.8/", "account_id": "7"}), "account_id"),
        (json!({"url": "https://8.8.8.8/", "owner": ""}), "owner"),
        (json!({"url": "https://8.8.8.8/", "after": "x"}), "after"),
        (json!({"url": "https://8.8.8.8/", "after": "99"}), "after"),
        (json!({"url": "https://8.8.8.8/", "after": "1-00000000"}), "after"),
    ] {
        let problem = client.command("/v1/webhooks", body.clone()).await.expect_problem(400, "invalid_parameter");
        assert_eq!(problem.text("/errors/0/field"), field, "{body}");
    }
    client
        .command("/v1/webhooks", json!({"url": "https://8.8.8.8/", "kind": 1}))
        .await
        .expect_problem(400, "malformed_request");
    let keyed = client.with_key("one").post("/v1/webhooks", r#"{"url":"https://8.8.8.8/"}"#).await;
    keyed.expect_problem(400, "invalid_idempotency_key");
    client
        .post("/v1/webhooks?dry_run=true", r#"{"url":"https://8.8.8.8/"}"#)
        .await
        .expect_problem(400, "invalid_parameter");
    let unknown = Uuid::now_v7();
    for path in ["pause", "resume", "rotate-secret", "test"] {
        client.command(&format!("/v1/webhooks/{unknown}/{path}"), json!({})).await.expect_problem(404, "not_found");
    }
    client.get(&format!("/v1/webhooks/{unknown}/deliveries")).await.expect_problem(404, "not_found");
    client.send(Method::DELETE, &format!("/v1/webhooks/{unknown}"), "").await.expect_problem(404, "not_found");
    assert_eq!(app.log().await.events.len(), 1, "no refusal is recorded");
}

#[tokio::test]
async fn the_number_of_webhooks_is_limited() {
    let app = spawn_sending_app().await;
    let client = app.client();
    for number in 0..100 {
        register_with(&client, json!({"url": format!("http://127.0.0.1:1/{number}")})).await;
    }
    client.command("/v1/webhooks", json!({"url": "http://127.0.0.1:1/"})).await.expect_problem(422, "limit_exceeded");
}

#[tokio::test]
async fn a_paused_webhook_continues_where_it_stopped() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    receiver.wait_for_version(account, 1).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    let paused = client.command(&format!("/v1/webhooks/{id}/pause"), json!({})).await.expect(200);
    assert_eq!(paused.body["state"], "paused");
    client.deposit(account, 1).await.expect(201);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.received().len(), 1, "nothing is sent while it is paused");
    let resumed = client.command(&format!("/v1/webhooks/{id}/resume"), json!({})).await.expect(200);
    assert_eq!(resumed.body["state"], "active");
    receiver.wait_for_version(account, 2).await;
    assert_eq!(first_versions(&receiver.received()), [1, 2]);
    // A second time changes nothing and records nothing.
    client.command(&format!("/v1/webhooks/{id}/resume"), json!({})).await.expect(200);
    let log = audit(&app).await;
    let changes: Vec<&str> =
        log.events.iter().filter(|event| event.stream_id == id).map(|event| &*event.event_type).collect();
    assert_eq!(changes, ["WebhookRegistered", "WebhookPaused", "WebhookResumed"]);
}

#[tokio::test]
async fn a_deleted_webhook_gets_nothing_and_can_be_registered_again() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let id = register(&client, &receiver.url).await;
    let account = client.open_with_balance(1).await;
    receiver.wait_for_version(account, 1).await;
    client.send(Method::DELETE, &format!("/v1/webhooks/{id}"), "").await.expect(204);
    client.get(&format!("/v1/webhooks/{id}")).await.expect_problem(404, "not_found");
    client.deposit(account, 1).await.expect(201);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.received().len(), 1);
    let again = register(&client, &receiver.url).await;
    assert_ne!(again, id);
    receiver.wait_for_version(account, 2).await;
    assert_eq!(audit(&app).await.events.iter().filter(|event| event.event_type == "WebhookDeleted").count(), 1);
}

#[tokio::test]
async fn a_replay_sends_events_again_from_any_cursor() {
    let (app, receiver) = (spawn_sending_app_with_one_partition().await, Receiver::start().await);
    let client = app.client();
    let account = client.open_with_balance(1).await;
    client.deposit(account, 1).await.expect(201);
    let id = register(&client, &receiver.url).await;
    receiver.wait_for_version(account, 2).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    let path = format!("/v1/webhooks/{id}/replay");
    client.command(&path, json!({"after": "0"})).await.expect(200);
    receiver.wait_for(4).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    let first = client.get("/v1/events?limit=1").await.expect(200);
    client.command(&path, json!({"after": first.text("/next")})).await.expect(200);
    receiver.wait_for(5).await;
    wait_for_member(&client, id, "lag_events", &json!(0)).await;
    let versions: Vec<i64> = receiver.received().iter().map(|received| received.version()).collect();
    assert_eq!(versions, [1, 2, 1, 2, 2]);
    client.command(&path, json!({"after": "99"})).await.expect_problem(400, "invalid_parameter");
    client.command(&path, json!({"after": "1-00000000"})).await.expect_problem(400, "invalid_parameter");
    client.command(&path, json!({})).await.expect_problem(400, "malformed_request");
    // A paused one stays so.
    client.command(&format!("/v1/webhooks/{id}/pause"), json!({})).await.expect(200);
    assert_eq!(client.command(&path, json!({"after": "0"})).await.expect(200).body["state"], "paused");
    audit(&app).await;
}

#[tokio::test]
async fn both_secrets_sign_after_a_rotation() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let registered = client.command("/v1/webhooks", json!({"url": receiver.url})).await.expect(201);
    let (id, former) = (registered.uuid("/webhook_id"), registered.text("/secret").to_owned());
    let account = client.open_with_balance(1).await;
    receiver.wait_for_version(account, 1).await;
    let rotated = client.command(&format!("/v1/webhooks/{id}/rotate-secret"), json!({})).await.expect(200);
    let secret = rotated.text("/secret").to_owned();
    assert_eq!(rotated.header("cache-control"), Some("no-store"));
    client.deposit(account, 1).await.expect(201);
    let received = receiver.wait_for_version(account, 2).await;
    let (before, after) = (&received[0], &received[received.len() - 1]);
    assert_eq!([is_signed_by(before, &former), is_signed_by(before, &secret)], [true, false]);
    assert_eq!([is_signed_by(after, &former), is_signed_by(after, &secret)], [true, true]);
    app.tamper("UPDATE webhook SET former_secret_until = clock_timestamp() - interval '1 s', generation = generation + 1, claimed_until = NULL").await;
    // The instance that delivers notices the change with a delay.
    eventually("a delivery signed by the new secret alone", async || {
        let version = client.deposit(account, 1).await.expect(201).body["version"].as_i64().unwrap();
        let received = receiver.wait_for_version(account, version).await;
        let last = &received[received.len() - 1];
        assert!(is_signed_by(last, &secret));
        (!is_signed_by(last, &former)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn secrets_are_in_no_table_in_clear() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let registered = client.command("/v1/webhooks", json!({"url": receiver.url})).await.expect(201);
    let secret = registered.text("/secret").to_owned();
    let id = registered.uuid("/webhook_id");
    client.command(&format!("/v1/webhooks/{id}/test"), json!({})).await.expect(200);
    let tables: Vec<String> = query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()")
        .fetch_all(&mut app.database().await)
        .await
        .unwrap();
    assert!(tables.iter().any(|table| table == "webhook"));
    let base64 = secret.strip_prefix("whsec_").unwrap();
    for table in tables {
        let found = format!(
            "SELECT count(*) FROM {table} AS t
             WHERE position('{base64}' IN t::text) > 0 OR position(encode(decode('{base64}', 'base64'), 'hex') IN t::text) > 0"
        );
        let found: i64 = query_scalar(sqlx::AssertSqlSafe(found)).fetch_one(&mut app.database().await).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
}

#[tokio::test]
async fn a_test_sends_an_event_that_is_not_in_the_log() {
    let (app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let client = app.client();
    let registered = client.command("/v1/webhooks", json!({"url": receiver.url})).await.expect(201);
    let id = registered.uuid("/webhook_id");
    let tested = client.command(&format!("/v1/webhooks/{id}/test"), json!({})).await.expect(200);
    assert_eq!((&tested.body["last_status"], &tested.body["last_error"]), (&json!(204), &Value::Null));
    let received = receiver.wait_for(1).await;
    assert_eq!((received[0].event_type(), received[0].account()), ("WebhookTest".to_owned(), id));
    assert!(is_signed_by(&received[0], registered.text("/secret")));
    let attempts = client.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200);
    assert_eq!(
        (&attempts.data()[0]["event_type"], &attempts.data()[0]["position"]),
        (&json!("WebhookTest"), &Value::Null)
    );
    assert_eq!(app.log().await.events.len(), 1);
    let nowhere = register_with(&client, json!({"url": "http://127.0.0.1:1/"})).await;
    let tested = client.command(&format!("/v1/webhooks/{nowhere}/test"), json!({})).await.expect(200);
    assert_eq!(tested.body["last_status"], Value::Null);
    assert!(tested.text("/last_error").contains("connection"), "{}", tested.body);
}

#[tokio::test]
async fn a_former_wrapping_key_can_be_removed() {
    let (mut app, receiver) = (spawn_sending_app().await, Receiver::start().await);
    let registered = app.client().command("/v1/webhooks", json!({"url": receiver.url})).await.expect(201);
    let (id, former) = (registered.uuid("/webhook_id"), registered.text("/secret").to_owned());
    let rotate = format!("/v1/webhooks/{id}/rotate-secret");
    let secret = app.client().command(&rotate, json!({})).await.expect(200).text("/secret").to_owned();
    let sealed = async |app: &App| {
        let sealed = "SELECT secret, former_secret FROM webhook";
        query_as::<_, (Vec<u8>, Vec<u8>)>(sealed).fetch_one(&mut app.database().await).await.unwrap()
    };
    let before = sealed(&app).await;
    let file = app.config().keys.key_file.clone().unwrap();
    let former_key = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{NEW_KEY}{former_key}")).unwrap();
    app.restart().await;
    eventually("secrets under the new key", async || {
        let now = sealed(&app).await;
        (now.0 != before.0 && now.1 != before.1).then_some(())
    })
    .await;
    fs::write(&file, NEW_KEY).unwrap();
    app.restart().await;
    let account = app.client().open_with_balance(1).await;
    let received = receiver.wait_for_version(account, 1).await;
    assert!(is_signed_by(&received[0], &secret) && is_signed_by(&received[0], &former));
}

#[tokio::test]
async fn without_a_key_file_no_webhook_is_registered() {
    let (database, mut config) = passbook_testkit::app::empty_database(&["--webhooks-allow-private"]).await;
    config.keys.key_file = None;
    let app = passbook_testkit::app::start_app(config, database).await;
    let refused = app.client().command("/v1/webhooks", json!({"url": "http://127.0.0.1:1/"})).await;
    let problem = refused.expect_problem(503, "storage_unavailable");
    assert!(problem.text("/detail").contains("PASSBOOK_KEY_FILE"), "{}", problem.text("/detail"));
}

#[tokio::test]
async fn old_attempts_are_deleted_in_slices() {
    let mut app = spawn_sending_app().await;
    app.tamper(
        "INSERT INTO webhook_delivery (partition, delivery_id, webhook_id, event_id, event_type, attempted_at, duration_ms)
         SELECT 0, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || substr(replace(gen_random_uuid()::text, '-', ''), 13))::uuid,
                gen_random_uuid(), gen_random_uuid(), 'MoneyDeposited', at, 1
         FROM generate_series(1, 2500) AS number
         CROSS JOIN LATERAL (SELECT now() - (CASE WHEN number <= 2400 THEN 31 ELSE 29 END) * interval '1 day') AS made(at)",
    )
    .await;
    app.restart().await;
    passbook_testkit::eventually("only attempts of the last 30 days", async || {
        let left: i64 =
            query_scalar("SELECT count(*) FROM webhook_delivery").fetch_one(&mut app.database().await).await.unwrap();
        (left == 100).then_some(())
    })
    .await;
}
