//! The schema's rules for distribution by Citus. Citus itself is not installed: the tests read the catalogue and
//! replace Citus's functions by ones that record their calls.

use std::time::Duration;

use passbook_database::Database;
use passbook_testkit::{
    App,
    app::{empty_database, start_app},
    spawn_app,
};
use serde_json::json;
use sqlx::{PgConnection, query_as, query_scalar, raw_sql};

async fn texts(connection: &mut PgConnection, sql: &'static str) -> Vec<String> {
    query_scalar(sql).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn every_key_and_index_begins_with_the_partition() {
    let app = spawn_app().await;
    let indexes: Vec<(String, Option<String>)> = query_as(
        "SELECT index.relname::text, attname::text
         FROM pg_index
         JOIN pg_class AS index ON index.oid = indexrelid
         JOIN pg_am ON pg_am.oid = index.relam
         JOIN pg_class AS of ON of.oid = indrelid AND of.relnamespace = 'public'::regnamespace
         LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
         -- A GIN index has no order, so no first column.
         WHERE of.relname <> '_sqlx_migrations' AND amname <> 'gin'",
    )
    .fetch_all(&mut app.database().await)
    .await
    .unwrap();
    assert!(indexes.len() > 15, "{indexes:?}");
    for (index, first) in indexes {
        assert_eq!(first.as_deref(), Some("partition"), "{index}");
    }
}

#[tokio::test]
async fn schema_has_no_sequences_foreign_keys_or_needed_triggers() {
    let app = spawn_app().await;
    let mut connection = app.database().await;
    let sequences = "SELECT relname::text FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace";
    assert_eq!(texts(&mut connection, sequences).await, [""; 0]);
    let constraints = texts(&mut connection, "SELECT conname::text FROM pg_constraint WHERE contype = 'f'").await;
    assert_eq!(constraints, [""; 0]);
    let generated = "SELECT attname::text FROM pg_attribute WHERE attidentity <> '' OR attgenerated <> ''";
    assert_eq!(texts(&mut connection, generated).await, [""; 0]);
    let triggers = texts(&mut connection, "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal").await;
    assert_eq!(triggers, ["event_immutable"]);
    // Without the trigger the service's role still has no privilege to change events.
    raw_sql("DROP TRIGGER event_immutable ON event; SET ROLE passbook_service").execute(&mut connection).await.unwrap();
    for denied in ["UPDATE event SET data = '{}'", "DELETE FROM event", "TRUNCATE event"] {
        let error = raw_sql(denied).execute(&mut connection).await.expect_err(denied);
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"), "{denied}");
    }
    app.client().open(json!({"currency": "EUR"})).await.expect(201);
}

/// Replacements of Citus's functions that record their calls.
const RECORDING_FUNCTIONS: &str = "
    CREATE SCHEMA citus_stub;
    CREATE TABLE citus_stub.calls (call text);
    SET allow_system_table_mods = on;
    CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, colocationid int DEFAULT 1);
    GRANT SELECT ON pg_dist_partition TO PUBLIC;
    RESET allow_system_table_mods;
    CREATE TABLE pg_dist_object (classid oid, objid oid, distribution_argument_index int);
    CREATE FUNCTION create_distributed_table(t regclass, c text, colocate_with text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO citus_stub.calls VALUES (format('%s by %s colocated with %s', t, c, colocate_with));
        INSERT INTO pg_dist_partition VALUES (t);
    $$;
    CREATE FUNCTION create_distributed_function(f regprocedure, a text, colocate_with text, force_delegation boolean)
    RETURNS void LANGUAGE sql AS $$
        INSERT INTO citus_stub.calls VALUES (format('%s by %s colocated with %s', f::oid::regproc, a, colocate_with));
        INSERT INTO pg_dist_object VALUES ('pg_proc'::regclass, f, 0);
    $$;
    CREATE FUNCTION create_distributed_function(f regprocedure) RETURNS void LANGUAGE sql AS $$
        INSERT INTO citus_stub.calls VALUES (format('%s on every node', f::oid::regproc));
        INSERT INTO pg_dist_object VALUES ('pg_proc'::regclass, f, NULL);
    $$";

/// Replacements of what Citus has for the shards of a node: each table is its own shard, on this node.
const ONE_NODE: &str = "
    SET allow_system_table_mods = on;
    CREATE TABLE pg_catalog.pg_dist_placement (shardid bigint, groupid int);
    CREATE TABLE pg_catalog.pg_dist_local_group (groupid int);
    INSERT INTO pg_dist_placement VALUES (1, 7);
    INSERT INTO pg_dist_local_group VALUES (7);
    CREATE FUNCTION pg_catalog.get_shard_id_for_distribution_column(t regclass, p anyelement) RETURNS bigint
    LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION pg_catalog.shard_name(t regclass, shard bigint) RETURNS text LANGUAGE sql AS 'SELECT t::text';
    CREATE FUNCTION pg_catalog.lock_shard_metadata(mode int, shards bigint[]) RETURNS void LANGUAGE sql AS '';
    RESET allow_system_table_mods";

/// An app whose tables are distributed, to this server alone.
async fn spawn_app_on_one_node(flags: &[&str]) -> App {
    let (database, config) = empty_database(&[&["--partitions=4"], flags].concat()).await;
    let owner = Database::open(&config.database()).await.unwrap();
    let mut connection = database.connect().await;
    owner.migrate().await.unwrap();
    raw_sql(RECORDING_FUNCTIONS).execute(&mut connection).await.unwrap();
    raw_sql(ONE_NODE).execute(&mut connection).await.unwrap();
    owner.distribute(None).await.unwrap();
    owner.close().await;
    start_app(config, database).await
}

#[tokio::test]
async fn append_on_a_node_writes_the_same_rows() {
    let app = spawn_app_on_one_node(&["--snapshot-every=3"]).await;
    let peer = app.spawn_peer().await;
    let client = app.client();
    let (from, to) = (client.open_with_balance(500).await, client.open_with_balance(0).await);
    for number in 0..4 {
        // The head moves between the appends of an instance.
        let deposit = client.with_key(&format!("key-{number}"));
        let first = deposit.deposit(from, 10).await.expect(201);
        peer.client().deposit(from, 1).await.expect(201);
        assert_eq!(deposit.deposit(from, 10).await.expect(201).body, first.body);
        deposit.deposit(from, 11).await.expect_problem(422, "idempotency_key_reused");
        peer.client()
            .with_key(&format!("key-{number}"))
            .deposit(from, 12)
            .await
            .expect_problem(422, "idempotency_key_reused");
    }
    client.transfer(from, to, 100).await.expect(201);
    client.reverse(from, 2, json!({"amount": 4})).await.expect(201);
    client.reverse(from, 2, json!({})).await.expect(201);
    client.reverse(from, 2, json!({})).await.expect_problem(422, "already_reversed");
    let commands: Vec<_> = (0..40).map(|_| json!({"command": "deposit", "account_id": to, "amount": 1})).collect();
    client.batch("each", &commands).await.expect(200);
    let mut connection = app.database().await;
    for (rows, expected) in [
        ("SELECT count(*) FROM idempotency_key WHERE key LIKE 'key-%'", 4),
        ("SELECT count(*) FROM reversal", 2),
        ("SELECT count(*) FROM snapshot", 2),
    ] {
        assert_eq!(query_scalar::<_, i64>(rows).fetch_one(&mut connection).await.unwrap(), expected, "{rows}");
    }
    passbook_testkit::audit::audit(&app).await;
}

#[tokio::test]
async fn append_on_a_node_without_the_shards_is_retried() {
    let app = spawn_app_on_one_node(&[]).await;
    let client = app.client();
    let account = client.open_with_balance(5).await;
    app.sabotage("UPDATE pg_dist_local_group SET groupid = 8").await;
    let deposit = client.with_key("during-the-move");
    let deposit = tokio::spawn(async move { deposit.deposit(account, 1).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    app.sabotage("UPDATE pg_dist_local_group SET groupid = 7").await;
    deposit.await.unwrap().expect(201);
    assert_eq!(app.client().deposit(account, 1).await.expect(201).body["balance"], 7);
    passbook_testkit::audit::audit(&app).await;
}

#[tokio::test]
async fn every_table_and_function_is_distributed_by_partition_once() {
    let (database, config) = empty_database(&["--partitions=4"]).await;
    let service_database = Database::open(&config.database()).await.unwrap();
    let error = service_database.distribute(None).await.expect_err("Citus is not installed").to_string();
    assert!(error.contains("CREATE EXTENSION citus"), "{error}");
    let mut connection = database.connect().await;
    raw_sql(RECORDING_FUNCTIONS).execute(&mut connection).await.unwrap();
    raw_sql(ONE_NODE).execute(&mut connection).await.unwrap();
    for _ in 0..2 {
        service_database.distribute(None).await.unwrap();
    }
    let calls = texts(&mut connection, "SELECT call FROM citus_stub.calls").await;
    let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                  AND relname NOT IN ('_sqlx_migrations', 'pg_dist_partition', 'pg_dist_object') ORDER BY relname <> 'log_head', relname";
    let tables = texts(&mut connection, tables).await;
    let colocated_with = |table: &String| if table == "log_head" { "none" } else { "log_head" };
    let mut expected = vec!["fold_case on every node".to_owned()];
    expected
        .extend(tables.iter().map(|table| format!("{table} by partition colocated with {}", colocated_with(table))));
    let functions = [
        "append_batch",
        "append_batch_with_reversals",
        "take_turn",
        "version_at",
        "position_at",
        "lock_head_and_read_since",
        "settle_moment",
        "delete_old_keys",
        "live_versions_at",
        "positions_at",
        "accounts_with_id_part",
        "accounts_with_metadata",
        "versions_at_position",
        "keep_shards",
        "shard_of",
    ];
    expected.extend(functions.map(|function| format!("{function} by p_partition colocated with log_head")));
    assert_eq!(calls, expected);
    // Citus connects to other nodes as the service's role, so the role may log in.
    let can_login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'passbook_service'";
    assert!(query_scalar::<_, bool>(can_login).fetch_one(&mut connection).await.unwrap());
    let app = start_app(config, database).await;
    app.client().open_with_balance(5).await;
    passbook_testkit::audit::audit(&app).await;

    // Tables and functions of later migrations are distributed too, also when the log has events.
    let later = "DELETE FROM citus_stub.calls; CREATE TABLE later_view (partition smallint PRIMARY KEY);
                 DELETE FROM pg_dist_object WHERE objid = 'version_at'::regproc";
    raw_sql(later).execute(&mut connection).await.unwrap();
    service_database.distribute(None).await.unwrap();
    let calls = texts(&mut connection, "SELECT call FROM citus_stub.calls").await;
    assert_eq!(
        calls,
        ["later_view by partition colocated with log_head", "version_at by p_partition colocated with log_head"]
    );
}

#[tokio::test]
async fn log_with_events_is_not_distributed() {
    let app = spawn_app().await;
    app.client().open_with_balance(5).await;
    app.sabotage(RECORDING_FUNCTIONS).await;
    let error = Database::open(&app.config().database())
        .await
        .unwrap()
        .distribute(None)
        .await
        .expect_err("the log has events")
        .to_string();
    assert!(error.contains("passbook copy"), "{error}");
}
