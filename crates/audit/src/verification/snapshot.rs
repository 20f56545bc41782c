//! Connections that share one snapshot of the database, because several of them stream rows at the same time.

use passbook_event_store::PrimaryConnector;
use sqlx::{AssertSqlSafe, PgConnection, query_scalar, raw_sql};

/// The transaction may be idle for long, while other connections with its snapshot are read.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0";

/// A snapshot of the database. It exists as long as `lookups` is in its transaction.
pub(super) struct Snapshot {
    primary: PrimaryConnector,
    id: String,
    /// Streams the keys.
    pub(super) keys: PgConnection,
    /// Reads single rows.
    pub(super) lookups: PgConnection,
}

impl Snapshot {
    pub(super) async fn open(primary: &PrimaryConnector) -> sqlx::Result<Self> {
        let mut lookups = primary.connect().await?;
        raw_sql(BEGIN).execute(&mut lookups).await?;
        let id: String = query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut lookups).await?;
        let keys = join(primary, &id).await?;
        Ok(Self { primary: primary.clone(), id, keys, lookups })
    }

    /// Another connection with this snapshot.
    pub(super) async fn join(&self) -> sqlx::Result<PgConnection> {
        join(&self.primary, &self.id).await
    }
}

async fn join(primary: &PrimaryConnector, id: &str) -> sqlx::Result<PgConnection> {
    let mut connection = primary.connect().await?;
    raw_sql(BEGIN).execute(&mut connection).await?;
    // The statement takes no parameters. The id comes from the server and contains only hex digits and dashes.
    raw_sql(AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{id}'"))).execute(&mut connection).await?;
    Ok(connection)
}
