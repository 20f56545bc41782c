//! Resolves an append whose outcome is unknown because the connection broke or timed out before the response came.
//!
//! Either the append committed, or its fence is raised so that it can never commit later. Without the fence, a statement that
//! is still on its way to the server could commit after the command was reported as failed.

use sqlx::{Connection, PgConnection, Result, query, query_scalar};
use uuid::Uuid;

use super::log::lock_head;

/// The position that an append assigned to an event, whether or not the append committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// The partition of the event.
    pub partition: i16,
    /// The position within the partition.
    pub position: i64,
    /// The event's id.
    pub id: Uuid,
}

/// Returns whether the append committed. If not, its fences are raised and it can never commit.
///
/// `first_events` contains the first event of the append in each partition that it writes to, by ascending partition. The
/// function runs in a transaction of its own and takes the log-head locks in that order.
///
/// # Errors
/// A database error, also if only some of the partitions contain the append. That means that the database lost part of a
/// transaction. Nothing is written in either case.
pub async fn resolve_unknown_append(connection: &mut PgConnection, first_events: &[EventRef]) -> Result<bool> {
    let mut transaction = connection.begin().await?;
    let mut recorded = 0;
    for EventRef { partition, position, id } in first_events {
        lock_head(&mut transaction, *partition).await?;
        let found = query_scalar!("SELECT id FROM event WHERE partition = $1 AND position = $2", partition, position)
            .fetch_optional(&mut *transaction)
            .await?;
        recorded += usize::from(found == Some(*id));
    }
    if recorded == 0 {
        for EventRef { partition, .. } in first_events {
            query!("UPDATE log_head SET fence = fence + 1 WHERE partition = $1", partition)
                .execute(&mut *transaction)
                .await?;
        }
    } else if recorded < first_events.len() {
        let message = "an append over several partitions is recorded in some of them only: the log is damaged; run `passbook verify`";
        return Err(sqlx::Error::Protocol(message.into()));
    }
    transaction.commit().await?;
    Ok(recorded > 0)
}
