//! Distributes the tables over the nodes of a Citus cluster. One node stores the rows of a partition in all tables. A statement
//! that names one partition therefore runs on one node. The service sends the same statements with and without Citus.

use sqlx::{Connection, PgConnection, query, query_scalar, raw_sql};

use passbook_event_store::PARTITIONS_MAX;

/// As many shards as there can be partitions, so that partitions need not share a shard.
const SHARDS: &str = "SET LOCAL citus.shard_count = 64";

/// Citus connects to the nodes as the current user, so the service role must be able to log in there. The role has no password:
/// the nodes of a cluster admit each other by their own rules, and all other clients need a password.
const ALLOW_LOGIN: &str = "ALTER ROLE passbook_service LOGIN";

/// Functions that Citus runs on the node of the partition in their first argument.
const FUNCTIONS: [&str; 6] = [
    "append_batch",
    "append_batch_with_reversals",
    "take_turn",
    "version_at",
    "position_at",
    "lock_head_and_read_since",
];

/// The tables were not distributed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the database has no Citus extension: run `CREATE EXTENSION citus` as a superuser, and add the cluster's nodes"
    )]
    NoCitus,
    #[error(
        "the log contains events, and only an empty log can be distributed: run `passbook copy` into a new database that was \
         distributed with `passbook migrate --distribute`"
    )]
    NotEmpty,
    #[error(
        "the role passbook_service cannot log in at the nodes: run `ALTER ROLE passbook_service LOGIN` as a superuser"
    )]
    NoLogin,
    #[error("the tables could not be distributed, and nothing was changed: {0}")]
    Storage(#[from] sqlx::Error),
}

/// Distributes all tables in one transaction. Tables that are distributed already stay as they are, and tables of later
/// migrations are placed beside them.
pub(super) async fn distribute(connection: &mut PgConnection) -> Result<(), Error> {
    if !query_scalar("SELECT to_regproc('create_distributed_table') IS NOT NULL").fetch_one(&mut *connection).await? {
        return Err(Error::NoCitus);
    }
    let mut transaction = connection.begin().await?;
    let is_first =
        query_scalar("SELECT NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('log_head'))");
    if is_first.fetch_one(&mut *transaction).await? {
        if has_events(&mut transaction).await? {
            return Err(Error::NotEmpty);
        }
        raw_sql(SHARDS).execute(&mut *transaction).await?;
        // Citus does not distribute tables with triggers. This trigger rejects changes of events, which the service role has
        // no right to make anyway.
        raw_sql("DROP TRIGGER IF EXISTS event_immutable ON event").execute(&mut *transaction).await?;
    }
    allow_login(&mut transaction).await?;
    for table in undistributed_tables(&mut transaction).await? {
        let colocate_with = if table == "log_head" { "none" } else { "log_head" };
        query("SELECT create_distributed_table($1::regclass, 'partition', colocate_with => $2)")
            .bind(table)
            .bind(colocate_with)
            .execute(&mut *transaction)
            .await?;
    }
    for function in FUNCTIONS {
        query(
            "SELECT create_distributed_function($1::regproc::regprocedure, 'p_partition', colocate_with => 'log_head')
             WHERE NOT EXISTS (
                 SELECT
                 FROM pg_dist_object
                 WHERE classid = 'pg_proc'::regclass
                     AND objid = $1::regproc
                     AND distribution_argument_index IS NOT NULL
             )",
        )
        .bind(function)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Whether the tables lie on the nodes of a cluster.
pub(super) async fn is_distributed(connection: &mut PgConnection) -> Result<bool, Error> {
    // The catalogue is missing without the extension, and the parser would refuse its name.
    if !query_scalar("SELECT to_regclass('pg_dist_partition') IS NOT NULL").fetch_one(&mut *connection).await? {
        return Ok(false);
    }
    let is_distributed =
        query_scalar("SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('log_head'))");
    Ok(is_distributed.fetch_one(connection).await?)
}

async fn allow_login(connection: &mut PgConnection) -> Result<(), Error> {
    let can_login = query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'passbook_service'");
    if can_login.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    match raw_sql(ALLOW_LOGIN).execute(connection).await {
        // insufficient_privilege
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => Err(Error::NoLogin),
        altered => Ok(altered.map(drop)?),
    }
}

async fn has_events(connection: &mut PgConnection) -> sqlx::Result<bool> {
    for partition in 0..PARTITIONS_MAX {
        let position = query_scalar("SELECT position FROM log_head WHERE partition = $1").bind(partition);
        let position: Option<i64> = position.fetch_optional(&mut *connection).await?;
        if position.is_some_and(|position| position > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns Passbook's tables that are not distributed yet. `log_head` comes first, because the others are colocated with it.
async fn undistributed_tables(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    query_scalar(
        "SELECT pg_class.relname::text
         FROM pg_class
         JOIN pg_attribute ON attrelid = pg_class.oid AND attnum = 1 AND attname = 'partition'
         WHERE relkind = 'r' AND relnamespace = to_regnamespace(current_schema())
             AND NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = pg_class.oid)
         ORDER BY pg_class.relname <> 'log_head', pg_class.relname",
    )
    .fetch_all(connection)
    .await
}
