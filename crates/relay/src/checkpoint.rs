//! The checkpoint of a stream: how much of the log it contained when the relay last saved it. The table `relay` stores it, so
//! that a missing or truncated stream is detected.

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Result, query};

use super::log_reader::{LogPosition, STATEMENT_MAX};
use passbook_event_store::with_timeout;

/// How far a stream is behind the log.
pub(super) struct Lag {
    /// The log's last position.
    pub(super) head: i64,
    /// When the oldest unpublished event was recorded; `None` if all events are published.
    pub(super) oldest_recorded_at: Option<DateTime<Utc>>,
}

/// The stored progress of a stream.
#[derive(Default)]
pub(super) struct Checkpoint {
    /// The last published position; 0 if none was saved.
    pub(super) position: i64,
    /// The last published event whose hash was saved. It is at `position` or before it.
    pub(super) event: Option<LogPosition>,
}

impl Checkpoint {
    /// Whether the hash of the event at `position` itself was saved.
    pub(super) fn has_hash_at_position(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.position == self.position)
    }
}

/// Loads the checkpoint of the stream `name`.
///
/// # Errors
/// The database is unavailable, as for all functions of this file.
pub(super) async fn load(pool: &PgPool, partition: i16, name: &str) -> Result<Checkpoint> {
    let found =
        query!("SELECT position, hash_position, hash FROM relay WHERE partition = $1 AND name = $2", partition, name);
    let row = with_timeout(STATEMENT_MAX, found.fetch_optional(pool)).await?;
    let Some(row) = row else { return Ok(Checkpoint::default()) };
    let event = row.hash_position.zip(row.hash).map(|(position, hash)| LogPosition { position, hash });
    Ok(Checkpoint { position: row.position, event: event.filter(|event| event.position <= row.position) })
}

/// Saves that the stream contains everything up to `event`. The position never decreases: a second relay may be ahead.
pub(super) async fn save(pool: &PgPool, partition: i16, name: &str, event: &LogPosition) -> Result<()> {
    let saved = query!(
        "INSERT INTO relay (partition, name, position, hash_position, hash, updated_at)
         VALUES ($1, $2, $3, $3, $4, now())
         ON CONFLICT (partition, name) DO UPDATE SET
             position = excluded.position,
             hash_position = excluded.hash_position,
             hash = excluded.hash,
             updated_at = excluded.updated_at
         WHERE relay.partition = $1
             AND (
                 relay.position < excluded.position
                 OR relay.position = excluded.position AND relay.hash_position IS DISTINCT FROM excluded.position
             )",
        partition,
        name,
        event.position,
        event.hash
    );
    with_timeout(STATEMENT_MAX, saved.execute(pool)).await.map(drop)
}

/// Moves the checkpoint back to `position`, after which the relay publishes again.
pub(super) async fn rewind(pool: &PgPool, partition: i16, name: &str, position: i64) -> Result<()> {
    let rewound = query!(
        "UPDATE relay SET position = $3, hash_position = NULL, hash = NULL, updated_at = now()
         WHERE partition = $1 AND name = $2 AND position > $3",
        partition,
        name,
        position
    );
    with_timeout(STATEMENT_MAX, rewound.execute(pool)).await.map(drop)
}

/// Measures the lag of a stream that contains everything up to `position`.
pub(super) async fn lag(pool: &PgPool, partition: i16, position: i64) -> Result<Lag> {
    let row = query!(
        r#"SELECT
               log_head.position AS head,
               (
                   SELECT event.recorded_at
                   FROM event
                   WHERE event.partition = $1 AND event.position = $2::bigint + 1
               ) AS waiting_since
           FROM log_head
           WHERE log_head.partition = $1"#,
        partition,
        position
    );
    let row = with_timeout(STATEMENT_MAX, row.fetch_one(pool)).await?;
    Ok(Lag { head: row.head, oldest_recorded_at: row.waiting_since })
}
