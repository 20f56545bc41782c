//! Atomic batches: all commands in one transaction with receipts in order, or none and the refusal of the first that fails.

use futures_util::future::join_all;
use passbook_testkit::{ApiClient, App, Response, audit::audit, log::Log, response::is_id, spawn_app, spawn_app_with};
use serde_json::{Value, json};
use uuid::Uuid;

/// The largest batch.
const COMMANDS_MAX: usize = 1_000;

fn deposit(account: Uuid, amount: i64) -> Value {
    json!({"command": "deposit", "account_id": account, "amount": amount})
}

fn withdraw(account: Uuid, amount: i64) -> Value {
    json!({"command": "withdraw", "account_id": account, "amount": amount})
}

fn transfer(from: Uuid, to: Uuid, amount: i64) -> Value {
    json!({"command": "transfer", "from": from, "to": to, "amount": amount})
}

/// The `batch_id` of each event.
fn batch_ids(log: &Log) -> Vec<Value> {
    let metadata = log.events.iter().map(|event| serde_json::from_str::<Value>(&event.metadata).unwrap());
    metadata.map(|metadata| metadata["batch_id"].clone()).collect()
}

/// Asserts that the batch is refused at `index`, and that it changed nothing.
async fn expect_refusal(app: &App, client: &ApiClient, commands: &[Value], index: usize, code: &str) -> Response {
    let before = app.log().await;
    let refused = client.batch("atomic", commands).await.expect_problem(422, code);
    assert_eq!(refused.body["index"], index, "{}", refused.body);
    assert_eq!(app.log().await, before, "the log is unchanged");
    refused
}

#[tokio::test]
async fn commands_are_recorded_in_one_transaction_with_receipts_in_order() {
    let app = spawn_app().await;
    let client = app.client();
    let (one, two) = (client.open_with_balance(100).await, Uuid::now_v7());
    let commands = [
        json!({"command": "open", "account_id": two, "currency": "EUR", "owner": "ada"}),
        deposit(one, 50),
        transfer(one, two, 120),
        withdraw(two, 20),
        json!({"command": "freeze", "account_id": one, "reason": "audit"}),
    ];
    let done = client.batch("atomic", &commands).await.expect(201);
    assert!(is_id(&done.body["batch_id"]));
    let results = done.results();
    assert_eq!(results.len(), commands.len());
    assert_eq!((&results[0]["account_id"], &results[0]["version"]), (&json!(two), &json!(1)));
    assert_eq!((&results[1]["balance"], &results[1]["version"]), (&json!(150), &json!(2)));
    assert_eq!((&results[2]["from"]["balance"], &results[2]["to"]["balance"]), (&json!(30), &json!(120)));
    assert_eq!((&results[3]["balance"], &results[3]["version"]), (&json!(100), &json!(3)));
    assert_eq!((&results[4]["status"], &results[4]["version"]), (&json!("frozen"), &json!(4)));
    assert_eq!(done.text("/position"), done.position());
    let view = client.get_account(two, done.position()).await.expect(200);
    assert_eq!(view.body["balance"], 100);
    let log = audit(&app).await;
    let ids = batch_ids(&log);
    assert_eq!(ids[0], Value::Null, "a single command is part of no batch");
    assert_eq!(ids[1..], vec![done.body["batch_id"].clone(); 6]);
}

#[tokio::test]
async fn refusal_at_any_place_leaves_the_log_unchanged() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(0).await);
    for index in [0, 1, 17, 99] {
        let mut commands = vec![deposit(other, 1); 100];
        commands[index] = withdraw(account, 101);
        let refused = expect_refusal(&app, &client, &commands, index, "insufficient_funds").await;
        assert_eq!((refused.account_id(), &refused.body["balance"]), (account, &json!(100)));
    }
    // The first of several refusals is reported.
    let commands = [deposit(account, 1), withdraw(account, 102), withdraw(other, 1)];
    expect_refusal(&app, &client, &commands, 1, "insufficient_funds").await;
    client.batch("atomic", &commands[..1]).await.expect(201);
    audit(&app).await;
}

#[tokio::test]
async fn refusal_of_the_thousandth_command_undoes_all_others() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let mut commands = vec![deposit(account, 1); COMMANDS_MAX];
    commands[COMMANDS_MAX - 1] = withdraw(account, COMMANDS_MAX as i64);
    let refused = expect_refusal(&app, &client, &commands, COMMANDS_MAX - 1, "insufficient_funds").await;
    assert_eq!(refused.body["available"], 999, "it is judged after the earlier commands");
    commands[COMMANDS_MAX - 1] = withdraw(account, COMMANDS_MAX as i64 - 1);
    let done = client.batch("atomic", &commands).await.expect(201);
    assert_eq!(done.results()[COMMANDS_MAX - 1]["balance"], 0);
    audit(&app).await;
}

#[tokio::test]
async fn one_account_changes_five_hundred_times_in_one_batch() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    for round in 0..2 {
        let done = client.batch("atomic", &vec![deposit(account, 3); 500]).await.expect(201);
        for (result, number) in done.results().iter().zip(1..) {
            let deposits = round * 500 + number;
            assert_eq!((&result["version"], &result["balance"]), (&json!(deposits + 1), &json!(3 * deposits)));
        }
    }
    assert_eq!(audit(&app).await.event_payloads(account).len(), 1_001);
}

#[tokio::test]
async fn batch_spans_four_partitions_or_changes_none() {
    let app = spawn_app_with(&["--partitions=4"]).await;
    let client = app.client();
    let accounts: Vec<Uuid> = app.partitions().all().map(|partition| app.partitions().new_id_in(partition)).collect();
    let open =
        |account: &Uuid| json!({"command": "open", "account_id": account, "currency": "EUR", "initial_deposit": 10});
    let mut commands: Vec<Value> = accounts.iter().map(open).collect();
    commands.extend((0..4).map(|from| transfer(accounts[from], accounts[(from + 1) % 4], 10)));
    commands.push(withdraw(accounts[3], 11));
    let refused = expect_refusal(&app, &client, &commands, 8, "insufficient_funds").await;
    assert_eq!(refused.account_id(), accounts[3]);
    assert_eq!(audit(&app).await.head.position, 0);
    commands.pop();
    let done = client.batch("atomic", &commands).await.expect(201);
    assert_eq!(done.position().split(',').count(), 4, "{}", done.position());
    for account in accounts {
        let view = client.get_account(account, done.position()).await.expect(200);
        assert_eq!((&view.body["balance"], &view.body["version"]), (&json!(10), &json!(3)));
    }
    assert_eq!(audit(&app).await.head.position, 12);
}

#[tokio::test]
async fn account_is_opened_used_and_closed_in_one_batch() {
    let app = spawn_app().await;
    let client = app.client();
    let account = Uuid::now_v7();
    let commands = [
        json!({"command": "open", "account_id": account, "currency": "EUR"}),
        deposit(account, 5),
        json!({"command": "reverse", "account_id": account, "version": 2, "amount": 2}),
        json!({"command": "reverse", "account_id": account, "version": 2}),
        json!({"command": "close", "account_id": account}),
    ];
    let done = client.batch("atomic", &commands).await.expect(201);
    let balances: Vec<&Value> = done.results().iter().map(|result| &result["balance"]).collect();
    assert_eq!(balances, [0, 5, 3, 0, 0]);
    assert_eq!(done.results()[4]["status"], "closed");
    let again = [&commands[1..2], &commands[..1]].concat();
    expect_refusal(&app, &client, &again, 0, "account_closed").await;
    let log = audit(&app).await;
    let types: Vec<&str> = log.events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["AccountOpened", "MoneyDeposited", "MovementReversed", "MovementReversed", "AccountClosed"]);
}

#[tokio::test]
async fn key_of_the_batch_gives_the_first_answer_again() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let keyed = client.with_key("payroll");
    let commands = [deposit(account, 5), deposit(account, 6)];
    let first = keyed.batch("atomic", &commands).await.expect(201);
    let before = app.log().await;
    for client in [&keyed, &keyed.with_header("prefer", "return=minimal")] {
        let again = client.batch("atomic", &commands).await.expect(201);
        assert!(!first.is_replay() && again.is_replay());
        assert_eq!(again.body, first.body);
        assert_eq!(again.position(), first.position());
        assert_eq!(again.header("preference-applied"), None);
    }
    keyed.batch("atomic", &commands[..1]).await.expect_problem(422, "idempotency_key_reused");
    keyed.deposit(account, 5).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(app.log().await, before);
    audit(&app).await;
}

#[tokio::test]
async fn refusal_is_recorded_under_the_key_of_the_batch() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let keyed = client.with_key("payroll");
    let commands = [deposit(account, 5), withdraw(account, 6)];
    let first = keyed.batch("atomic", &commands).await.expect_problem(422, "insufficient_funds");
    client.deposit(account, 100).await.expect(201);
    let again = keyed.batch("atomic", &commands).await.expect_problem(422, "insufficient_funds");
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!((&again.body["index"], again.account_id()), (&json!(1), account));
    let other = client.with_key("another");
    other.batch("atomic", &commands).await.expect(201);
    audit(&app).await;
}

#[tokio::test]
async fn concurrent_batches_with_one_key_are_executed_once() {
    let app = spawn_app().await;
    let client = app.client();
    let account = client.open_with_balance(0).await;
    let keyed = client.with_key("once");
    let commands = vec![deposit(account, 1); 20];
    let responses = join_all((0..16).map(|_| keyed.batch("atomic", &commands))).await;
    assert_eq!(responses.iter().filter(|response| !response.is_replay()).count(), 1);
    assert!(responses.iter().all(|response| response.status == 201 && response.body == responses[0].body));
    assert_eq!(audit(&app).await.event_payloads(account).len(), 21);
}

#[tokio::test]
async fn dry_run_of_a_batch_records_nothing() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, new) = (client.open_with_balance(10).await, Uuid::now_v7());
    let dry = client.with_key("tried").dry_run();
    let before = app.log().await;
    let commands = [
        json!({"command": "open", "account_id": new, "currency": "EUR"}),
        transfer(account, new, 10),
        withdraw(new, 10),
    ];
    let tried = dry.batch("atomic", &commands).await.expect(200);
    assert_eq!(tried.results()[2]["balance"], 0);
    assert_eq!(tried.results()[2]["events"], json!([{"type": "MoneyWithdrawn", "version": 3}]));
    let refused = dry.batch("atomic", &[commands[1].clone()]).await.expect_problem(404, "account_not_found");
    assert_eq!(refused.body["index"], 0);
    assert_eq!(app.log().await, before);
    let executed = client.with_key("tried").batch("atomic", &commands).await.expect(201);
    assert!(!executed.is_replay(), "the dry run did not record the key");
}

#[tokio::test]
async fn short_results_have_the_version_of_the_single_receipt() {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(10).await, client.open_with_balance(0).await);
    let minimal = client.with_header("prefer", "return=minimal");
    let commands = [
        deposit(account, 5),
        transfer(account, other, 5),
        json!({"command": "reverse", "account_id": other, "version": 2}),
        json!({"command": "set_limits", "account_id": account}),
    ];
    let done = minimal.batch("atomic", &commands).await.expect(201);
    assert_eq!(done.header("preference-applied"), Some("return=minimal"));
    assert_eq!(done.text("/position"), done.position());
    let expected = json!([
        {"index": 0, "status": 201, "version": 2},
        {"index": 1, "status": 201},
        {"index": 2, "status": 201, "version": 3},
        {"index": 3, "status": 200, "version": 5},
    ]);
    assert_eq!(done.body["results"], expected);
    audit(&app).await;
}
