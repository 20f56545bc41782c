//! The retention of idempotency keys: old keys are deleted in slices, and the database refuses to delete young ones.

use std::num::NonZeroU16;

use passbook_bank::KeyDeletion;
use passbook_database::Database;
use passbook_testkit::{App, eventually, spawn_app, spawn_app_in_one_partition};
use sqlx::{AssertSqlSafe, Connection, PgConnection, query_as, query_scalar, raw_sql};
use uuid::Uuid;

/// More keys than two slices delete.
const MANY_KEYS: u64 = 1_200;

async fn deletion(app: &App, days: u16) -> KeyDeletion {
    let database = Database::open(&app.config().database()).await.unwrap();
    KeyDeletion::new(database.key_deletion(), app.partitions(), NonZeroU16::new(days).unwrap())
}

/// Lets the key grow older by this many hours.
async fn age(app: &App, key: &str, hours: u32) {
    app.tamper(&format!(
        "UPDATE idempotency_key SET recorded_at = recorded_at - interval '{hours} hours' WHERE key = '{key}'"
    ))
    .await;
}

async fn key_count(app: &App) -> i64 {
    query_scalar("SELECT count(*) FROM idempotency_key").fetch_one(&mut app.database().await).await.unwrap()
}

/// An account with the keys `old` and `young`, each of a deposit of 5.
async fn app_with_keys() -> (App, Uuid) {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    for key in ["old", "young"] {
        app.client().with_key(key).deposit(account, 5).await.expect(201);
    }
    (app, account)
}

/// A connection with the rights of the service.
async fn service_role(app: &App) -> PgConnection {
    let mut connection = app.database().await;
    raw_sql("SET ROLE passbook_service").execute(&mut connection).await.unwrap();
    connection
}

/// Calls the function of the database that deletes keys. Returns how many it deleted.
async fn call(connection: &mut PgConnection, partition: i16, days: Option<i32>) -> sqlx::Result<i64> {
    query_scalar("SELECT deleted FROM delete_old_keys($1, $2, 'epoch', 1000)")
        .bind(partition)
        .bind(days)
        .fetch_one(connection)
        .await
}

#[tokio::test]
async fn a_key_older_than_the_retention_is_deleted_and_then_new() {
    let (app, account) = app_with_keys().await;
    age(&app, "old", 90 * 24 + 1).await;
    age(&app, "young", 90 * 24 - 1).await;
    assert!(app.client().with_key("old").deposit(account, 5).await.is_replay(), "a key is kept until it is deleted");

    assert_eq!(deletion(&app, 90).await.sweep().await.unwrap(), 1);
    let young = app.client().with_key("young").deposit(account, 5).await.expect(201);
    assert!(young.is_replay());
    let again = app.client().with_key("old").deposit(account, 5).await.expect(201);
    assert!(!again.is_replay(), "{}", again.body);
    assert_eq!((again.body["version"].as_i64(), again.body["balance"].as_i64()), (Some(4), Some(15)));
}

#[tokio::test]
async fn a_key_that_comes_back_is_deleted_by_the_next_sweep() {
    let (app, _) = app_with_keys().await;
    let deletion = deletion(&app, 90).await;
    age(&app, "old", 91 * 24).await;
    assert_eq!(deletion.sweep().await.unwrap(), 1);
    // As after a failover to a server that does not have the deletion: an older key than the last deleted one.
    age(&app, "young", 92 * 24).await;
    assert_eq!(deletion.sweep().await.unwrap(), 1);
}

#[tokio::test]
async fn the_service_deletes_old_keys_in_slices_while_it_runs() {
    let (mut app, account) = app_with_keys().await;
    age(&app, "old", 91 * 24).await;
    let partition = app.partition_under_test();
    app.tamper(&format!(
        "INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at)
         SELECT {partition}, caller, 'old-' || n, fingerprint, receipt, recorded_at - n * interval '1 second'
         FROM idempotency_key, generate_series(1, {MANY_KEYS}) AS n
         WHERE key = 'old'"
    ))
    .await;
    app.restart().await;
    eventually("the deletion of the old keys", async || (key_count(&app).await == 1).then_some(())).await;
    assert!(app.client().with_key("young").deposit(account, 5).await.is_replay());
}

#[tokio::test]
async fn two_deletions_at_once_delete_each_key_once() {
    let app = spawn_app().await;
    let account = app.client().open_with_balance(0).await;
    let partition = app.partitions().partition_of(account);
    app.tamper(&format!(
        "INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at)
         SELECT {partition}, 'caller', 'old-' || n, '', '{{}}', now() - interval '2 days' - n * interval '1 second'
         FROM generate_series(1, {MANY_KEYS}) AS n"
    ))
    .await;
    let (first, second) = (deletion(&app, 1).await, deletion(&app, 1).await);
    let (first, second) = tokio::join!(first.sweep(), second.sweep());
    assert_eq!(first.unwrap() + second.unwrap(), MANY_KEYS);
    assert_eq!(key_count(&app).await, 0);
}

#[tokio::test]
async fn a_young_key_cannot_be_deleted_by_a_call_of_the_function() {
    let (app, _) = app_with_keys().await;
    age(&app, "old", 23).await;
    let (mut service, partition) = (service_role(&app).await, app.partition_under_test());
    for days in [Some(0), Some(-1), None] {
        let refused = call(&mut service, partition, days).await.expect_err("a retention below one day");
        assert!(refused.to_string().contains("at least one day"), "{refused}");
    }
    assert_eq!(call(&mut service, partition, Some(1)).await.unwrap(), 0);
    assert_eq!(key_count(&app).await, 2);
}

#[tokio::test]
async fn a_database_clock_that_is_ahead_makes_no_key_old() {
    let (app, _) = app_with_keys().await;
    let mut service = service_role(&app).await;
    // The last batch is a day older than the clock, and the key half a day older than that batch.
    age(&app, "old", 36).await;
    app.tamper("UPDATE log_head SET recorded_at = recorded_at - interval '24 hours'").await;
    assert_eq!(call(&mut service, app.partition_under_test(), Some(1)).await.unwrap(), 0);
    age(&app, "old", 13).await;
    assert_eq!(call(&mut service, app.partition_under_test(), Some(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_temporary_table_does_not_replace_the_one_of_the_function() {
    let (app, _) = app_with_keys().await;
    age(&app, "old", 48).await;
    let mut service = service_role(&app).await;
    let sql = "CREATE TEMP TABLE idempotency_key AS SELECT * FROM idempotency_key WHERE key = 'young';
               UPDATE pg_temp.idempotency_key SET recorded_at = 'epoch'";
    raw_sql(sql).execute(&mut service).await.unwrap();
    assert_eq!(call(&mut service, app.partition_under_test(), Some(1)).await.unwrap(), 1);
    let temporary: i64 =
        query_scalar("SELECT count(*) FROM pg_temp.idempotency_key").fetch_one(&mut service).await.unwrap();
    assert_eq!((temporary, key_count(&app).await), (1, 1));
    service.close().await.unwrap();
}

#[tokio::test]
async fn every_key_has_the_position_of_the_log_at_its_time() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(10).await;
    app.client().with_key("deposit").deposit(account, 5).await.expect(201);
    app.client().with_key("refused").withdraw(account, 50).await.expect_problem(422, "insufficient_funds");
    app.client().with_key("withdraw").withdraw(account, 1).await.expect(201);
    let sql = format!(
        "SELECT key, position FROM idempotency_key WHERE partition = {} ORDER BY recorded_at",
        app.partition_under_test()
    );
    let keys: Vec<(String, Option<i64>)> =
        query_as(AssertSqlSafe(sql)).fetch_all(&mut app.database().await).await.unwrap();
    let expected = [("deposit", 2), ("refused", 2), ("withdraw", 3)];
    assert_eq!(keys, expected.map(|(key, position)| (key.to_owned(), Some(position))));
}
