//! What a superuser changes behind the bank's back is found and named by `verify`; what the service itself could try is
//! refused by the database.

use passbook_audit::{Finding, Report, verify};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{App, eventually, spawn_app, spawn_app_in_one_partition_with};

/// A bank with some history, all of it projected: two accounts, a transfer, keys and snapshots.
///
/// Positions: 1 opens the first account (100), 2 the second, 3 deposits 5, 4 and 5 transfer 10, 6 withdraws 1 under a key.
async fn bank() -> (App, Uuid, Uuid) {
    let app = spawn_app_in_one_partition_with(&["--snapshot-every=2"]).await;
    let client = app.client();
    let (first, second) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    client.with_key("deposit").deposit(first, 5).await.expect(201);
    client.with_key("transfer").transfer(first, second, 10).await.expect(201);
    let last = client.with_key("withdraw").withdraw(second, 1).await.expect(201);
    for account in [first, second] {
        client.get_account(account, last.position()).await.expect(200);
        client.get(&format!("/v1/accounts/{account}/transactions?min_position=6")).await.expect(200);
    }
    (app, first, second)
}

impl App {
    async fn verify(&self, witness: Option<&str>) -> Result<Report, Finding> {
        let witness = witness.map(|text| self.qualify(text).parse().unwrap());
        match verify::verify(&self.auditor().await, self.partitions(), witness.as_slice(), |_, _| ()).await {
            Ok(report) => Ok(report),
            Err(verify::Error::Broken(finding)) => Err(finding),
            Err(error) => panic!("{error}"),
        }
    }

    /// Verify names this position, and says these words.
    #[track_caller]
    fn found(outcome: Result<Report, Finding>, position: i64, words: &str) {
        let finding = outcome.expect_err("something is not in order");
        assert!(finding.position == position && finding.sentence.contains(words), "{finding}");
    }
}

#[tokio::test]
async fn books_in_order_are_found_in_order() {
    let (app, _, _) = bank().await;
    let report = app.verify(None).await.unwrap();
    assert_eq!((report.events, report.accounts, report.receipts), (6, 2, 3));
    assert!(report.snapshots >= 1, "{report:?}");
    let euro = report.money["EUR"];
    assert_eq!((euro.paid_in, euro.paid_out, euro.balances), (105, 1, 104));
}

#[tokio::test]
async fn an_empty_log_is_in_order() {
    let app = spawn_app().await;
    let report = app.verify(None).await.unwrap();
    assert_eq!((report.events, report.accounts), (0, 0));
    assert!(!report.to_string().contains("--witness"), "there is nothing to witness: {report}");
}

#[tokio::test]
async fn a_view_that_is_behind_is_compared_at_its_own_position() {
    let (app, first, _) = bank().await;
    app.sabotage("ALTER TABLE account_transaction RENAME TO elsewhere").await;
    app.client().deposit(first, 1).await.expect(201);
    app.sabotage("ALTER TABLE elsewhere RENAME TO account_transaction").await;
    app.verify(None).await.unwrap();
}

#[tokio::test]
async fn a_changed_amount_is_found_where_it_stands() {
    let (app, _, _) = bank().await;
    app.tamper(r#"UPDATE event SET data = '{"amount":50}' WHERE position = 3"#).await;
    App::found(app.verify(None).await, 3, "changed");
}

#[tokio::test]
async fn another_author_or_time_is_found_where_it_stands() {
    let (app, _, _) = bank().await;
    app.tamper("UPDATE event SET metadata = replace(metadata::text, 'anonymous', 'somebody')::json WHERE position = 4")
        .await;
    App::found(app.verify(None).await, 4, "changed");
    let (app, _, _) = bank().await;
    app.tamper("UPDATE event SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 6").await;
    App::found(app.verify(None).await, 6, "changed");
}

#[tokio::test]
async fn two_events_that_changed_places_are_found() {
    let (app, _, _) = bank().await;
    app.tamper(
        "UPDATE event SET position = position + 1000 WHERE position IN (2, 3);
         UPDATE event SET position = 1005 - position WHERE position > 1000",
    )
    .await;
    App::found(app.verify(None).await, 2, "changed");
}

#[tokio::test]
async fn a_deleted_last_event_is_found() {
    let (app, _, _) = bank().await;
    app.tamper("DELETE FROM event WHERE position = 6").await;
    App::found(app.verify(None).await, 6, "cut off");
}

#[tokio::test]
async fn a_deleted_account_is_found_at_its_first_event() {
    let (app, _, second) = bank().await;
    app.tamper(&format!(
        "DELETE FROM event WHERE stream_id = '{second}'; DELETE FROM account_view WHERE account_id = '{second}';
         DELETE FROM account_transaction WHERE account_id = '{second}'; DELETE FROM snapshot WHERE stream_id = '{second}'"
    ))
    .await;
    App::found(app.verify(None).await, 2, "missing");
}

#[tokio::test]
async fn an_event_put_in_behind_the_head_is_found() {
    let (app, _, _) = bank().await;
    app.tamper(
        "INSERT INTO event SELECT partition, 7, gen_random_uuid(), stream_id, version + 1, type, schema_version, data,
                                  metadata, recorded_at, hash FROM event WHERE position = 6",
    )
    .await;
    App::found(app.verify(None).await, 7, "changed, moved or put in");
}

#[tokio::test]
async fn a_row_of_a_view_that_was_written_into_is_found() {
    let (app, first, _) = bank().await;
    app.tamper(&format!("UPDATE account_view SET balance = balance + 1 WHERE account_id = '{first}'")).await;
    App::found(app.verify(None).await, 4, &first.to_string());

    let (app, _, _) = bank().await;
    app.tamper("UPDATE account_transaction SET reference = 'not mine' WHERE amount = 10 AND kind = 'transfer_out'")
        .await;
    App::found(app.verify(None).await, 4, "transactions");

    let (app, _, _) = bank().await;
    app.tamper("DELETE FROM account_transaction WHERE kind = 'withdrawal'").await;
    App::found(app.verify(None).await, 6, "transactions");

    let (app, first, _) = bank().await;
    app.tamper(&format!(
        "UPDATE daily_balance SET money_in = money_in + 1, money_out = money_out + 1 WHERE account_id = '{first}'"
    ))
    .await;
    App::found(app.verify(None).await, 4, &format!("daily balances of account {first}"));

    let (app, _, second) = bank().await;
    app.tamper(&format!("DELETE FROM daily_balance WHERE account_id = '{second}'")).await;
    App::found(app.verify(None).await, 6, &second.to_string());

    for wrong in ["open = open + 1", "money = money + 1", "currency = 'USD'"] {
        let (app, _, _) = bank().await;
        app.tamper(&format!("UPDATE bank_total SET {wrong}")).await;
        App::found(app.verify(None).await, 6, "the totals of EUR");
    }

    let (app, first, _) = bank().await;
    app.tamper(&format!("DELETE FROM account_view WHERE account_id = '{first}'")).await;
    App::found(app.verify(None).await, 4, "missing");
}

#[tokio::test]
async fn a_snapshot_that_was_written_into_is_found() {
    let (app, first, _) = bank().await;
    let held: i64 =
        sqlx::query_scalar("SELECT count(*) FROM snapshot").fetch_one(&mut app.database().await).await.unwrap();
    assert!(held > 0);
    app.tamper(&format!(
        "UPDATE snapshot SET state = replace(state::text, '105', '106')::json WHERE stream_id = '{first}'"
    ))
    .await;
    App::found(app.verify(None).await, 3, "snapshot");
    app.tamper("DELETE FROM snapshot").await;
    app.verify(None).await.unwrap();
    app.tamper(&format!("INSERT INTO snapshot VALUES (0, '{first}', 9, 1, '\"Unopened\"')")).await;
    App::found(app.verify(None).await, 6, "never was");
}

#[tokio::test]
async fn a_receipt_that_was_written_into_is_found() {
    for (key, position) in [("deposit", 3), ("transfer", 5), ("withdraw", 6)] {
        let (app, _, _) = bank().await;
        app.tamper(&format!(
            r#"UPDATE idempotency_key SET receipt = replace(receipt::text, '"balance":', '"balance":1')::json WHERE key = '{key}'"#
        ))
        .await;
        App::found(app.verify(None).await, position, key);
    }
    let (app, _, _) = bank().await;
    let (six, seven) = (app.qualify("6"), app.qualify("7"));
    app.tamper(&format!(
        r#"UPDATE idempotency_key SET receipt = replace(receipt::text, '"position":"{six}"', '"position":"{seven}"')::json"#
    ))
    .await;
    App::found(app.verify(None).await, 7, "not there");
    app.tamper("UPDATE idempotency_key SET receipt = '{}' WHERE key = 'withdraw'").await;
    App::found(app.verify(None).await, 1, "withdraw");
}

#[tokio::test]
async fn a_witness_finds_a_log_that_was_rewritten_with_fitting_hashes() {
    let (app, _, _) = bank().await;
    let heads = app.client().get("/v1/log/head").await.expect(200);
    let head = &heads.data()[usize::try_from(app.partition_under_test()).unwrap()];
    assert_eq!((&head["partition"], &head["position"]), (&json!(app.partition_under_test()), &json!(6)));
    let hash = head["hash"].as_str().unwrap();
    let witness = format!("6-{hash}");
    app.verify(Some(&witness)).await.unwrap();
    app.verify(Some(&witness[..10])).await.unwrap();
    let other = if hash.starts_with('0') { "1" } else { "0" };
    App::found(app.verify(Some(&format!("6-{other}{}", &hash[1..]))).await, 6, "witness");
    App::found(app.verify(Some(&format!("7-{hash}"))).await, 7, "witness");
}

#[tokio::test]
async fn an_account_is_verified_while_the_bank_runs() {
    let (app, first, second) = bank().await;
    let client = app.client();
    let path = |account: Uuid| format!("/v1/accounts/{account}/verification");
    let whole = client.get(&path(first)).await.expect(200);
    assert_eq!(whole.body, json!({"account_id": first, "verified": true, "events": 3, "finding": null}));
    client.get(&path(Uuid::from_u128(17))).await.expect_problem(404, "account_not_found");

    app.tamper(&format!("UPDATE account_view SET balance = 1 WHERE account_id = '{first}'")).await;
    let broken = client.get(&path(first)).await.expect(200);
    assert_eq!(broken.body["verified"], false);
    assert!(broken.text("/finding").contains("view"), "{}", broken.body);

    app.tamper("UPDATE event SET data = replace(data::text, '10', '11')::json WHERE position = 5").await;
    let broken = client.get(&path(second)).await.expect(200);
    assert!(broken.text("/finding").contains("position 5"), "{}", broken.body);
}

#[tokio::test]
async fn the_service_cannot_change_what_is_recorded() {
    let (app, _, _) = bank().await;
    let mut service = app.database().await;
    execute(&mut service, "SET ROLE passbook_service").await.unwrap();
    for denied in [
        "UPDATE event SET data = '{}'",
        "DELETE FROM event",
        "TRUNCATE event",
        "UPDATE idempotency_key SET receipt = '{}'",
        "DELETE FROM idempotency_key",
        "DELETE FROM log_head",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "DROP TABLE account_view",
        "CREATE TABLE mine (id int)",
    ] {
        let error = execute(&mut service, denied).await.expect_err(denied);
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"), "{denied}: {error}");
    }
    for statement in ["UPDATE event SET data = '{}'", "DELETE FROM event WHERE position = 6", "TRUNCATE event"] {
        let mut owner = app.database().await;
        // Not even a replica's session, in which other triggers rest.
        execute(&mut owner, "SET session_replication_role = replica").await.unwrap();
        let error = execute(&mut owner, statement).await.expect_err(statement);
        assert!(error.to_string().contains("events are immutable"), "{error}");
        owner.close().await.unwrap();
    }
    app.verify(None).await.unwrap();
}

#[tokio::test]
async fn a_running_service_has_taken_its_role_on_every_connection() {
    let (app, _, _) = bank().await;
    // As the service sees itself: it may not look at what a trigger would refuse the owner.
    app.sabotage("REVOKE INSERT ON event FROM passbook_service").await;
    let refused = app.client().open(json!({"currency": "EUR"})).await;
    assert!(refused.status >= 500, "{}", refused.body);
    app.sabotage("GRANT INSERT ON event TO passbook_service").await;
    eventually("a bank that heals", async || {
        (app.client().open(json!({"currency": "EUR"})).await.status == 201).then_some(())
    })
    .await;
}

async fn execute(connection: &mut PgConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}
