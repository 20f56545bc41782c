//! Changes that a superuser makes to the tables are found by verification. Changes that the service's role could try
//! are refused by the database.

use passbook_audit::verification::{self, Finding, PinnedHead, Report};
use passbook_domain::account::STATE_VERSION;
use passbook_testkit::{App, eventually, spawn_app, spawn_app_in_one_partition_with, spawn_app_with};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// An app with two accounts, a transfer, keys and snapshots, all projected.
///
/// By position: 1 opens the first account with 100, 2 opens the second, 3 deposits 5, 4 and 5 transfer 10, 6 withdraws
/// 1.
async fn app_with_history() -> (App, Uuid, Uuid) {
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

async fn verify(app: &App, expected_head: Option<&str>) -> Result<Report, Finding> {
    let pinned: Option<PinnedHead> = expected_head.map(|text| app.qualify(text).parse().unwrap());
    match verification::verify(&app.auditor().await, app.partitions(), pinned.as_slice(), |_, _| ()).await {
        Ok(report) => Ok(report),
        Err(verification::Error::Inconsistent(finding)) => Err(finding),
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that verification found a mismatch at this position, with this text.
#[track_caller]
fn assert_finding(outcome: Result<Report, Finding>, position: i64, text: &str) {
    let finding = outcome.expect_err("verification finds a mismatch");
    assert!(finding.position == position && finding.message.contains(text), "{finding}");
}

#[tokio::test]
async fn consistent_log_is_verified() {
    let (app, _, _) = app_with_history().await;
    let report = verify(&app, None).await.unwrap();
    assert_eq!((report.events, report.accounts, report.receipts), (6, 2, 3));
    assert!(report.snapshots >= 1, "{report:?}");
    let euro = report.money["EUR"];
    assert_eq!((euro.paid_in, euro.paid_out, euro.balances), (105, 1, 104));
}

#[tokio::test]
async fn empty_log_is_verified() {
    let app = spawn_app().await;
    let report = verify(&app, None).await.unwrap();
    assert_eq!((report.events, report.accounts), (0, 0));
    assert!(!report.to_string().contains("--expect-head"), "there is no head to save: {report}");
}

#[tokio::test]
async fn lagging_view_is_compared_at_its_own_position() {
    let (app, first, _) = app_with_history().await;
    app.sabotage("ALTER TABLE account_transaction RENAME TO renamed").await;
    app.client().deposit(first, 1).await.expect(201);
    app.sabotage("ALTER TABLE renamed RENAME TO account_transaction").await;
    verify(&app, None).await.unwrap();
}

#[tokio::test]
async fn changed_amount_is_found_at_its_position() {
    let (app, _, _) = app_with_history().await;
    app.tamper(r#"UPDATE event SET data = '{"amount":50}' WHERE position = 3"#).await;
    assert_finding(verify(&app, None).await, 3, "changed");
}

#[tokio::test]
async fn changed_user_or_time_is_found_at_its_position() {
    let (app, _, _) = app_with_history().await;
    app.tamper(
        "UPDATE event SET metadata = replace(metadata::text, 'anonymous', 'other-user')::json WHERE position = 4",
    )
    .await;
    assert_finding(verify(&app, None).await, 4, "changed");
    let (app, _, _) = app_with_history().await;
    app.tamper("UPDATE event SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 6").await;
    assert_finding(verify(&app, None).await, 6, "changed");
}

#[tokio::test]
async fn swapped_events_are_found() {
    let (app, _, _) = app_with_history().await;
    app.tamper(
        "UPDATE event SET position = position + 1000 WHERE position IN (2, 3);
         UPDATE event SET position = 1005 - position WHERE position > 1000",
    )
    .await;
    assert_finding(verify(&app, None).await, 2, "changed");
}

#[tokio::test]
async fn deleted_last_event_is_found() {
    let (app, _, _) = app_with_history().await;
    app.tamper("DELETE FROM event WHERE position = 6").await;
    assert_finding(verify(&app, None).await, 6, "truncated");
}

#[tokio::test]
async fn deleted_account_is_found_at_its_first_event() {
    let (app, _, second) = app_with_history().await;
    app.tamper(&format!(
        "DELETE FROM event WHERE stream_id = '{second}'; DELETE FROM account_view WHERE account_id = '{second}';
         DELETE FROM account_transaction WHERE account_id = '{second}'; DELETE FROM snapshot WHERE stream_id = '{second}'"
    ))
    .await;
    assert_finding(verify(&app, None).await, 2, "missing");
}

#[tokio::test]
async fn event_inserted_after_the_head_is_found() {
    let (app, _, _) = app_with_history().await;
    app.tamper(
        "INSERT INTO event SELECT partition, 7, gen_random_uuid(), stream_id, version + 1, type, schema_version, data,
                                  metadata, recorded_at, hash FROM event WHERE position = 6",
    )
    .await;
    assert_finding(verify(&app, None).await, 7, "changed");
}

#[tokio::test]
async fn changed_rows_of_views_are_found() {
    let (app, first, _) = app_with_history().await;
    app.tamper(&format!("UPDATE account_view SET balance = balance + 1 WHERE account_id = '{first}'")).await;
    assert_finding(verify(&app, None).await, 4, &first.to_string());

    let (app, _, _) = app_with_history().await;
    app.tamper("UPDATE account_transaction SET reference = 'not mine' WHERE amount = 10 AND kind = 'transfer_out'")
        .await;
    assert_finding(verify(&app, None).await, 4, "transactions");

    let (app, _, _) = app_with_history().await;
    app.tamper("DELETE FROM account_transaction WHERE kind = 'withdrawal'").await;
    assert_finding(verify(&app, None).await, 6, "transactions");

    let (app, first, _) = app_with_history().await;
    app.tamper(&format!(
        "UPDATE daily_balance SET money_in = money_in + 1, money_out = money_out + 1 WHERE account_id = '{first}'"
    ))
    .await;
    assert_finding(verify(&app, None).await, 4, &format!("daily balances of account {first}"));

    let (app, _, second) = app_with_history().await;
    app.tamper(&format!("DELETE FROM daily_balance WHERE account_id = '{second}'")).await;
    assert_finding(verify(&app, None).await, 6, &second.to_string());

    for change in ["open = open + 1", "money = money + 1", "currency = 'USD'"] {
        let (app, _, _) = app_with_history().await;
        app.tamper(&format!("UPDATE bank_total SET {change}")).await;
        assert_finding(verify(&app, None).await, 6, "EUR");
    }

    let (app, _, _) = app_with_history().await;
    for (change, back) in [
        ("debit = debit + 1", "debit = debit - 1"),
        ("credit = credit + 1", "credit = credit - 1"),
        ("event_count = event_count + 1", "event_count = event_count - 1"),
        ("day = day - 1", "day = day + 1"),
        ("ledger_account = ledger_account || '?'", "ledger_account = rtrim(ledger_account, '?')"),
    ] {
        app.tamper(&format!("UPDATE ledger_total SET {change}")).await;
        assert_finding(verify(&app, None).await, 6, "ledger totals");
        app.tamper(&format!("UPDATE ledger_total SET {back}")).await;
    }
    app.tamper("DELETE FROM ledger_total WHERE ledger_account LIKE 'assets:%'").await;
    assert_finding(verify(&app, None).await, 6, "ledger totals");

    let (app, first, _) = app_with_history().await;
    app.tamper(&format!("DELETE FROM account_view WHERE account_id = '{first}'")).await;
    assert_finding(verify(&app, None).await, 4, "missing");
}

#[tokio::test]
async fn changed_snapshots_are_found() {
    let (app, first, _) = app_with_history().await;
    let snapshots: i64 =
        sqlx::query_scalar("SELECT count(*) FROM snapshot").fetch_one(&mut app.database().await).await.unwrap();
    assert!(snapshots > 0);
    app.tamper(&format!(
        "UPDATE snapshot SET state = replace(state::text, '105', '106')::json WHERE stream_id = '{first}'"
    ))
    .await;
    assert_finding(verify(&app, None).await, 3, "snapshot");
    app.tamper("DELETE FROM snapshot").await;
    verify(&app, None).await.unwrap();
    app.tamper(&format!("INSERT INTO snapshot VALUES (0, '{first}', 9, {STATE_VERSION}, '\"Unopened\"')")).await;
    assert_finding(verify(&app, None).await, 6, "does not exist");
}

#[tokio::test]
async fn changed_receipts_are_found() {
    for (key, position) in [("deposit", 3), ("transfer", 5), ("withdraw", 6)] {
        let (app, _, _) = app_with_history().await;
        app.tamper(&format!(
            r#"UPDATE idempotency_key SET receipt = replace(receipt::text, '"balance":', '"balance":1')::json WHERE key = '{key}'"#
        ))
        .await;
        assert_finding(verify(&app, None).await, position, key);
    }
    let (app, _, _) = app_with_history().await;
    let (six, seven) = (app.qualify("6"), app.qualify("7"));
    app.tamper(&format!(
        r#"UPDATE idempotency_key SET receipt = replace(receipt::text, '"position":"{six}"', '"position":"{seven}"')::json"#
    ))
    .await;
    assert_finding(verify(&app, None).await, 7, "does not exist");
    app.tamper("UPDATE idempotency_key SET receipt = '{}' WHERE key = 'withdraw'").await;
    assert_finding(verify(&app, None).await, 6, "withdraw");
}

#[tokio::test]
async fn changed_times_and_positions_of_keys_are_found() {
    for (change, position) in [
        ("recorded_at = recorded_at - interval '1 microsecond'", 2),
        ("recorded_at = recorded_at + interval '1 microsecond'", 3),
        ("position = position + 1", 3),
        ("position = position - 1", 3),
    ] {
        let (app, _, _) = app_with_history().await;
        app.tamper(&format!("UPDATE idempotency_key SET {change} WHERE key = 'deposit'")).await;
        assert_finding(verify(&app, None).await, position, "deposit");
    }
}

#[tokio::test]
async fn changed_rows_and_receipts_of_holds_and_reversals_are_found() {
    let app = spawn_app_in_one_partition_with(&["--snapshot-every=100"]).await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    client.deposit(account, 50).await.expect(201);
    let placed = client.with_key("place").place_hold(account, json!({"amount": 30})).await.expect(201);
    let hold = placed.uuid("/hold/hold_id");
    client.with_key("capture").capture_hold(account, hold, json!({"amount": 10, "final": false})).await.expect(201);
    client.with_key("reverse").reverse(account, 2, json!({"amount": 20})).await.expect(201);
    let last = client.reverse(account, 2, json!({"amount": 5})).await.expect(201);
    client.get_account(account, last.position()).await.expect(200);
    app.wait_until_projected().await;
    verify(&app, None).await.unwrap();
    app.tamper("CREATE TABLE original AS SELECT * FROM reversal; CREATE TABLE keys AS SELECT * FROM idempotency_key")
        .await;
    for wrong in [
        "DELETE FROM reversal WHERE number = 2",
        "UPDATE reversal SET amount = 19 WHERE number = 1",
        "UPDATE reversal SET reversed = 24 WHERE number = 2",
        "UPDATE reversal SET reversing_version = reversing_version + 1",
        "INSERT INTO reversal SELECT partition, account_id, 1, 1, 1, 1, 5 FROM reversal WHERE number = 1",
        "UPDATE reversal SET number = 3 WHERE number = 2",
    ] {
        app.tamper(wrong).await;
        assert_finding(verify(&app, None).await, 6, "rows of reversals");
        app.tamper("DELETE FROM reversal; INSERT INTO reversal SELECT * FROM original").await;
    }
    for (key, position, member) in [
        ("place", 3, r#"'"available":', '"available":1'"#),
        ("place", 3, r#"'"remaining":', '"remaining":1'"#),
        ("capture", 4, r#"'"captured":', '"captured":1'"#),
        ("reverse", 5, r#"'"available":', '"available":1'"#),
    ] {
        app.tamper(&format!(
            "UPDATE idempotency_key SET receipt = replace(receipt::text, {member})::json WHERE key = '{key}'"
        ))
        .await;
        assert_finding(verify(&app, None).await, position, key);
        app.tamper("DELETE FROM idempotency_key; INSERT INTO idempotency_key SELECT * FROM keys").await;
    }
    verify(&app, None).await.unwrap();
}

#[tokio::test]
async fn changed_receipts_of_transfers_between_partitions_are_found() {
    for (member, changed) in [("{from,balance}", "1"), ("{to,balance}", "1"), ("{amount}", "1"), ("{to,version}", "9")]
    {
        let app = spawn_app_with(&["--partitions=2"]).await;
        let [from, to] = [0, 1].map(|partition| app.partitions().new_id_in(partition));
        for account in [from, to] {
            let opening = json!({"currency": "EUR", "account_id": account, "initial_deposit": 100});
            app.client().open(opening).await.expect(201);
        }
        app.client().with_key("there").transfer(from, to, 10).await.expect(201);
        app.client().with_key("back").transfer(to, from, 10).await.expect(201);
        let report = verify(&app, None).await.unwrap();
        assert_eq!(report.receipts, 2);
        for key in ["there", "back"] {
            app.tamper(&format!(
                "CREATE TABLE original AS SELECT * FROM idempotency_key;
                 UPDATE idempotency_key SET receipt = jsonb_set(receipt::jsonb, '{member}', '{changed}')::json WHERE key = '{key}'"
            ))
            .await;
            let finding = verify(&app, None).await.expect_err("verification finds a mismatch");
            assert!(finding.message.contains(key), "{member} of {key}: {finding}");
            app.tamper(
                "UPDATE idempotency_key SET receipt = original.receipt FROM original WHERE idempotency_key.key = original.key;
                 DROP TABLE original",
            )
            .await;
        }
    }
}

#[tokio::test]
async fn expected_head_detects_a_rewritten_log() {
    let (app, _, _) = app_with_history().await;
    let heads = app.client().get("/v1/log/head").await.expect(200);
    let head = &heads.data()[usize::try_from(app.partition_under_test()).unwrap()];
    assert_eq!((&head["partition"], &head["position"]), (&json!(app.partition_under_test()), &json!("6")));
    let hash = head["hash"].as_str().unwrap();
    let saved = format!("6-{hash}");
    verify(&app, Some(&saved)).await.unwrap();
    verify(&app, Some(&saved[..10])).await.unwrap();
    let other = if hash.starts_with('0') { "1" } else { "0" };
    assert_finding(verify(&app, Some(&format!("6-{other}{}", &hash[1..]))).await, 6, "expected head");
    assert_finding(verify(&app, Some(&format!("7-{hash}"))).await, 7, "expected head");
}

#[tokio::test]
async fn account_is_verified_while_the_service_runs() {
    let (app, first, second) = app_with_history().await;
    let client = app.client();
    let path = |account: Uuid| format!("/v1/accounts/{account}/verification");
    let intact = client.get(&path(first)).await.expect(200);
    assert_eq!(intact.body, json!({"account_id": first, "verified": true, "events": 3, "finding": null}));
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
async fn service_role_cannot_change_recorded_data() {
    let (app, _, _) = app_with_history().await;
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
        // The trigger also fires in a replication session, in which ordinary triggers do not.
        execute(&mut owner, "SET session_replication_role = replica").await.unwrap();
        let error = execute(&mut owner, statement).await.expect_err(statement);
        assert!(error.to_string().contains("events are immutable"), "{error}");
        owner.close().await.unwrap();
    }
    verify(&app, None).await.unwrap();
}

#[tokio::test]
async fn service_uses_its_role_on_every_connection() {
    let (app, _, _) = app_with_history().await;
    // Without the privilege, appends fail only if the connection uses the service's role and not the owner's.
    app.sabotage("REVOKE INSERT ON event FROM passbook_service").await;
    let refused = app.client().open(json!({"currency": "EUR"})).await;
    assert!(refused.status >= 500, "{}", refused.body);
    app.sabotage("GRANT INSERT ON event TO passbook_service").await;
    eventually("a successful opening", async || {
        (app.client().open(json!({"currency": "EUR"})).await.status == 201).then_some(())
    })
    .await;
}

async fn execute(connection: &mut PgConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}
