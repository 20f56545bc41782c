//! What keeps the way to many nodes open. Citus itself is not here: the catalogue is looked at, and what would be asked of
//! Citus is heard by functions of its names.

use passbook_database::Database;
use serde_json::json;
use sqlx::{PgConnection, query_as, query_scalar, raw_sql};

use crate::support::{App, app::empty_database, spawn_app};

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
         JOIN pg_class AS of ON of.oid = indrelid AND of.relnamespace = 'public'::regnamespace
         LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
         WHERE of.relname <> '_sqlx_migrations'",
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
async fn there_is_no_sequence_no_reference_and_one_trigger_that_nothing_needs() {
    let app = spawn_app().await;
    let mut connection = app.database().await;
    let of_ours = "SELECT relname::text FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace";
    assert_eq!(texts(&mut connection, of_ours).await, [""; 0]);
    let constraints = texts(&mut connection, "SELECT conname::text FROM pg_constraint WHERE contype = 'f'").await;
    assert_eq!(constraints, [""; 0]);
    let generated = "SELECT attname::text FROM pg_attribute WHERE attidentity <> '' OR attgenerated <> ''";
    assert_eq!(texts(&mut connection, generated).await, [""; 0]);
    let triggers = texts(&mut connection, "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal").await;
    assert_eq!(triggers, ["event_immutable"]);
    // Without it the service still cannot change what is recorded.
    raw_sql("DROP TRIGGER event_immutable ON event; SET ROLE passbook_service").execute(&mut connection).await.unwrap();
    for denied in ["UPDATE event SET data = '{}'", "DELETE FROM event", "TRUNCATE event"] {
        let error = raw_sql(denied).execute(&mut connection).await.expect_err(denied);
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"), "{denied}");
    }
    app.client().open(json!({"currency": "EUR"})).await.expect(201);
}

/// Functions of Citus' names that write down what is asked of them.
const HEARING: &str = "
    CREATE SCHEMA citus_ear;
    CREATE TABLE citus_ear.heard (asked text);
    CREATE TABLE pg_dist_partition (logicalrelid regclass);
    CREATE TABLE pg_dist_object (classid oid, objid oid, distribution_argument_index int);
    CREATE FUNCTION create_distributed_table(t regclass, c text, colocate_with text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO citus_ear.heard VALUES (format('%s by %s beside %s', t, c, colocate_with));
        INSERT INTO pg_dist_partition VALUES (t);
    $$;
    CREATE FUNCTION create_distributed_function(f regprocedure, a text, colocate_with text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO citus_ear.heard VALUES (format('%s by %s beside %s', f::oid::regproc, a, colocate_with));
        INSERT INTO pg_dist_object VALUES ('pg_proc'::regclass, f, 0);
    $$";

#[tokio::test]
async fn all_tables_are_distributed_by_partition_side_by_side_once_and_before_the_first_event() {
    let (database, config) = empty_database(&["--partitions=4"]).await;
    let ours = Database::open(&config.database()).await.unwrap();
    let told = ours.distribute().await.expect_err("there is no Citus here").to_string();
    assert!(told.contains("CREATE EXTENSION citus"), "{told}");
    let mut connection = database.connect().await;
    raw_sql(HEARING).execute(&mut connection).await.unwrap();
    for _ in 0..2 {
        ours.distribute().await.unwrap();
    }
    let heard = texts(&mut connection, "SELECT asked FROM citus_ear.heard").await;
    let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                  AND relname NOT IN ('_sqlx_migrations', 'pg_dist_partition', 'pg_dist_object') ORDER BY relname <> 'log_head', relname";
    let tables = texts(&mut connection, tables).await;
    let beside = |table: &String| if table == "log_head" { "none" } else { "log_head" };
    let mut expected: Vec<String> =
        tables.iter().map(|table| format!("{table} by partition beside {}", beside(table))).collect();
    let functions = ["append_batch", "take_turn", "version_at", "position_at"];
    expected.extend(functions.map(|function| format!("{function} by p_partition beside log_head")));
    assert_eq!(heard, expected);
    // Nodes let in whoever one is here.
    let can_login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'passbook_service'";
    assert!(query_scalar::<_, bool>(can_login).fetch_one(&mut connection).await.unwrap());
    let app: App = crate::support::app::start_app(config, database).await;
    app.client().open_with_balance(5).await;
    crate::support::audit::audit(&app).await;

    // What a later migration brings comes beside it, and whatever the log holds is no hindrance.
    let later = "DELETE FROM citus_ear.heard; CREATE TABLE later_view (partition smallint PRIMARY KEY);
                 DELETE FROM pg_dist_object WHERE objid = 'version_at'::regproc";
    raw_sql(later).execute(&mut connection).await.unwrap();
    ours.distribute().await.unwrap();
    let heard = texts(&mut connection, "SELECT asked FROM citus_ear.heard").await;
    assert_eq!(heard, ["later_view by partition beside log_head", "version_at by p_partition beside log_head"]);
}

#[tokio::test]
async fn a_log_that_holds_events_is_not_distributed() {
    let app = spawn_app().await;
    app.client().open_with_balance(5).await;
    app.sabotage(HEARING).await;
    let told = Database::open(&app.config().database()).await.unwrap().distribute().await.expect_err("it holds events").to_string();
    assert!(told.contains("passbook copy"), "{told}");
}
