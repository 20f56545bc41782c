//! Into how many partitions the log is divided: fixed once, before the first event.

use sqlx::{Connection, PgConnection, Result, query, query_scalar};

use super::Partitions;

/// How many partitions the log has; `None` as long as nobody has fixed it.
pub async fn fixed(connection: &mut PgConnection) -> Result<Option<Partitions>> {
    let count = query_scalar!("SELECT count FROM log_layout WHERE partition = 0").fetch_optional(connection).await?;
    Ok(count.and_then(Partitions::new))
}

/// Creates the log with so many partitions, unless it is created already, and says how many it has. Of several instances
/// that start together the first decides.
pub async fn fix(connection: &mut PgConnection, wanted: Partitions) -> Result<Partitions> {
    if let Some(partitions) = fixed(connection).await? {
        return Ok(partitions);
    }
    let mut transaction = connection.begin().await?;
    create(&mut transaction, wanted).await?;
    transaction.commit().await?;
    Ok(fixed(connection).await?.unwrap_or(wanted))
}

/// Creates the log in a transaction of the caller's; false where it was created before.
pub async fn create(connection: &mut PgConnection, wanted: Partitions) -> Result<bool> {
    let created = query!(
        "INSERT INTO log_layout (partition, count) VALUES (0, $1) ON CONFLICT (partition) DO NOTHING",
        wanted.count()
    )
    .execute(&mut *connection)
    .await?;
    if created.rows_affected() == 0 {
        // Whoever came too late for the row has waited until it stood, and all heads with it.
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
