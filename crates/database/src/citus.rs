//! Distributes the tables over the nodes of a Citus cluster. One node stores the rows of a partition in all tables. A statement
//! that names one partition therefore runs on one node. The service sends the same statements with and without Citus.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, PgConnection, query, query_scalar, raw_sql};

use passbook_event_store::{PARTITIONS_MAX, Partitions};

/// The most shards of a table, and their number if the number of partitions is not known.
const SHARDS_MAX: i64 = PARTITIONS_MAX as i64;

/// One transaction distributes tables and functions. Only in this mode Citus sends both over the same connections.
const ONE_CONNECTION: &str = "SET LOCAL citus.multi_shard_modify_mode TO 'sequential'";

/// The rights and settings of the service role at the nodes.
const NODE_ROLE: &str = include_str!("node_role.sql");

/// The append as it runs on the node of a partition, and what keeps shards from moving meanwhile.
const NODE_FUNCTIONS: &str = include_str!("node_functions.sql");

/// The functions that name one partition in their first argument. Citus runs a call on the node of that partition, in a transaction
/// as well (`force_delegation`).
const FUNCTIONS: [&str; 15] = [
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

/// The functions that read no table. Indexes and statements of every node call them.
const PURE_FUNCTIONS: [&str; 1] = ["fold_case"];

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
        "the role passbook_service needs a login and settings at the nodes, which this user cannot give it: run `passbook migrate \
         --distribute` as a superuser"
    )]
    NoNodeRole,
    #[error("the tables could not be distributed, and nothing was changed: {0}")]
    Storage(#[from] sqlx::Error),
}

/// Distributes all tables in one transaction. Tables that are distributed already stay as they are, and tables of later
/// migrations are placed beside them.
///
/// `partitions` is the number of partitions of the log, if it is known. It decides the number of shards.
pub(super) async fn distribute(connection: &mut PgConnection, partitions: Option<Partitions>) -> Result<(), Error> {
    if !query_scalar("SELECT to_regproc('create_distributed_table') IS NOT NULL").fetch_one(&mut *connection).await? {
        return Err(Error::NoCitus);
    }
    let mut transaction = connection.begin().await?;
    raw_sql(ONE_CONNECTION).execute(&mut *transaction).await?;
    let is_first =
        query_scalar("SELECT NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('log_head'))");
    if is_first.fetch_one(&mut *transaction).await? {
        if has_events(&mut transaction).await? {
            return Err(Error::NotEmpty);
        }
        let shards = match partitions {
            Some(partitions) => {
                shard_count(&hashes(&mut transaction, partitions).await?, nodes(&mut transaction).await?)
            }
            None => SHARDS_MAX,
        };
        raw_sql(AssertSqlSafe(format!("SET LOCAL citus.shard_count = {shards}"))).execute(&mut *transaction).await?;
        // Citus does not distribute tables with triggers. This trigger rejects changes of events, which the service role has
        // no right to make anyway.
        raw_sql("DROP TRIGGER IF EXISTS event_immutable ON event").execute(&mut *transaction).await?;
    }
    prepare_role(&mut transaction).await?;
    share_functions(&mut transaction).await?;
    for table in undistributed_tables(&mut transaction).await? {
        let colocate_with = if table == "log_head" { "none" } else { "log_head" };
        query("SELECT create_distributed_table($1::regclass, 'partition', colocate_with => $2)")
            .bind(table)
            .bind(colocate_with)
            .execute(&mut *transaction)
            .await?;
    }
    raw_sql(NODE_FUNCTIONS).execute(&mut *transaction).await?;
    for function in FUNCTIONS {
        use_custom_plans(&mut transaction, function).await?;
        query(
            "SELECT create_distributed_function(
                 $1::regproc::regprocedure, 'p_partition', colocate_with => 'log_head', force_delegation => true
             )
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

/// Creates the functions at every node that indexes call there.
pub(super) async fn share_functions(connection: &mut PgConnection) -> sqlx::Result<()> {
    for function in PURE_FUNCTIONS {
        query(
            "SELECT create_distributed_function($1::regproc::regprocedure)
             WHERE NOT EXISTS (SELECT FROM pg_dist_object WHERE classid = 'pg_proc'::regclass AND objid = $1::regproc)",
        )
        .bind(function)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Whether the tables lie on the nodes of a cluster.
pub(super) async fn is_distributed(connection: &mut PgConnection) -> sqlx::Result<bool> {
    // The catalogue is missing without the extension, and the parser would refuse its name.
    if !query_scalar("SELECT to_regclass('pg_dist_partition') IS NOT NULL").fetch_one(&mut *connection).await? {
        return Ok(false);
    }
    let is_distributed =
        query_scalar("SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('log_head'))");
    is_distributed.fetch_one(connection).await
}

/// The hash by which Citus finds the shard of each partition.
async fn hashes(connection: &mut PgConnection, partitions: Partitions) -> sqlx::Result<Vec<i32>> {
    let hashes = query_scalar("SELECT hashint2(number::smallint) FROM generate_series(0, $1 - 1) AS number");
    hashes.bind(i32::from(partitions.count())).fetch_all(connection).await
}

/// The number of nodes that may have shards.
async fn nodes(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let nodes = query_scalar(
        "SELECT count(*) FROM pg_dist_node WHERE isactive AND shouldhaveshards AND noderole::text = 'primary'",
    );
    let nodes: i64 = nodes.fetch_one(connection).await?;
    Ok(nodes.max(1))
}

/// Chooses how many shards a table has: the least number that spreads the partitions evenly over the nodes, and over as many shards
/// as possible. Many statements of Citus take time for each shard, also for those without rows.
///
/// Citus divides the range of hashes into equal parts, and gives them to the nodes in turn.
fn shard_count(hashes: &[i32], nodes: i64) -> i64 {
    let cost = |shards: i64| {
        let part = (1_i64 << 32) / shards;
        let shard = |hash: &i32| ((i64::from(*hash) - i64::from(i32::MIN)) / part).min(shards - 1);
        let used: BTreeSet<i64> = hashes.iter().map(shard).collect();
        let on_node = |node: i64| hashes.iter().filter(|hash| shard(hash) % nodes == node).count();
        ((0..nodes).map(on_node).max(), hashes.len() - used.len(), shards)
    };
    (nodes.min(SHARDS_MAX)..=SHARDS_MAX).min_by_key(|shards| cost(*shards)).unwrap_or(SHARDS_MAX)
}

async fn prepare_role(connection: &mut PgConnection) -> Result<(), Error> {
    let is_prepared = query_scalar(
        "SELECT rolcanlogin AND EXISTS (
             SELECT FROM pg_db_role_setting
             JOIN pg_database ON pg_database.oid = setdatabase
             WHERE setrole = pg_roles.oid AND datname = current_database() AND setconfig @> ARRAY['enable_seqscan=off']
         )
         FROM pg_roles
         WHERE rolname = 'passbook_service'",
    );
    if is_prepared.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    match raw_sql(NODE_ROLE).execute(connection).await {
        // insufficient_privilege
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => Err(Error::NoNodeRole),
        altered => Ok(altered.map(drop)?),
    }
}

/// Removes the setting of a function that forces generic plans: Citus refuses them in statements that name the partition by a
/// parameter. The migrations set it for a single server.
async fn use_custom_plans(connection: &mut PgConnection, function: &str) -> sqlx::Result<()> {
    let has_setting = query_scalar(
        "SELECT EXISTS (
             SELECT FROM pg_proc
             WHERE oid = $1::regproc AND proconfig && ARRAY['plan_cache_mode=force_generic_plan']
         )",
    );
    if has_setting.bind(function).fetch_one(&mut *connection).await? {
        let reset = format!("ALTER FUNCTION {function} RESET plan_cache_mode");
        raw_sql(AssertSqlSafe(reset)).execute(connection).await?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::shard_count;

    /// `hashint2` of the numbers from 0.
    const HASHES: [i32; 8] = [
        -272_711_505,
        -1_905_060_026,
        1_134_484_726,
        -28_094_569,
        -1_011_077_333,
        -1_330_264_708,
        566_031_088,
        -978_793_473,
    ];

    #[test]
    fn shards_spread_the_partitions_over_the_nodes_and_over_shards() {
        assert_eq!(shard_count(&HASHES[..2], 2), 3);
        assert_eq!(shard_count(&HASHES[..4], 2), 13);
        assert_eq!(shard_count(&HASHES, 2), 15);
        assert_eq!(shard_count(&HASHES, 1), 15);
    }
}
