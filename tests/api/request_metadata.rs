//! Request ids and the metadata of events: who caused an event, by which request and by which command.

use passbook_testkit::{log::Event, response::is_id, spawn_app};
use serde_json::{Value, json};

#[tokio::test]
async fn valid_request_id_is_returned_and_others_are_replaced() {
    let app = spawn_app().await;
    let sent = |id: &str| app.client().with_header("x-request-id", id);
    for valid in ["17", "a/b?c=\"d\"", &"i".repeat(128)] {
        assert_eq!(sent(valid).get("/livez").await.header("x-request-id"), Some(valid));
        assert_eq!(sent(valid).get("/nowhere").await.expect_problem(404, "not_found").body["request_id"], valid);
    }
    for invalid in ["", "a b", "clé", &"i".repeat(129)] {
        let response = sent(invalid).get("/livez").await.expect(200);
        assert!(is_id(&json!(response.header("x-request-id"))), "{invalid}: {:?}", response.headers);
    }
    let made = [app.client().get("/livez").await, app.client().get("/livez").await];
    assert_ne!(made[0].header("x-request-id"), made[1].header("x-request-id"));
}

fn metadata(event: &Event) -> Value {
    serde_json::from_str(&event.metadata).unwrap()
}

#[tokio::test]
async fn event_metadata_names_user_request_and_command() {
    let app = spawn_app().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let opened = app.log().await.events.iter().map(metadata).collect::<Vec<_>>();
    client.with_header("x-request-id", "visit-17").transfer(from, to, 5).await.expect(201);
    let another = client.with_header("x-request-id", "\"invalid id\"").deposit(to, 5).await.expect(201);
    let events = app.log().await.events;
    let [sent, received, deposited] = [2, 3, 4].map(|index| metadata(&events[index]));
    let cause = &sent["causation_id"];
    assert!(is_id(cause), "{sent}");
    assert_eq!(sent, json!({"user_id": "anonymous", "correlation_id": "visit-17", "causation_id": cause}));
    assert_eq!(received, sent, "both events have the metadata of one command");
    assert_eq!(deposited["correlation_id"].as_str(), another.header("x-request-id"));
    assert!(is_id(&deposited["correlation_id"]), "{deposited}");
    for other in opened.iter().chain([&deposited]) {
        assert_ne!(other["causation_id"], *cause);
    }
}
