//! Finds the versions of an account at moments of its history. A query that names times asks for their versions first: Citus
//! refuses a function that reads tables in a statement that reads tables itself.

use chrono::{DateTime, Utc};
use sqlx::{PgPool, query};
use uuid::Uuid;

/// The versions of an account at several times.
pub(in crate::views) struct LiveVersions {
    /// The checkpoint of the view when they were read; `None` if no time was asked for. The answer of a query that uses the
    /// versions is not newer.
    pub(in crate::views) position: Option<i64>,
    /// For each time, the last version recorded at that time or before it; 0 before the opening.
    pub(in crate::views) versions: Vec<i64>,
}

/// Reads the versions of an account at these times from the live generation of the view; `None` if there is none. A version is the
/// same in all generations, so another one may be live when the versions are used.
///
/// # Errors
/// The database failed.
pub(in crate::views) async fn live_versions_at(
    pool: &PgPool,
    partition: i16,
    account_id: Uuid,
    times: &[DateTime<Utc>],
) -> sqlx::Result<Option<LiveVersions>> {
    if times.is_empty() {
        return Ok(Some(LiveVersions { position: None, versions: vec![] }));
    }
    let row = query!(
        r#"SELECT view_position AS "position!", versions AS "versions!" FROM live_versions_at($1, $2, $3)"#,
        partition,
        account_id,
        times
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.map(|row| LiveVersions { position: Some(row.position), versions: row.versions }))
}
