//! Confirms that the synchronous standbys have the rows that a connection shows.
//!
//! A commit waits for the synchronous standbys before others see it. After a restart of Postgres this does not hold: recovery shows
//! a commit that was still waiting, although no standby may have it, and a failover would lose it. A later commit that waits proves
//! that the standbys have everything before it. A connection ends with its server, so one such commit for each connection is enough.

use std::ops::Range;

use sqlx::{Connection, PgConnection, Result, raw_sql};

use super::log::lock_head;

/// Waits for a commit in each of these partitions, in ascending order. Everything that the connection shows of them from then on is
/// on the standbys.
///
/// The commit changes no row. It takes the log-head locks. Postgres writes row locks to the WAL, so the commit waits
/// for the standbys like an append.
/// While standbys do not answer, one caller at a time waits for them with the lock, and the others fail by `lock_timeout`:
/// abandoned connections do not accumulate.
///
/// # Errors
/// A database error, also if a lock is not free within `lock_timeout`.
pub async fn confirm(connection: &mut PgConnection, partitions: Range<i16>) -> Result<()> {
    let mut transaction = connection.begin().await?;
    // Connections that only write views have asynchronous commits.
    raw_sql("SET LOCAL synchronous_commit = on").execute(&mut *transaction).await?;
    for partition in partitions {
        lock_head(&mut transaction, partition).await?;
    }
    transaction.commit().await
}
