//! Resolves an append whose outcome is unknown because the connection broke or timed out before the response came.
//!
//! Either the append committed, or its fence is raised so that it can never commit later. Without the fence, a statement that
//! is still on its way to the server could commit after the command was reported as failed.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Result, query, query_scalar};
use uuid::Uuid;

use super::log::{KeyId, lock_head};

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

/// The key that an append without events recorded, whether or not the append committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// The partition of the key.
    pub partition: i16,
    /// The key.
    pub id: KeyId,
    /// The time of the batch. No other batch of the partition has it, so it distinguishes this append from another one that
    /// recorded the same key.
    pub recorded_at: DateTime<Utc>,
}

/// The first row that an append writes to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstRow {
    /// The first event.
    Event(EventRef),
    /// The first key of an append without events.
    Key(KeyRef),
}

impl FirstRow {
    fn partition(&self) -> i16 {
        match self {
            FirstRow::Event(event) => event.partition,
            FirstRow::Key(key) => key.partition,
        }
    }

    async fn is_recorded(&self, connection: &mut PgConnection) -> Result<bool> {
        match self {
            FirstRow::Event(EventRef { partition, position, id }) => {
                let found =
                    query_scalar!("SELECT id FROM event WHERE partition = $1 AND position = $2", partition, position);
                Ok(found.fetch_optional(connection).await? == Some(*id))
            }
            FirstRow::Key(KeyRef { partition, id, recorded_at }) => {
                let found = query_scalar!(
                    "SELECT recorded_at FROM idempotency_key WHERE partition = $1 AND caller = $2 AND key = $3",
                    partition,
                    &*id.caller,
                    id.key
                );
                Ok(found.fetch_optional(connection).await? == Some(*recorded_at))
            }
        }
    }
}

/// Returns whether the append committed. If not, its fences are raised and it can never commit.
///
/// `first_rows` contains the first row of the append in each partition that it writes to, by ascending partition. The function
/// runs in a transaction of its own and takes the log-head locks in that order.
///
/// # Errors
/// A database error, also if only some of the partitions contain the append. That means that the database lost part of a
/// transaction. Nothing is written in either case.
pub async fn resolve_unknown_append(connection: &mut PgConnection, first_rows: &[FirstRow]) -> Result<bool> {
    let mut transaction = connection.begin().await?;
    let mut recorded = 0;
    for row in first_rows {
        lock_head(&mut transaction, row.partition()).await?;
        recorded += usize::from(row.is_recorded(&mut transaction).await?);
    }
    if recorded == 0 {
        for row in first_rows {
            query!("UPDATE log_head SET fence = fence + 1 WHERE partition = $1", row.partition())
                .execute(&mut *transaction)
                .await?;
        }
    } else if recorded < first_rows.len() {
        let message = "an append over several partitions is recorded in some of them only: the log is damaged; run `passbook verify`";
        return Err(sqlx::Error::Protocol(message.into()));
    }
    transaction.commit().await?;
    Ok(recorded > 0)
}
