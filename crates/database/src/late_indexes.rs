//! The indexes that are built after the migrations: that of idempotency keys by time, and those of searches.
//!
//! Their tables can have millions of rows, and an index that a migration builds blocks every writer meanwhile. These are built with
//! `CREATE INDEX CONCURRENTLY`, which blocks neither commands nor projections. Until an index of searches is built, pages of searches
//! are shorter.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, query_as, query_scalar, raw_sql};
use tokio::time::sleep;

/// The interval between two looks at the build of another instance.
const POLL_MS: u64 = 1_000;

/// An index that is built after the migrations.
struct LateIndex {
    name: &'static str,
    /// The statement that builds it. `{trigrams}` stands for the operator class of trigrams.
    create: &'static str,
    /// Removes what an interrupted build has left.
    remove: &'static str,
}

const INDEXES: [LateIndex; 4] = [
    // Deletion by age, `passbook copy` and `passbook verify` read it.
    LateIndex {
        name: "idempotency_key_recorded_at",
        create: "CREATE INDEX CONCURRENTLY idempotency_key_recorded_at ON idempotency_key (partition, recorded_at)",
        remove: "DROP INDEX CONCURRENTLY IF EXISTS idempotency_key_recorded_at",
    },
    // The longest keys of an index have 2 700 bytes, so the indexes of texts have their first 64 characters. In the order of the
    // collation C, the texts with one beginning are a range.
    LateIndex {
        name: "account_view_owner_folded",
        create: "CREATE INDEX CONCURRENTLY account_view_owner_folded
                 ON account_view (partition, generation, (fold_case(left(owner, 64)) COLLATE \"C\"))
                 WHERE generation > 0",
        remove: "DROP INDEX CONCURRENTLY IF EXISTS account_view_owner_folded",
    },
    // An index of pairs has no order. A movement of money changes no entry, and accounts without metadata have none.
    LateIndex {
        name: "account_view_metadata",
        create: "CREATE INDEX CONCURRENTLY account_view_metadata
                 ON account_view USING gin ((metadata::jsonb) jsonb_path_ops)
                 WHERE metadata IS NOT NULL",
        remove: "DROP INDEX CONCURRENTLY IF EXISTS account_view_metadata",
    },
    LateIndex {
        name: "account_transaction_reference_folded",
        create: "CREATE INDEX CONCURRENTLY account_transaction_reference_folded
                 ON account_transaction (partition, generation, (fold_case(left(reference, 64)) COLLATE \"C\"))
                 WHERE generation > 0 AND reference IS NOT NULL",
        remove: "DROP INDEX CONCURRENTLY IF EXISTS account_transaction_reference_folded",
    },
];

/// The index of parts of ids. It needs the extension `pg_trgm`. An id is one word of 32 digits, without hyphens.
const ID_TRIGRAMS: LateIndex = LateIndex {
    name: "account_view_id_trigrams",
    create: "CREATE INDEX CONCURRENTLY account_view_id_trigrams
             ON account_view USING gin (replace(account_id::text, '-', '') {trigrams})",
    remove: "DROP INDEX CONCURRENTLY IF EXISTS account_view_id_trigrams",
};
/// Any user who may create schemas in the database may create this extension.
const CREATE_TRIGRAMS: &str = "CREATE EXTENSION IF NOT EXISTS pg_trgm";

/// The state of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// Another connection builds it.
    Growing,
    /// Its build was interrupted.
    Incomplete,
    Built,
}

/// Whether all indexes can be used that this database can have.
pub(super) async fn are_built(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let trigrams = trigram_class(connection).await?.map(|_| ID_TRIGRAMS);
    for index in INDEXES.into_iter().chain(trigrams) {
        if state(connection, &index).await? != State::Built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Builds the indexes, or waits until another instance has built them. The builds wait for transactions that are older than
/// themselves, such as a backup.
pub(super) async fn build(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Without these limits the session waits as long as needed. The connection is closed after the migration.
    raw_sql("SET lock_timeout = 0").execute(&mut *connection).await?;
    for index in INDEXES {
        build_one(connection, &index, index.create).await?;
    }
    if let Err(error) = raw_sql(CREATE_TRIGRAMS).execute(&mut *connection).await {
        let sqlx::Error::Database(_) = &error else { return Err(error) };
        // The server does not have the extension, or this user may not create it.
        tracing::info!(%error, "extension pg_trgm not created; searches for a part of an account id have shorter pages");
    }
    match trigram_class(connection).await? {
        Some(class) => build_one(connection, &ID_TRIGRAMS, &ID_TRIGRAMS.create.replace("{trigrams}", &class)).await,
        None => Ok(()),
    }
}

/// The operator class of trigrams with its schema, which need not be in the search path. `None` without the extension.
async fn trigram_class(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    let class = query_scalar(
        "SELECT format('%I.gin_trgm_ops', nspname)
         FROM pg_extension
         JOIN pg_namespace ON pg_namespace.oid = extnamespace
         WHERE extname = 'pg_trgm'",
    );
    class.fetch_optional(connection).await
}

async fn build_one(connection: &mut PgConnection, index: &LateIndex, create: &str) -> sqlx::Result<()> {
    let mut last = State::Missing;
    let mut is_logged = false;
    loop {
        let found = state(connection, index).await?;
        match (found, last) {
            (State::Built, _) => return Ok(()),
            (State::Missing, _) => match raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await {
                // Another instance has begun to build the index.
                Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P07" | "23505")) => {}
                created => return created.map(drop),
            },
            // The build may have ended between the reads of its progress and of the catalog, so a second look decides.
            (State::Incomplete, State::Incomplete) => {
                raw_sql(index.remove).execute(&mut *connection).await?;
                last = State::Missing;
                continue;
            }
            (State::Incomplete | State::Growing, _) => {
                if found == State::Growing && !std::mem::replace(&mut is_logged, true) {
                    let index = index.name;
                    tracing::warn!(index, "another instance builds an index; waiting until it has finished");
                }
                sleep(Duration::from_millis(POLL_MS)).await;
            }
        }
        last = found;
    }
}

async fn state(connection: &mut PgConnection, index: &LateIndex) -> sqlx::Result<State> {
    let state: Option<(bool, bool)> = query_as(
        "SELECT indisvalid, EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = indexrelid)
         FROM pg_index
         WHERE indexrelid = to_regclass($1)",
    )
    .bind(index.name)
    .fetch_optional(connection)
    .await?;
    Ok(match state {
        None => State::Missing,
        Some((true, _)) => State::Built,
        Some((false, true)) => State::Growing,
        Some((false, false)) => State::Incomplete,
    })
}
