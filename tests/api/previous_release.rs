//! A database of release 0.1 with events, views, keys and snapshots: this release reads, projects and verifies it and
//! appends to it. `scripts/record-log` wrote the dump, which never changes.

use passbook_audit::verification::verify;
use passbook_testkit::{App, audit::audit, eventually, spawn_app_from_dump};
use serde_json::{Value, json};
use uuid::{Uuid, uuid};

const LOG_0_1: &str = include_str!("../fixtures/log_0_1.sql");
const OPEN: Uuid = uuid!("01900000-0000-7000-8000-000000000001");
const FROZEN: Uuid = uuid!("01900000-0000-7000-8000-000000000002");
const CLOSED: Uuid = uuid!("01900000-0000-7000-8000-000000000003");

async fn assert_accounts(app: &App) {
    for (account, owner, currency, status, balance, version) in [
        (OPEN, "customer-17", "EUR", "open", 9_003, 6),
        (FROZEN, "customer-18", "EUR", "frozen", 1_200, 6),
        (CLOSED, "customer-19", "JPY", "closed", 0, 3),
    ] {
        let view = app.client().get_account(account, "15").await.expect(200);
        let expected = json!([owner, currency, status, balance, version]);
        let found = ["owner", "currency", "status", "balance", "version"].map(|member| &view.body[member]);
        assert_eq!(json!(found), expected);
    }
}

async fn assert_transactions(app: &App) {
    let list = app.client().get(&format!("/v1/accounts/{OPEN}/transactions?min_position=15")).await.expect(200);
    let members = |row: &Value| json!([row["kind"], row["amount"], row["balance_after"], row["reference"]]);
    let expected = [
        json!(["deposit", 2, 9_003, null]),
        json!(["deposit", 1, 9_001, null]),
        json!(["transfer_out", 1_250, 9_000, "rent"]),
        json!(["withdrawal", 250, 10_250, "cash"]),
        json!(["deposit", 500, 10_500, "salary"]),
        json!(["opening_deposit", 10_000, 10_000, null]),
    ];
    assert_eq!(list.data().iter().map(members).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn database_of_release_0_1_is_read_verified_and_appended_to() {
    let app = spawn_app_from_dump(LOG_0_1).await;
    assert_accounts(&app).await;
    assert_transactions(&app).await;

    let deposits = format!("/v1/accounts/{OPEN}/deposits");
    let as_before = json!({"amount": 500, "currency": "EUR", "reference": "salary"});
    let replay = app.client().with_key("deposit-1").command(&deposits, as_before.clone()).await.expect(201);
    assert!(replay.is_replay());
    assert_eq!((&replay.body["balance"], &replay.body["version"]), (&json!(10_500), &json!(2)));
    let mut with_channel = as_before;
    with_channel["channel"] = json!("atm");
    let reused = app.client().with_key("deposit-1").command(&deposits, with_channel.clone()).await;
    reused.expect_problem(422, "idempotency_key_reused");

    let deposited = app.client().command(&deposits, with_channel).await.expect(201);
    assert_eq!((&deposited.body["balance"], deposited.position()), (&json!(9_503), "16"));
    app.client().deposit(FROZEN, 1).await.expect_problem(422, "account_frozen");
    app.client().deposit(CLOSED, 1).await.expect_problem(422, "account_closed");

    let log = audit(&app).await;
    let versions: Vec<i16> = log.events.iter().map(|event| event.schema_version).collect();
    assert_eq!(versions, [vec![1; 15], vec![2]].concat(), "recorded events keep their schema version");
    let report = verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
    assert_eq!((report.events, report.accounts, report.receipts, report.snapshots), (16, 3, 4, 2));
}

#[tokio::test]
async fn views_are_rebuilt_from_the_log_of_release_0_1() {
    let mut app = spawn_app_from_dump(LOG_0_1).await;
    app.stop().await;
    app.sabotage("TRUNCATE account_view, account_transaction, daily_balance, bank_total; DELETE FROM projection").await;
    app.start_again().await;
    eventually("live views", async || {
        let views = app.client().get("/v1/projections").await;
        views.data().iter().all(|view| view["state"] == "live").then_some(())
    })
    .await;
    assert_accounts(&app).await;
    assert_transactions(&app).await;
    verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}
