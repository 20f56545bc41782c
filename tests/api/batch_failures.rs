//! A command that the database rejects, or whose account cannot be decoded, fails alone. The other commands of its batch are
//! committed, and none of them is decided on the rejected events.

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, App, Response, audit::audit, spawn_app, spawn_app_in_one_partition};
use serde_json::json;
use sqlx::query_scalar;
use uuid::Uuid;

/// Installs a trigger that rejects an event whose reference is an SQLSTATE, with that code. After three rejections it
/// accepts codes of class 40.
async fn refuse_by_reference(app: &App) {
    app.sabotage(
        "CREATE SEQUENCE refusal;
         GRANT USAGE ON SEQUENCE refusal TO passbook_service;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE
             reference text := NEW.data->>'reference';
         BEGIN
             IF reference ~ '^[0-9A-Z]{5}$' AND (nextval('refusal') <= 3 OR reference !~ '^40') THEN
                 RAISE EXCEPTION 'sabotage' USING ERRCODE = reference;
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
}

async fn deposit_with_reference(client: &ApiClient, account: Uuid, reference: &str) -> Response {
    let body = json!({"amount": 50, "reference": reference});
    client.command(&format!("/v1/accounts/{account}/deposits"), body).await
}

#[tokio::test]
async fn command_rejected_by_the_database_fails_alone() {
    let app = spawn_app().await;
    let client = app.client();
    refuse_by_reference(&app).await;
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    let range_error = deposit_with_reference(&client, account, "22003");
    let keyed = client.with_key("rejected");
    let check_violation = deposit_with_reference(&keyed, account, "23514");
    let accepted = async {
        tokio::join!(
            client.withdraw(account, 101),
            client.transfer(account, other, 30),
            client.withdraw(account, 70),
            deposit_with_reference(&client, other, "accepted"),
            client.deposit(other, 1),
        )
    };
    let ((one, another), (overdrawn, moved, paid, noted, given)) = app
        .run_as_one_batch(async { tokio::join!(async { tokio::join!(range_error, check_violation) }, accepted) })
        .await;
    one.expect_problem(500, "internal_error");
    another.expect_problem(500, "internal_error");
    overdrawn.expect_problem(422, "insufficient_funds");
    for response in [&moved, &paid, &noted, &given] {
        assert_eq!(response.status, 201, "{}", response.body);
    }
    let log = audit(&app).await;
    assert_eq!((log.event_payloads(account).len(), log.event_payloads(other).len(), log.keys), (3, 4, 0));
    let refusals: i64 =
        query_scalar("SELECT last_value FROM refusal").fetch_one(&mut app.database().await).await.unwrap();
    assert!(refusals > 2, "the rejected commands were isolated within a batch");
}

#[tokio::test]
async fn transient_database_errors_are_retried() {
    let app = spawn_app().await;
    let client = app.client();
    refuse_by_reference(&app).await;
    let account = client.open_with_balance(100).await;
    let unlucky = deposit_with_reference(&client, account, "40001");
    let (unlucky, other) = app.run_as_one_batch(async { tokio::join!(unlucky, client.deposit(account, 1)) }).await;
    assert_eq!((unlucky.status, other.status), (201, 201));
    deposit_with_reference(&client, account, "53100").await.expect_problem(503, "storage_unavailable");
    assert_eq!(client.deposit(account, 1).await.expect(201).body["balance"], 152);
    audit(&app).await;
}

#[tokio::test]
async fn account_that_cannot_be_decoded_fails_only_its_commands() {
    let mut app = spawn_app_in_one_partition().await;
    let client = app.client();
    let mut unreadable = vec![];
    for _ in 0..3 {
        unreadable.push(client.open_with_balance(100).await);
    }
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    audit(&app).await;
    app.tamper(
        "UPDATE event SET data = '[]' WHERE position = 1;
         UPDATE event SET data = '{}' WHERE position = 2;
         UPDATE event SET version = 2 WHERE position = 3",
    )
    .await;
    app.restart().await;
    let client = app.client();
    let failing = join_all(unreadable.iter().map(async |account_id| {
        let keyed = client.with_key(&account_id.to_string());
        tokio::join!(
            keyed.deposit(*account_id, 1),
            client.transfer(account, *account_id, 1),
            client.transfer(*account_id, account, 1)
        )
    }));
    let readable = async { tokio::join!(client.withdraw(account, 99), client.transfer(account, other, 1)) };
    let (failed, (paid, moved)) = app.run_as_one_batch(async { tokio::join!(failing, readable) }).await;
    for (deposited, received, sent) in failed {
        deposited.expect_problem(500, "internal_error");
        received.expect_problem(500, "internal_error");
        sent.expect_problem(500, "internal_error");
    }
    assert_eq!((paid.status, moved.status), (201, 201));
    let log = app.log().await;
    assert_eq!(
        (log.head.position, log.keys),
        (9, 0),
        "five openings, the opening that blocked the executor, and the accepted commands"
    );
}
