//! How far a stream must reach, as this database remembers it; and how far it is behind.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Result, query};
use tokio::time::timeout;

use super::log::Place;

/// How long one statement may take before its server is taken for frozen.
const STATEMENT_MS_MAX: u64 = 5_000;

/// How far behind a stream is.
pub(super) struct Lag {
    /// The log's last position.
    pub(super) head: i64,
    /// When the first event that is not published was recorded.
    pub(super) waiting_since: Option<DateTime<Utc>>,
}

/// How far a stream reached when somebody noted it.
#[derive(Default)]
pub(super) struct Noted {
    /// The position that was published last; 0 where nobody has noted any.
    pub(super) position: i64,
    /// The last event of which it is known which one it was, there or before.
    pub(super) event: Option<Place>,
}

impl Noted {
    /// Whether the event at the position itself is known.
    pub(super) fn is_whole(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.position == self.position)
    }
}

/// How far the stream reached.
pub(super) async fn load(pool: &PgPool, partition: i16, name: &str) -> Result<Noted> {
    let found =
        query!("SELECT position, hash_position, hash FROM relay WHERE partition = $1 AND name = $2", partition, name);
    let Some(row) = in_time(found.fetch_optional(pool)).await? else { return Ok(Noted::default()) };
    let event = row.hash_position.zip(row.hash).map(|(position, hash)| Place { position, hash });
    Ok(Noted { position: row.position, event: event.filter(|event| event.position <= row.position) })
}

/// Notes that everything up to `place` is published. It never goes back: a second relay may be further.
pub(super) async fn save(pool: &PgPool, partition: i16, name: &str, place: &Place) -> Result<()> {
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
        place.position,
        place.hash
    );
    in_time(saved.execute(pool)).await.map(drop)
}

/// Forgets what was published behind `position`, which is about to be published again.
pub(super) async fn take_back(pool: &PgPool, partition: i16, name: &str, position: i64) -> Result<()> {
    let taken = query!(
        "UPDATE relay SET position = $3, hash_position = NULL, hash = NULL, updated_at = now()
         WHERE partition = $1 AND name = $2 AND position > $3",
        partition,
        name,
        position
    );
    in_time(taken.execute(pool)).await.map(drop)
}

/// How far behind a stream is that holds everything up to `position`.
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
    let row = in_time(row.fetch_one(pool)).await?;
    Ok(Lag { head: row.head, waiting_since: row.waiting_since })
}

async fn in_time<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(Duration::from_millis(STATEMENT_MS_MAX), statement).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}
