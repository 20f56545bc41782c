//! The number of partitions of a log. It is stored when the log is created and never changes, because it determines the
//! partition of every stream.

use sqlx::{Connection, PgConnection, Result, query, query_scalar};

use super::partition::Partitions;

/// Reads the number of partitions. `None`: the log has not been created.
///
/// # Errors
/// A database error.
pub async fn read(connection: &mut PgConnection) -> Result<Option<Partitions>> {
    let count = query_scalar!("SELECT count FROM log_layout WHERE partition = 0").fetch_optional(connection).await?;
    Ok(count.and_then(Partitions::new))
}

/// Creates the log with `wanted` partitions unless it exists. Returns the number of partitions that the log has.
///
/// If several instances start together, the first one decides.
///
/// # Errors
/// A database error.
pub async fn ensure(connection: &mut PgConnection, wanted: Partitions) -> Result<Partitions> {
    if let Some(partitions) = read(connection).await? {
        return Ok(partitions);
    }
    let mut transaction = connection.begin().await?;
    create(&mut transaction, wanted).await?;
    transaction.commit().await?;
    Ok(read(connection).await?.unwrap_or(wanted))
}

/// Creates the log in the caller's transaction. Returns `false` if the log exists already.
///
/// # Errors
/// A database error.
pub async fn create(connection: &mut PgConnection, wanted: Partitions) -> Result<bool> {
    let created = query!(
        "INSERT INTO log_layout (partition, count) VALUES (0, $1) ON CONFLICT (partition) DO NOTHING",
        wanted.count()
    )
    .execute(&mut *connection)
    .await?;
    if created.rows_affected() == 0 {
        // The insert waited until the other transaction committed, so its heads exist as well.
        return Ok(false);
    }
    for partition in wanted.all() {
        query!(
            "INSERT INTO log_head (partition, position, hash, recorded_at, fence)
             VALUES ($1, 0, decode(repeat('00', 32), 'hex'), 'epoch', 0)
             ON CONFLICT (partition) DO NOTHING",
            partition
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(true)
}
