//! Reads the whole log for verification: every event with its hash, every snapshot, and every key with its receipt.

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use sqlx::{PgConnection, Result, query_as, query_file_as};
use uuid::Uuid;

use super::{
    event::{EventRow, EventWithHash},
    hash_chain::Hash,
};

/// A recorded idempotency key.
#[derive(Debug)]
pub struct RecordedKey {
    /// The caller that the key belongs to.
    pub caller: String,
    /// The key.
    pub key: String,
    /// When the key was recorded: the time of its batch.
    pub recorded_at: DateTime<Utc>,
    /// The position of the last event recorded at that time or before it; `None` if a release before 0.3 recorded the key.
    pub position: Option<i64>,
    /// The JSON of the receipt or of the refusal.
    pub receipt: String,
}

/// A recorded snapshot.
#[derive(Debug)]
pub struct RecordedSnapshot {
    /// The stream.
    pub stream_id: Uuid,
    /// The version of the last event that is part of the state.
    pub version: i64,
    /// The state's JSON.
    pub state: String,
}

/// Reads every event of a partition in the order of positions.
///
/// # Errors
/// The stream yields a database error and then ends.
pub fn events(connection: &mut PgConnection, partition: i16) -> BoxStream<'_, Result<EventWithHash>> {
    query_as!(
        EventRow,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1
           ORDER BY position"#,
        partition
    )
    .fetch(connection)
    .map_ok(EventWithHash::from)
    .boxed()
}

/// Reads up to `limit` events of a stream after `version`, each with the hash of the event before it in the log. The first event
/// of the log has zeros as its previous hash.
///
/// # Errors
/// A database error.
pub async fn events_with_previous_hash(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    version: i64,
    limit: i64,
) -> Result<Vec<(EventWithHash, Vec<u8>)>> {
    let rows = query_file_as!(EventRow, "src/events_with_previous_hash.sql", partition, stream_id, version, limit);
    let rows = rows.fetch_all(connection).await?.into_iter().map(|mut row| {
        let previous = row.previous_hash.take().unwrap_or_else(|| vec![0; size_of::<Hash>()]);
        (row.into(), previous)
    });
    Ok(rows.collect())
}

/// Reads every key of a partition in the order of their times, which is that of the log.
///
/// # Errors
/// The stream yields a database error and then ends.
pub fn keys(connection: &mut PgConnection, partition: i16) -> BoxStream<'_, Result<RecordedKey>> {
    query_as!(
        RecordedKey,
        r#"SELECT caller, key, recorded_at, position, receipt::text AS "receipt!"
           FROM idempotency_key
           WHERE partition = $1
           ORDER BY recorded_at"#,
        partition
    )
    .fetch(connection)
}

/// Reads the keys of a partition whose receipt contains positions other than a single one in this partition, and all keys of batches,
/// in the order of their times. The order makes the planner read the keys of this partition only.
///
/// # Errors
/// The stream yields a database error and then ends.
pub fn keys_of_other_partitions(connection: &mut PgConnection, partition: i16) -> BoxStream<'_, Result<RecordedKey>> {
    let only_here = format!("^{partition}:[0-9]+$");
    query_as!(
        RecordedKey,
        r#"SELECT caller, key, recorded_at, position, receipt::text AS "receipt!"
           FROM idempotency_key
           WHERE partition = $1 AND (receipt ->> 'position' !~ $2 OR receipt -> 'batch_id' IS NOT NULL)
           ORDER BY recorded_at"#,
        partition,
        only_here
    )
    .fetch(connection)
}

/// Reads every snapshot whose state has the JSON schema `state_version`.
///
/// # Errors
/// A database error.
pub async fn snapshots(
    connection: &mut PgConnection,
    partition: i16,
    state_version: i16,
) -> Result<Vec<RecordedSnapshot>> {
    query_as!(
        RecordedSnapshot,
        r#"SELECT stream_id, version, state::text AS "state!"
           FROM snapshot
           WHERE partition = $1 AND state_version = $2"#,
        partition,
        state_version
    )
    .fetch_all(connection)
    .await
}
