//! Batches over the partitions of one executor while requests and responses of the database are late or lost: each is executed once,
//! whole, and on the events of all instances.

use std::time::Duration;

use passbook_audit::verification;
use passbook_testkit::{
    App, Response,
    audit::audit,
    eventually,
    fault_proxy::{
        FaultProxy,
        Flow::{Discard, Hold, Pass},
        ProxyConnection,
    },
    spawn_app_behind_proxy,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

const PARTITIONS: i16 = 4;

/// An app behind a proxy, an account with 100 in each partition, and the executor's connection. The executor has confirmed the log, so
/// that the next batches take the optimistic path.
async fn spawn_with_accounts() -> (App, FaultProxy, [Uuid; 4], ProxyConnection) {
    let (app, proxy) = spawn_app_behind_proxy(&[&format!("--partitions={PARTITIONS}")]).await;
    let accounts = [0, 1, 2, 3].map(|partition| app.partitions().new_id_in(partition));
    for account in accounts {
        app.client().open(opening(account)).await.expect(201);
    }
    let writer = proxy.newest_connection("passbook writer").await;
    (app, proxy, accounts, writer)
}

fn opening(account: Uuid) -> Value {
    json!({"currency": "EUR", "account_id": account, "initial_deposit": 100})
}

/// Transfers from each account to the next one.
fn ring(accounts: [Uuid; 4]) -> Vec<Value> {
    let pairs = accounts.iter().zip(accounts.iter().cycle().skip(1));
    pairs.map(|(from, to)| json!({"command": "transfer", "from": from, "to": to, "amount": 7})).collect()
}

async fn wait_for_position(app: &App, position: i64) {
    eventually("the log at this position", async || (app.log().await.head.position == position).then_some(())).await;
}

/// Asserts that the batch is recorded once, after the openings, and is what the response says.
async fn assert_once(app: &App, response: Response) {
    let log = audit(app).await;
    let recorded: Vec<Value> = log.events[4..].iter().map(|event| json!(event.id)).collect();
    let results = response.expect(201).body["results"].as_array().unwrap().clone();
    let named = results.iter().flat_map(|result| [&result["from"], &result["to"]]).map(|side| &side["events"][0]["id"]);
    let mut named: Vec<Value> = named.cloned().collect();
    let mut recorded = recorded;
    named.sort_unstable_by_key(Value::to_string);
    recorded.sort_unstable_by_key(Value::to_string);
    assert_eq!((recorded.len(), named), (8, recorded));
    verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn commit_over_partitions_is_answered_after_a_lost_response() {
    let (app, _proxy, accounts, writer) = spawn_with_accounts().await;
    writer.set_flow_from("COMMIT", Pass, Discard);
    let client = app.client().with_key("ring");
    let cut = async {
        wait_for_position(&app, 4 + 8).await;
        writer.cut();
    };
    let commands = ring(accounts);
    let (response, ()) = tokio::join!(client.batch("atomic", &commands), cut);
    assert_once(&app, response).await;
    assert!(client.batch("atomic", &commands).await.expect(201).is_replay());
}

#[tokio::test]
async fn lost_commit_request_over_partitions_is_retried() {
    let (app, _proxy, accounts, writer) = spawn_with_accounts().await;
    writer.set_flow_from("COMMIT", Discard, Pass);
    let client = app.client().with_key("ring");
    let cut = async {
        eventually("the COMMIT", async || (!writer.is_rule_pending()).then_some(())).await;
        writer.cut();
    };
    let commands = ring(accounts);
    let (response, ()) = tokio::join!(client.batch("atomic", &commands), cut);
    assert_once(&app, response).await;
}

#[tokio::test]
async fn batch_is_not_recorded_in_part_if_its_appends_are_cut() {
    let (app, _proxy, accounts, writer) = spawn_with_accounts().await;
    // The appends to the first two partitions are executed, and the third never arrives.
    writer.set_flow_from("third leg", Discard, Pass);
    let client = app.client();
    let cut = async {
        eventually("the third append", async || (!writer.is_rule_pending()).then_some(())).await;
        writer.cut();
    };
    let mut commands = ring(accounts);
    commands[2]["reference"] = json!("third leg");
    let (response, ()) = tokio::join!(client.batch("atomic", &commands), cut);
    assert_once(&app, response).await;
}

/// Lets one request of the executor pass, and holds the next one.
async fn step(writer: &ProxyConnection) {
    writer.set_flow(Pass, Hold);
    // Only the power of the test depends on the time, not its result.
    sleep(Duration::from_millis(30)).await;
    writer.set_flow(Hold, Pass);
    eventually("the next request", async || writer.is_holding_request().then_some(())).await;
}

#[tokio::test]
async fn first_command_of_a_partition_sees_the_events_of_the_other_instance() {
    let (app, proxy) = spawn_app_behind_proxy(&["--partitions=8"]).await;
    // The executor has written to one partition only, and does not know the heads of the others.
    let first = app.client().open(opening(app.partitions().new_id_in(0))).await.expect(201).account_id();
    app.client().deposit(first, 1).await.expect(201);
    let writer = proxy.newest_connection("passbook writer").await;
    let peer = app.spawn_peer().await;
    for steps in 0..2 {
        let account = app.partitions().new_id_in(steps + 1);
        peer.client().open(opening(account)).await.expect(201);
        for _ in 0..20 {
            // Enough batches without a concurrent event that the executor takes the optimistic path.
            app.client().deposit(first, 1).await.expect(201);
        }
        writer.set_flow(Hold, Pass);
        let withdraw_between = async {
            eventually("the first request", async || writer.is_holding_request().then_some(())).await;
            for _ in 0..steps {
                step(&writer).await;
            }
            // The response of this request is older than the withdrawal.
            writer.set_flow(Pass, Hold);
            sleep(Duration::from_millis(30)).await;
            peer.client().withdraw(account, 80).await.expect(201);
            writer.set_flow(Pass, Pass);
        };
        let client = app.client();
        let (refused, ()) = tokio::join!(client.withdraw(account, 80), withdraw_between);
        assert_eq!(refused.expect_problem(422, "insufficient_funds").body["balance"], 20, "{steps} steps");
    }
    audit(&app).await;
}
