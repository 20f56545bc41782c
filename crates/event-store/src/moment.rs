//! Moments of the log: the position up to which a view must have read so that its answer for a moment is final.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Result, query};
use uuid::Uuid;

/// The result of [`settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The position of the last event recorded at the moment or before it. No other event will be recorded there.
    At(i64),
    /// The moment is in the future, so events may still be recorded before it.
    Future,
}

/// Makes a moment of one partition final.
///
/// For a moment after the last event it raises the time of the log's head, so that every later event gets a later time. It then
/// waits for the log-head lock, and is durable when it returns.
///
/// # Errors
/// A database error, also if the database is read-only.
pub async fn settle(connection: &mut PgConnection, partition: i16, moment: DateTime<Utc>) -> Result<Settled> {
    let row = query!(
        r#"SELECT final_position AS "final_position!", is_future AS "is_future!" FROM settle_moment($1, $2)"#,
        partition,
        moment
    )
    .fetch_one(connection)
    .await?;
    Ok(if row.is_future { Settled::Future } else { Settled::At(row.final_position) })
}

/// The version and the position of the last event of a stream up to `version`; `None` if the stream has no such event.
///
/// # Errors
/// A database error.
pub async fn last_event_up_to(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    version: i64,
) -> Result<Option<(i64, i64)>> {
    let row = query!(
        "SELECT version, position
         FROM event
         WHERE partition = $1 AND stream_id = $2 AND version <= $3
         ORDER BY version DESC
         LIMIT 1",
        partition,
        stream_id,
        version
    );
    Ok(row.fetch_optional(connection).await?.map(|row| (row.version, row.position)))
}
