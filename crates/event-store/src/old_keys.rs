//! Deletes idempotency keys by age, in slices. The database refuses to delete young ones.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Result, query};

/// A deleted slice of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedSlice {
    /// The number of deleted keys.
    pub keys: i64,
    /// The time of the last one, at which the next slice begins; `None` if there is no key of this age.
    pub end: Option<DateTime<Utc>>,
}

/// Deletes up to `keys_max` keys of a partition, oldest first, that were recorded at `after` or later and more than
/// `retention_days` before the present. The present is the database's clock, but not later than the last batch of the partition.
///
/// # Errors
/// A database error, also if `retention_days` is less than 1.
pub async fn delete_slice(
    connection: &mut PgConnection,
    partition: i16,
    retention_days: i32,
    after: DateTime<Utc>,
    keys_max: i32,
) -> Result<DeletedSlice> {
    let slice = query!(
        r#"SELECT deleted AS "deleted!", last_recorded_at AS "last_recorded_at?" FROM delete_old_keys($1, $2, $3, $4)"#,
        partition,
        retention_days,
        after,
        keys_max
    )
    .fetch_one(connection)
    .await?;
    Ok(DeletedSlice { keys: slice.deleted, end: slice.last_recorded_at })
}
