//! Reads the whole log for verification: every event with its hash, every snapshot, and the receipt of every key.

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use sqlx::{PgConnection, Result, query_as, query_file_as};
use uuid::Uuid;

use super::{
    event::{EventRow, EventWithHash},
    hash_chain::Hash,
    partition::Partitions,
};

/// The recorded receipt of an idempotency key.
#[derive(Debug)]
pub struct RecordedReceipt {
    /// The caller that the key belongs to.
    pub caller: String,
    /// The key.
    pub key: String,
    /// The partition that contains the key.
    pub kept_in: i16,
    /// The receipt's position in the scanned partition; 0 if the receipt contains none.
    pub position: i64,
    /// The receipt's JSON.
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

/// Reads every receipt that contains a position in `partition`, in the order of these positions. Before them come the receipts
/// of keys in this partition that contain no valid position.
///
/// # Errors
/// The stream yields a database error and then ends.
pub fn receipts(
    connection: &mut PgConnection,
    partitions: Partitions,
    partition: i16,
) -> BoxStream<'_, Result<RecordedReceipt>> {
    let all: Vec<i16> = partitions.all().collect();
    let (in_partition, anywhere) = match partitions.is_partitioned() {
        false => ("^([0-9]{1,18})$".to_owned(), "^[0-9]{1,18}$".to_owned()),
        true => {
            let one = format!("({}):[0-9]{{1,18}}", all.iter().map(i16::to_string).collect::<Vec<_>>().join("|"));
            (format!("(?:^|,){partition}:([0-9]{{1,18}})(?:,|$)"), format!("^{one}(,{one})*$"))
        }
    };
    query_file_as!(RecordedReceipt, "src/receipts.sql", partition, in_partition, &all, anywhere).fetch(connection)
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
