//! The index of idempotency keys by time, which deletion by age, `passbook copy` and `passbook verify` read.
//!
//! The table can have millions of rows, and an index that a migration builds blocks every writer meanwhile. This one is built
//! after the migrations with `CREATE INDEX CONCURRENTLY`, which blocks no command.

use std::time::Duration;

use sqlx::{PgConnection, query_as, raw_sql};
use tokio::time::sleep;

const CREATE: &str =
    "CREATE INDEX CONCURRENTLY idempotency_key_recorded_at ON idempotency_key (partition, recorded_at)";
/// Removes what an interrupted build has left.
const REMOVE: &str = "DROP INDEX CONCURRENTLY IF EXISTS idempotency_key_recorded_at";
/// The interval between two looks at the build of another instance.
const POLL_MS: u64 = 1_000;

/// The state of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// Another connection builds it.
    Growing,
    /// Its build was interrupted.
    Incomplete,
    Built,
}

/// Whether the index can be used.
pub(super) async fn is_built(connection: &mut PgConnection) -> sqlx::Result<bool> {
    Ok(state(connection).await? == State::Built)
}

/// Builds the index, or waits until another instance has built it. The build waits for transactions that are older than itself,
/// such as a backup.
pub(super) async fn build(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Without these limits the session waits as long as needed. The connection is closed after the migration.
    raw_sql("SET lock_timeout = 0").execute(&mut *connection).await?;
    let mut last = State::Missing;
    let mut is_logged = false;
    loop {
        let found = state(connection).await?;
        match (found, last) {
            (State::Built, _) => return Ok(()),
            (State::Missing, _) => match raw_sql(CREATE).execute(&mut *connection).await {
                // Another instance has begun to build the index.
                Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P07" | "23505")) => {}
                created => return created.map(drop),
            },
            // The build may have ended between the reads of its progress and of the catalog, so a second look decides.
            (State::Incomplete, State::Incomplete) => {
                raw_sql(REMOVE).execute(&mut *connection).await?;
                last = State::Missing;
                continue;
            }
            (State::Incomplete | State::Growing, _) => {
                if found == State::Growing && !std::mem::replace(&mut is_logged, true) {
                    tracing::warn!("another instance builds an index; waiting until it has finished");
                }
                sleep(Duration::from_millis(POLL_MS)).await;
            }
        }
        last = found;
    }
}

async fn state(connection: &mut PgConnection) -> sqlx::Result<State> {
    let index: Option<(bool, bool)> = query_as(
        "SELECT indisvalid, EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = indexrelid)
         FROM pg_index
         WHERE indexrelid = to_regclass('idempotency_key_recorded_at')",
    )
    .fetch_optional(connection)
    .await?;
    Ok(match index {
        None => State::Missing,
        Some((true, _)) => State::Built,
        Some((false, true)) => State::Growing,
        Some((false, false)) => State::Incomplete,
    })
}
