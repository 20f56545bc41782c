//! Views while they are rebuilt after an upgrade: each answer is right, or says that the view is behind.

use std::sync::Arc;

use passbook_audit::verification::verify;
use passbook_database::Database;
use passbook_testkit::{App, app::start_app, audit::audit, cluster::TestDatabase, config::config};
use serde_json::json;
use sqlx::{PgConnection, raw_sql};

use crate::previous_release::{
    OPEN, RELEASE_0_1, RELEASE_0_2, Read, Release, check_reads, members, reads, transactions, view, wait_until_rebuilt,
};

/// Stops the build of new generations of views while another session holds the lock.
const ADD_BUILD_LOCK: &str = "CREATE FUNCTION wait_for_build_lock() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN PERFORM pg_advisory_xact_lock_shared(16); RETURN NEW; END $$;
     CREATE TRIGGER build_lock BEFORE UPDATE ON projection FOR EACH ROW WHEN (OLD.state = 'building')
     EXECUTE FUNCTION wait_for_build_lock()";

/// Changes the rows of deposits as if an instance of the previous release, which runs beside this one, had written them.
const AS_WRITTEN_BEFORE_HOLDS: &str =
    "UPDATE account_transaction SET holds_version = NULL, overdraft = NULL WHERE generation = 1 AND kind = 'deposit'";

/// Starts an app whose views are not rebuilt until the returned connection is closed.
async fn spawn_with_old_views(release: &Release) -> (App, PgConnection) {
    let database = Arc::new(TestDatabase::restore(release.dump).await);
    let config = config(&database.url(), release.flags);
    let migrated = Database::open(&config.database()).await.unwrap();
    migrated.migrate().await.unwrap();
    migrated.close().await;
    let mut build_lock = database.connect().await;
    raw_sql(ADD_BUILD_LOCK).execute(&mut build_lock).await.unwrap();
    raw_sql("SELECT pg_advisory_lock(16)").execute(&mut build_lock).await.unwrap();
    (start_app(config, database).await, build_lock)
}

/// What queries show of the account [`OPEN`] after the commands of a test, at this position.
fn reads_after_commands(position: &str) -> Vec<Read> {
    vec![
        (
            format!("/v1/accounts/{OPEN}?min_position={position}"),
            view,
            json!(["customer-17", "EUR", "open", 6_904, 1_000, 5_909, 11, 9]),
        ),
        (
            format!("/v1/accounts/{OPEN}?as_of_version=7&min_position={position}"),
            view,
            json!(["customer-17", "EUR", "open", 9_003, 3_000, 6_003, 7, 6]),
        ),
        (
            format!("/v1/accounts/{OPEN}?as_of_version=11&min_position={position}"),
            view,
            json!(["customer-17", "EUR", "open", 6_904, 1_000, 5_909, 11, 9]),
        ),
        (
            format!("/v1/accounts/{OPEN}/limits?min_position={position}"),
            |limits| json!([limits["overdraft"]["maximum"], limits["per_movement"]["maximum"]]),
            json!([5, 9_000]),
        ),
        (
            format!("/v1/accounts/{OPEN}/holds?min_position={position}"),
            |page| members(&page["data"][0], ["status", "captured", "remaining"]),
            json!(["active", 2_000, 1_000]),
        ),
        (
            format!("/v1/accounts/{OPEN}/transactions?limit=3&min_position={position}"),
            transactions,
            json!([["deposit", 1, 6_904, null], ["reversal_out", 100, 6_903, null], ["capture", 2_000, 7_003, null]]),
        ),
    ]
}

async fn views_are_never_wrong_while_they_are_rebuilt(release: &Release) {
    let (app, build_lock) = spawn_with_old_views(release).await;
    let client = app.client();
    let served = check_reads(&client, reads(), true).await;
    for path in [format!("/v1/accounts/{OPEN}"), format!("/v1/accounts/{OPEN}/transactions")] {
        assert!(served.contains(&path), "{path} is served from the rows of the previous release: {served:?}");
    }

    let hold = client.place_hold(OPEN, json!({"amount": 3_000})).await.expect(201);
    client.set_limits(OPEN, json!({"overdraft": 5, "per_movement": 9_000})).await.expect(200);
    client.capture_hold(OPEN, hold.uuid("/hold/hold_id"), json!({"amount": 2_000, "final": false})).await.expect(201);
    client.reverse(OPEN, 2, json!({"amount": 100})).await.expect(201);
    let last = client.deposit(OPEN, 1).await.expect(201);
    let position = last.position();
    client.get_account(OPEN, position).await.expect(200);
    app.sabotage(AS_WRITTEN_BEFORE_HOLDS).await;
    check_reads(&client, reads_after_commands(position), true).await;
    drop(build_lock);
    wait_until_rebuilt(&app).await;
    check_reads(&client, reads_after_commands(position), false).await;
    audit(&app).await;
    verify(&app.auditor().await, app.partitions(), &[], |_, _| ()).await.unwrap();
}

#[tokio::test]
async fn views_of_release_0_1_are_never_wrong_while_they_are_rebuilt() {
    views_are_never_wrong_while_they_are_rebuilt(&RELEASE_0_1).await;
}

#[tokio::test]
async fn views_of_release_0_2_are_never_wrong_while_they_are_rebuilt() {
    views_are_never_wrong_while_they_are_rebuilt(&RELEASE_0_2).await;
}
