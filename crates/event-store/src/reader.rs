//! Reads pages of the log: for projections as [`RecordedEvent`], and with metadata and hash as [`EventWithHash`] for the event
//! log API, the relay and the copy.
//!
//! Positions have no gaps and become visible in order, so a reader that continues after its last position never skips an event.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, Result, query_as, query_file, query_scalar};
use uuid::Uuid;

use super::{
    event::{EventRow, EventWithHash, RecordedEvent},
    locked_read::{EVENT_ROW_BYTES, LOCKED_READ_BYTES_MAX, LOCKED_READ_EVENTS_MAX},
};

/// Reads up to `limit` events after `position`.
///
/// # Errors
/// A database error.
pub async fn events_after(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>> {
    query_as!(
        RecordedEvent,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!", recorded_at
           FROM event
           WHERE partition = $1 AND position > $2
           ORDER BY position
           LIMIT $3"#,
        partition,
        position,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Reads events after `position` for a caller that holds a lock: at most [`LOCKED_READ_BYTES_MAX`]. An empty result means that
/// there are no more.
///
/// # Errors
/// A database error.
pub async fn locked_events_after(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
) -> Result<Vec<RecordedEvent>> {
    let (from, bytes_max) = (position + 1, LOCKED_READ_BYTES_MAX as i64);
    let rows = query_file!("src/events_since.sql", partition, from, LOCKED_READ_EVENTS_MAX, bytes_max, EVENT_ROW_BYTES);
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| RecordedEvent {
        position: row.position,
        id: row.id,
        stream_id: row.stream_id,
        version: row.version,
        event_type: row.event_type,
        schema_version: row.schema_version,
        data: row.data,
        recorded_at: row.recorded_at,
    });
    Ok(rows.collect())
}

/// Reads the first `limit` events of one stream whose positions are at most `last_position`.
///
/// # Errors
/// A database error.
pub async fn stream_events_up_to(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    last_position: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>> {
    query_as!(
        RecordedEvent,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!", recorded_at
           FROM event
           WHERE partition = $1 AND stream_id = $2 AND position <= $3
           ORDER BY version
           LIMIT $4"#,
        partition,
        stream_id,
        last_position,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Reads up to `limit` events from `position` on, including the event at `position`: a reader that has read it before can
/// compare its hash.
///
/// # Errors
/// A database error.
pub async fn page(
    connection: &mut PgConnection,
    partition: i16,
    position: i64,
    limit: i64,
) -> Result<Vec<EventWithHash>> {
    let rows = query_as!(
        EventRow,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND position >= $2
           ORDER BY position
           LIMIT $3"#,
        partition,
        position,
        limit
    );
    Ok(with_hashes(rows.fetch_all(connection).await?))
}

/// Selects events of one type in one partition.
#[derive(Clone, Copy, Debug)]
pub struct TypeFilter<'a> {
    /// The partition.
    pub partition: i16,
    /// The name of the event type.
    pub event_type: &'a str,
    /// Events after this position are selected.
    pub after: i64,
}

/// Reads up to `limit` events of a type that moves no money, through an index that contains only such types.
///
/// # Errors
/// A database error.
pub async fn page_of_rare_type(
    connection: &mut PgConnection,
    filter: TypeFilter<'_>,
    limit: i64,
) -> Result<Vec<EventWithHash>> {
    // The statement repeats the condition of the partial index, or Postgres would not use it.
    let rows = query_as!(
        EventRow,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND type = $2 AND position > $3
             AND type NOT IN ('MoneyDeposited', 'MoneyWithdrawn', 'TransferSent', 'TransferReceived')
           ORDER BY position
           LIMIT $4"#,
        filter.partition,
        filter.event_type,
        filter.after,
        limit
    );
    Ok(with_hashes(rows.fetch_all(connection).await?))
}

/// The number of events of types that move no money, up to a position, through the index that contains only such types.
///
/// # Errors
/// A database error.
pub async fn count_of_rare_types(
    connection: &mut PgConnection,
    partition: i16,
    types: &[&str],
    position: i64,
) -> Result<i64> {
    query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM event
           WHERE partition = $1 AND type = ANY($2) AND position <= $3
             AND type NOT IN ('MoneyDeposited', 'MoneyWithdrawn', 'TransferSent', 'TransferReceived')"#,
        partition,
        types as _,
        position
    )
    .fetch_one(connection)
    .await
}

/// Reads up to `limit` events of any type whose positions are at most `last_position`. Postgres reads every event in that
/// range, so the caller bounds the range.
///
/// # Errors
/// A database error.
pub async fn page_of_common_type(
    connection: &mut PgConnection,
    filter: TypeFilter<'_>,
    last_position: i64,
    limit: i64,
) -> Result<Vec<EventWithHash>> {
    let rows = query_as!(
        EventRow,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND type = $2 AND position > $3 AND position <= $4
           ORDER BY position
           LIMIT $5"#,
        filter.partition,
        filter.event_type,
        filter.after,
        last_position,
        limit
    );
    Ok(with_hashes(rows.fetch_all(connection).await?))
}

/// Reads up to `limit` events of a stream after `version`.
///
/// # Errors
/// A database error.
pub async fn page_of_stream(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    version: i64,
    limit: i64,
) -> Result<Vec<EventWithHash>> {
    let rows = query_as!(
        EventRow,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1 AND stream_id = $2 AND version > $3
           ORDER BY version
           LIMIT $4"#,
        partition,
        stream_id,
        version,
        limit
    );
    Ok(with_hashes(rows.fetch_all(connection).await?))
}

/// Reads the events of a stream that were recorded at exactly this time, by one batch.
///
/// # Errors
/// A database error.
pub async fn stream_events_at(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    recorded_at: DateTime<Utc>,
) -> Result<Vec<RecordedEvent>> {
    // The primary key leads to the batch. The index over streams would read the whole stream.
    let after = position_at(connection, partition, recorded_at).await?;
    let last = position_at(connection, partition, recorded_at + TimeDelta::microseconds(1)).await?;
    query_as!(
        RecordedEvent,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!", recorded_at
           FROM event
           WHERE partition = $1 AND position > $2 AND position <= $3 AND stream_id = $4
           ORDER BY position"#,
        partition,
        after,
        last,
        stream_id
    )
    .fetch_all(connection)
    .await
}

/// Reads the hash of the event at `position`. `None`: there is no such event.
///
/// # Errors
/// A database error.
pub async fn hash_at(connection: &mut PgConnection, partition: i16, position: i64) -> Result<Option<Vec<u8>>> {
    query_scalar!("SELECT hash FROM event WHERE partition = $1 AND position = $2", partition, position)
        .fetch_optional(connection)
        .await
}

/// Returns the position of the last event that was recorded before `time`, or 0 if there is none.
///
/// # Errors
/// A database error.
pub async fn position_at(connection: &mut PgConnection, partition: i16, time: DateTime<Utc>) -> Result<i64> {
    query_scalar!(r#"SELECT position_at($1, $2) AS "position!""#, partition, time).fetch_one(connection).await
}

fn with_hashes(rows: Vec<EventRow>) -> Vec<EventWithHash> {
    rows.into_iter().map(EventWithHash::from).collect()
}
