//! The identity of a server that accepts writes: the database cluster that it belongs to, and its timeline.
//!
//! Each promotion of a standby starts a timeline with a higher number. A former primary that accepts writes again has a lower
//! one than its successor. The highest timeline that took writes is recorded in the database, so that a restarted process
//! knows it too.

use std::io;

use sqlx::{Connection, PgConnection, Result, Row, postgres::PgRow, query, raw_sql};

/// Reads the identity. A standby has no timeline of its own, and `pg_walfile_name` fails there.
const IDENTIFY: &str = "SELECT current_setting('transaction_read_only')::boolean, system_identifier,
        CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END
    FROM pg_control_system()";
/// For servers that only speak the protocol of Postgres and have no timelines.
const IS_READ_ONLY: &str = "SELECT current_setting('transaction_read_only')::boolean";

/// A timeline of a database cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The number that `initdb` gave to the cluster. The standbys of a primary have it too.
    pub(crate) system_identifier: i64,
    /// The timeline, as in the names of WAL files.
    pub(crate) timeline: i64,
}

impl Identity {
    /// Whether this timeline is older than `other` in the same cluster.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.system_identifier == other.system_identifier && self.timeline < other.timeline
    }
}

/// What a server says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerState {
    /// Whether the server accepts no writes.
    pub(crate) is_read_only: bool,
    /// `None` for a standby, and for a server without timelines.
    pub(crate) identity: Option<Identity>,
}

/// Why a server that accepts writes is not the primary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its description")]
pub enum NotPrimary {
    #[error("no server that responds accepts writes")]
    ReadOnly,
    #[error(
        "the server that accepts writes has timeline {timeline}, but timeline {newer} took writes later: it is a former primary. \
         Rebuild it as a standby (pg_rewind). If it must become the primary again, stop every instance and run `TRUNCATE \
         server_timeline` there"
    )]
    FormerPrimary { timeline: i64, newer: i64 },
    #[error(
        "the server that accepts writes belongs to another database cluster than the servers before: list only a primary and its \
         standbys in PASSBOOK_DATABASE_URL, and restart this process if the cluster was replaced"
    )]
    OtherCluster,
}

impl From<NotPrimary> for sqlx::Error {
    /// An [`io::Error`], because the primary may be reachable later.
    fn from(reason: NotPrimary) -> Self {
        io::Error::new(io::ErrorKind::ReadOnlyFilesystem, reason).into()
    }
}

/// Asks a server for its state in one round trip.
///
/// # Errors
/// The server does not answer.
pub(crate) async fn identify(connection: &mut PgConnection) -> Result<ServerState> {
    match raw_sql(IDENTIFY).fetch_one(&mut *connection).await {
        Ok(row) => state_from_row(&row),
        Err(sqlx::Error::Database(_)) => {
            let is_read_only = raw_sql(IS_READ_ONLY).fetch_one(connection).await?.try_get(0)?;
            Ok(ServerState { is_read_only, identity: None })
        }
        Err(error) => Err(error),
    }
}

fn state_from_row(row: &PgRow) -> Result<ServerState> {
    let (system_identifier, timeline): (i64, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    let timeline = timeline.and_then(|digits| i64::from_str_radix(&digits, 16).ok());
    let identity = timeline.map(|timeline| Identity { system_identifier, timeline });
    Ok(ServerState { is_read_only: row.try_get(0)?, identity })
}

/// The highest timeline that took writes, as the database recorded it.
///
/// # Errors
/// The server does not answer.
pub(crate) async fn recorded(connection: &mut PgConnection) -> Result<Option<Identity>> {
    let row = query!("SELECT system_identifier, timeline FROM server_timeline WHERE partition = 0");
    match row.fetch_optional(connection).await {
        Ok(row) => Ok(row.map(|row| Identity { system_identifier: row.system_identifier, timeline: row.timeline })),
        // undefined_table: the database is not migrated yet; insufficient_privilege: this user may not read it.
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P01" | "42501")) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Records that this timeline took writes. A later timeline stays.
///
/// # Errors
/// A database error.
pub(crate) async fn record(connection: &mut PgConnection, identity: Identity) -> Result<()> {
    let mut transaction = connection.begin().await?;
    // No command depends on the row, so the commit waits for no standby.
    raw_sql("SET LOCAL synchronous_commit = local").execute(&mut *transaction).await?;
    query!(
        "INSERT INTO server_timeline (partition, system_identifier, timeline, recorded_at)
         VALUES (0, $1, $2, clock_timestamp())
         ON CONFLICT (partition) DO UPDATE SET
             system_identifier = excluded.system_identifier,
             timeline = excluded.timeline,
             recorded_at = excluded.recorded_at
         WHERE server_timeline.partition = 0
             AND (
                 server_timeline.system_identifier <> excluded.system_identifier
                 OR server_timeline.timeline < excluded.timeline
             )",
        identity.system_identifier,
        identity.timeline
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Whether a server that accepts writes can be the primary: it may not be behind a timeline that took writes. `seen` is the
/// timeline of the primary that this process used last.
///
/// # Errors
/// The reason why it is not the primary.
pub(crate) fn judge(
    found: Option<Identity>,
    recorded: Option<Identity>,
    seen: Option<Identity>,
) -> Result<(), NotPrimary> {
    let Some(found) = found else { return Ok(()) };
    let newer = [recorded, seen].into_iter().flatten().find(|other| found.is_before(*other));
    match newer {
        Some(newer) => Err(NotPrimary::FormerPrimary { timeline: found.timeline, newer: newer.timeline }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(system_identifier: i64, timeline: i64) -> Option<Identity> {
        Some(Identity { system_identifier, timeline })
    }

    #[test]
    fn a_server_behind_a_timeline_that_took_writes_is_a_former_primary() {
        let former = Err(NotPrimary::FormerPrimary { timeline: 1, newer: 2 });
        assert_eq!(judge(on(7, 1), None, on(7, 2)), former);
        assert_eq!(judge(on(7, 1), on(7, 2), None), former);
        assert_eq!(judge(on(7, 1), on(7, 2), on(7, 1)), former);
        for (found, recorded, seen) in [
            (on(7, 2), on(7, 1), on(7, 2)),
            (on(7, 3), on(7, 2), on(7, 1)),
            // A dump contains the record of another cluster.
            (on(8, 1), on(7, 5), None),
            // Such a server has no timelines.
            (None, on(7, 5), on(7, 5)),
        ] {
            assert_eq!(judge(found, recorded, seen), Ok(()), "{found:?}");
        }
    }
}
