//! A verification reads a log in chunks and compares each view in a task of its own. It reports what a single pass would report.

use passbook_audit::verification::{self, Finding};
use passbook_testkit::{App, spawn_app_in_one_partition};
use serde_json::{Value, json};
use uuid::Uuid;

/// More events than three chunks have.
const EVENTS: i64 = 3_001;
const VIEWS: [&str; 6] = ["accounts", "transactions", "daily_balances", "bank_totals", "holds", "ledger_totals"];

/// An app with a log of [`EVENTS`] events, all projected: an opening, and deposits with one hold before them.
async fn app_with_long_history() -> (App, Uuid) {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(100).await;
    let deposit = json!({"command": "deposit", "account_id": account, "amount": 1});
    let mut commands = vec![json!({"command": "place_hold", "account_id": account, "amount": 5})];
    commands.resize(1_000, deposit);
    for _ in 0..3 {
        let batch = client.batch("each", &commands).await.expect(200);
        assert!(batch.results().iter().all(|result| result["status"] == 201), "{}", batch.body);
        commands[0] = commands[1].clone();
    }
    client.get(&format!("/v1/projections?min_position={EVENTS}")).await.expect(200);
    (app, account)
}

async fn first_finding(app: &App) -> Option<Finding> {
    match verification::verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await {
        Ok(report) => {
            assert_eq!(report.events, EVENTS);
            None
        }
        Err(verification::Error::Inconsistent(finding)) => Some(finding),
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that the first finding is at this position, with this text.
async fn assert_finding(app: &App, position: i64, text: &str) {
    let finding = first_finding(app).await.expect("verification finds a mismatch");
    assert!(finding.position == position && finding.message.contains(text), "{finding}");
}

fn projections(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(|row| row["name"].as_str())
}

#[tokio::test]
async fn verification_finds_the_first_fault_of_each_chunk() {
    let (app, _) = app_with_long_history().await;
    assert_eq!(first_finding(&app).await, None);
    // The last event of a chunk, the first one of a chunk, one in the middle and the last one.
    for position in [EVENTS, 2_500, 2_001, 2_000, 1_001, 1_000, 3] {
        app.tamper(&format!("UPDATE event SET data = '{{\"amount\":2}}' WHERE position = {position}")).await;
        assert_finding(&app, position, "changed").await;
    }
}

#[tokio::test]
async fn verification_finds_a_fault_of_each_view() {
    let (app, _) = app_with_long_history().await;
    let list = app.client().get("/v1/projections").await.expect(200);
    assert!(
        projections(&list.body["data"]).all(|name| VIEWS.contains(&name)),
        "a view has no fault here: {}",
        list.body
    );
    for (table, column, position) in [
        ("account_view", "balance", EVENTS),
        ("account_transaction", "balance_after", EVENTS),
        ("daily_balance", "closing", EVENTS),
        ("bank_total", "event_count", EVENTS),
        ("ledger_total", "debit", EVENTS),
        ("account_hold", "amount", 2),
    ] {
        app.tamper(&format!("UPDATE {table} SET {column} = {column} + 1")).await;
        let finding = first_finding(&app).await.unwrap_or_else(|| panic!("verification misses the change of {table}"));
        assert_eq!(finding.position, position, "{table}: {finding}");
        app.tamper(&format!("UPDATE {table} SET {column} = {column} - 1")).await;
        assert_eq!(first_finding(&app).await, None);
    }
}

#[tokio::test]
async fn verification_reports_the_first_of_two_faults() {
    let (app, account) = app_with_long_history().await;
    app.tamper(&format!("UPDATE account_view SET balance = balance + 1 WHERE account_id = '{account}'")).await;
    assert_finding(&app, EVENTS, "account_view").await;
    app.tamper("UPDATE event SET data = '{\"amount\":2}' WHERE position = 2500").await;
    assert_finding(&app, 2_500, "changed").await;
    // The rows of a generation are compared at its checkpoint, before later events.
    app.tamper("UPDATE projection SET position = 1500 WHERE name = 'transactions'").await;
    assert_finding(&app, 1_500, "transactions").await;
    app.tamper("UPDATE event SET data = '{\"amount\":2}' WHERE position = 1500").await;
    assert_finding(&app, 1_500, "changed").await;
}
