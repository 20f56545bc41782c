//! Verification compares the receipt of a batch with the log, result by result: a change that a superuser makes to it is found.

use passbook_audit::verification::{self, Finding, Report};
use passbook_testkit::{App, Response, spawn_app_with};
use serde_json::{Value, json};
use uuid::Uuid;

/// The key of the batch that tests tamper with.
const KEY: &str = "payroll";

/// An app with three accounts, each in another partition if there are several, and their ids.
async fn app_with_accounts(partitions: i16) -> (App, [Uuid; 3]) {
    let app = spawn_app_with(&[&format!("--partitions={partitions}"), "--snapshot-every=3"]).await;
    let accounts = [0, 1, 2].map(|number| app.partitions().new_id_in(number % partitions));
    for account in accounts {
        let opening = json!({"currency": "EUR", "account_id": account, "initial_deposit": 100});
        app.client().open(opening).await.expect(201);
    }
    (app, accounts)
}

/// Executes a batch over all accounts under [`KEY`]. By result: a deposit, a transfer, an opening, a withdrawal, a hold, and the
/// reversal of the transfer.
async fn run_batch(app: &App, [first, second, third]: [Uuid; 3]) -> Response {
    let opened = app.partitions().new_id_in(app.partitions().count() - 1);
    let commands = [
        json!({"command": "deposit", "account_id": first, "amount": 5}),
        json!({"command": "transfer", "from": first, "to": second, "amount": 10}),
        json!({"command": "open", "account_id": opened, "currency": "EUR", "initial_deposit": 7}),
        json!({"command": "withdraw", "account_id": third, "amount": 1}),
        json!({"command": "place_hold", "account_id": second, "amount": 3}),
        json!({"command": "reverse", "account_id": second, "version": 2, "amount": 4}),
    ];
    app.client().with_key(KEY).batch("atomic", &commands).await.expect(201)
}

/// An app whose batch is recorded between other keyed commands, and verified.
async fn app_with_batch(partitions: i16) -> App {
    let (app, accounts) = app_with_accounts(partitions).await;
    let client = app.client();
    client.with_key("before").deposit(accounts[0], 1).await.expect(201);
    run_batch(&app, accounts).await;
    let items = [
        json!({"command": "deposit", "account_id": accounts[0], "amount": 5, "idempotency_key": "item-1"}),
        json!({"command": "withdraw", "account_id": accounts[1], "amount": 1_000_000, "idempotency_key": "item-2"}),
    ];
    client.batch("each", &items).await.expect(200);
    client.with_key("after").transfer(accounts[1], accounts[2], 1).await.expect(201);
    app.wait_until_projected().await;
    let report = verify(&app).await.unwrap();
    assert_eq!(report.receipts, 4, "{report:?}");
    app
}

async fn verify(app: &App) -> Result<Report, Finding> {
    match verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await {
        Ok(report) => Ok(report),
        Err(verification::Error::Inconsistent(finding)) => Err(finding),
        Err(error) => panic!("{error}"),
    }
}

/// Applies one change to the receipt of a key, and returns what verification finds. Then restores the keys.
async fn finding_after(app: &App, key: &str, receipt: &str) -> Finding {
    app.tamper("CREATE TABLE original AS SELECT * FROM idempotency_key").await;
    app.tamper(&format!("UPDATE idempotency_key SET receipt = ({receipt})::json WHERE key = '{key}'")).await;
    let found = verify(app).await;
    app.tamper("DELETE FROM idempotency_key; INSERT INTO idempotency_key SELECT * FROM original; DROP TABLE original")
        .await;
    found.expect_err(receipt)
}

async fn assert_every_change_is_found(partitions: i16) {
    let app = app_with_batch(partitions).await;
    let other = Uuid::from_u128(17);
    let set = |path: &str, value: Value| format!("jsonb_set(receipt::jsonb, '{{{path}}}', '{value}')");
    let position = |path: &str| format!("receipt::jsonb #> '{{{path},position}}'");
    let changes = [
        set("batch_id", json!(other)),
        set("position", json!(if partitions == 1 { "5" } else { "0:5" })),
        set("results,0,balance", json!(1)),
        set("results,0,available", json!(1)),
        set("results,0,version", json!(1)),
        set("results,0,account_id", json!(other)),
        set("results,0,events,0,id", json!(other)),
        set("results,0,events,0,type", json!("MoneyWithdrawn")),
        set("results,0,events", json!([])),
        format!("jsonb_set(receipt::jsonb, '{{results,0,position}}', {})", position("results,1,from")),
        set("results,1,amount", json!(11)),
        set("results,1,transfer_id", json!(other)),
        set("results,1,from,balance", json!(1)),
        set("results,1,to,balance", json!(1)),
        set("results,1,to,account_id", json!(other)),
        set("results,1,to", json!({"account_id": other})),
        set("results,2,balance", json!(8)),
        set("results,3,status", json!("frozen")),
        set("results,4,hold,remaining", json!(2)),
        set("results,4,hold,hold_id", json!(other)),
        set("results,5,amount", json!(5)),
        set("results,5,to,balance", json!(1)),
        "receipt::jsonb #- '{results,0,available}'".to_owned(),
        "receipt::jsonb #- '{results,4,hold}'".to_owned(),
        "receipt::jsonb #- '{results,3}'".to_owned(),
        "receipt::jsonb #- '{results,5}'".to_owned(),
        "receipt::jsonb #- '{results,0}'".to_owned(),
        "receipt::jsonb #- '{results}'".to_owned(),
        set("results", json!([])),
        // The first result twice, and the last one before it.
        "jsonb_insert(receipt::jsonb, '{results,0}', receipt::jsonb #> '{results,0}')".to_owned(),
        "jsonb_insert(receipt::jsonb #- '{results,4}', '{results,0}', receipt::jsonb #> '{results,4}')".to_owned(),
        // A batch within the batch, and a member that the service does not write.
        "jsonb_set(receipt::jsonb, '{results,0}', receipt::jsonb)".to_owned(),
        set("results,0,note", json!("paid")),
    ];
    for change in changes {
        let finding = finding_after(&app, KEY, &change).await;
        assert!(finding.message.contains(KEY) || finding.message.contains("batch"), "{change}: {finding}");
    }
    verify(&app).await.unwrap();
}

#[tokio::test]
async fn every_change_to_the_receipt_of_a_batch_is_found() {
    assert_every_change_is_found(1).await;
}

#[tokio::test]
async fn every_change_to_the_receipt_of_a_batch_over_partitions_is_found() {
    assert_every_change_is_found(4).await;
}

#[tokio::test]
async fn mismatch_is_reported_at_the_position_of_its_result() {
    let app = app_with_batch(1).await;
    // 4 deposits before the batch: its deposit, both sides of the transfer, the opening, the withdrawal, the hold.
    for (path, position) in
        [("0,balance", 5), ("1,to,balance", 7), ("2,balance", 8), ("3,balance", 9), ("4,version", 10)]
    {
        let change = format!("jsonb_set(receipt::jsonb, '{{results,{path}}}', '77')");
        assert_eq!(finding_after(&app, KEY, &change).await.position, position, "{path}");
    }
}

#[tokio::test]
async fn batch_whose_results_of_one_partition_are_removed_is_found() {
    let (app, [first, second, third]) = app_with_accounts(4).await;
    let deposits =
        [first, second, first, third].map(|account| json!({"command": "deposit", "account_id": account, "amount": 5}));
    app.client().with_key(KEY).batch("atomic", &deposits).await.expect(201);
    verify(&app).await.unwrap();
    // What is left is consistent in itself: each result matches its event, and the position is that of the results.
    let without_third = "jsonb_set(receipt::jsonb #- '{results,3}', '{position}', to_jsonb(regexp_replace(receipt ->> 'position', ',2:.*', '')))";
    let finding = finding_after(&app, KEY, without_third).await;
    assert!(finding.message.contains("names 3 events, but the log has 4"), "{finding}");
    let only_first = "jsonb_set(receipt::jsonb #- '{results,3}' #- '{results,1}', '{position}', receipt::jsonb #> '{results,2,position}')";
    let finding = finding_after(&app, KEY, only_first).await;
    assert!(finding.message.contains("names 2 events, but the log has 4"), "{finding}");
}

#[tokio::test]
async fn changed_refusals_of_batches_are_found() {
    for partitions in [1, 4] {
        let (app, [first, second, _]) = app_with_accounts(partitions).await;
        let commands = [
            json!({"command": "deposit", "account_id": first, "amount": 5}),
            json!({"command": "withdraw", "account_id": second, "amount": 1_000}),
        ];
        let refused = app.client().with_key(KEY).batch("atomic", &commands).await;
        assert_eq!(refused.expect_problem(422, "insufficient_funds").body["index"], 1);
        verify(&app).await.unwrap();
        let mut changes = vec![
            "jsonb_set(receipt::jsonb, '{index}', '1000')".to_owned(),
            "receipt::jsonb #- '{refused}'".to_owned(),
            "jsonb_set(receipt::jsonb, '{note}', '1')".to_owned(),
        ];
        if partitions > 1 {
            // The key of a refused command that is no batch is stored in the partition of its account.
            let elsewhere = app.partitions().new_id_in(1);
            let without_index = "receipt::jsonb #- '{index}'";
            changes.push(format!("jsonb_set({without_index}, '{{account_id}}', '\"{elsewhere}\"')"));
        }
        for change in changes {
            let finding = finding_after(&app, KEY, &change).await;
            assert!(finding.message.contains(KEY), "{change}: {finding}");
        }
    }
}
