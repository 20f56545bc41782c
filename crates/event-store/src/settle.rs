//! An append that got no answer: whether it stands, and if not, that it never will.

use sqlx::{Connection, PgConnection, Result, query, query_scalar};
use uuid::Uuid;

use super::log::lock_head;

/// Where an event would stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which partition.
    pub partition: i16,
    /// At which position.
    pub position: i64,
    /// The event's id.
    pub id: Uuid,
}

/// Settles an append whose outcome is unknown: whether its first events stand where they would, one in each partition, in
/// ascending order. If they do not, the fences are raised before anybody is told so, and the lost call can never succeed
/// later. In a transaction of its own.
pub async fn settle(connection: &mut PgConnection, places: &[Place]) -> Result<bool> {
    let mut transaction = connection.begin().await?;
    let mut recorded = 0;
    for Place { partition, position, id } in places {
        lock_head(&mut transaction, *partition).await?;
        let found = query_scalar!("SELECT id FROM event WHERE partition = $1 AND position = $2", partition, position)
            .fetch_optional(&mut *transaction)
            .await?;
        recorded += usize::from(found == Some(*id));
    }
    if recorded == 0 {
        for Place { partition, .. } in places {
            query!("UPDATE log_head SET fence = fence + 1 WHERE partition = $1", partition)
                .execute(&mut *transaction)
                .await?;
        }
    } else if recorded < places.len() {
        // A transaction is recorded whole. Nothing is told, and nothing is written, on top of a half.
        return Err(sqlx::Error::Protocol("one transaction stands in some partitions and not in others".into()));
    }
    transaction.commit().await?;
    Ok(recorded > 0)
}
