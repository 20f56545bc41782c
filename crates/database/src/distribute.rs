//! The tables on the nodes of a Citus cluster: distributed by partition and side by side, so that whatever names one
//! partition is carried out on one node. No statement is another one there.

use sqlx::{Connection, PgConnection, query, query_scalar, raw_sql};

use passbook_event_store::PARTITIONS_MAX;

/// So many shards, and no partition shares one with another for want of them.
const SHARDS: &str = "SET LOCAL citus.shard_count = 64";

/// Citus carries out on the nodes as whom one is here, so that role has to be let in there. It has no password: nodes let each
/// other's users in by their own rules, and everybody else needs one.
const LET_IN: &str = "ALTER ROLE passbook_service LOGIN";

/// Functions that are carried out where their partition is, by their first argument.
const FUNCTIONS: [&str; 4] = ["append_batch", "take_turn", "version_at", "position_at"];

/// Why the tables are where they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database has no Citus: as a superuser say `CREATE EXTENSION citus`, and add its nodes")]
    NoCitus,
    #[error(
        "the log holds events already: let `passbook copy` make a new one in a database that was distributed before"
    )]
    NotEmpty,
    #[error(
        "the service's role has to be one that nodes can let in: as a superuser say `ALTER ROLE passbook_service LOGIN`"
    )]
    NoLogin,
    #[error("the tables could not be distributed, and are where they were: {0}")]
    Storage(#[from] sqlx::Error),
}

/// All tables or none, in one transaction. Those that are distributed already stay as they are; those of later migrations
/// come beside them.
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
        // Citus takes no table with triggers. What this one refuses, the service's role has no right to do.
        raw_sql("DROP TRIGGER IF EXISTS event_immutable ON event").execute(&mut *transaction).await?;
    }
    let_in(&mut transaction).await?;
    for table in tables(&mut transaction).await? {
        let beside = if table == "log_head" { "none" } else { "log_head" };
        query("SELECT create_distributed_table($1::regclass, 'partition', colocate_with => $2)")
            .bind(table)
            .bind(beside)
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

async fn let_in(connection: &mut PgConnection) -> Result<(), Error> {
    let can_login = query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'passbook_service'");
    if can_login.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    match raw_sql(LET_IN).execute(connection).await {
        // Insufficient privilege.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => Err(Error::NoLogin),
        let_in => Ok(let_in.map(drop)?),
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

/// Every table of ours that is not distributed yet, the head first: the others are put beside it.
async fn tables(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
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
