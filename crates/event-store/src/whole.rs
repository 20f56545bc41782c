//! The whole log, for whoever checks it: every event with its link, every snapshot, every key's receipt.

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use sqlx::{PgConnection, Result, query_as, query_file_as};
use uuid::Uuid;

use super::{Hash, Partitions, RecordedEvent, chain::Link};

/// An event with what its hash covers beside it.
#[derive(Debug)]
pub struct LinkedEvent {
    /// The event.
    pub event: RecordedEvent,
    /// JSON as it was written.
    pub metadata: String,
    /// The hash that was recorded with it.
    pub hash: Vec<u8>,
}

impl LinkedEvent {
    /// What its hash covers.
    pub fn link(&self, partition: i16) -> Link<'_> {
        let Self { event, metadata, .. } = self;
        Link {
            partition,
            position: event.position,
            id: event.id,
            stream_id: event.stream_id,
            version: event.version,
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: &event.data,
            metadata,
            recorded_at: event.recorded_at,
        }
    }
}

/// What was answered to an idempotency key.
#[derive(Debug)]
pub struct RecordedReceipt {
    /// Whose key it is.
    pub caller: String,
    /// The key.
    pub key: String,
    /// Where it is kept.
    pub kept_in: i16,
    /// The position that the receipt names in the partition that is looked at; 0 where it names none.
    pub position: i64,
    /// The receipt's JSON.
    pub receipt: String,
}

/// A snapshot as it is kept.
#[derive(Debug)]
pub struct RecordedSnapshot {
    /// The stream.
    pub stream_id: Uuid,
    /// The last version folded in.
    pub version: i64,
    /// The state's JSON.
    pub state: String,
}

/// Every event in the order of positions.
pub fn events(connection: &mut PgConnection, partition: i16) -> BoxStream<'_, Result<LinkedEvent>> {
    query_as!(
        Row,
        r#"SELECT position, id, stream_id, version, type AS event_type, schema_version, data::text AS "data!",
                  metadata::text AS "metadata!", recorded_at, hash, NULL::bytea AS previous_hash
           FROM event
           WHERE partition = $1
           ORDER BY position"#,
        partition
    )
    .fetch(connection)
    .map_ok(LinkedEvent::from)
    .boxed()
}

/// Up to `limit` events of a stream after `version`, each with the hash of the event before it in the log.
pub async fn links(
    connection: &mut PgConnection,
    partition: i16,
    stream_id: Uuid,
    version: i64,
    limit: i64,
) -> Result<Vec<(LinkedEvent, Vec<u8>)>> {
    let rows = query_file_as!(Row, "src/links.sql", partition, stream_id, version, limit).fetch_all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|mut row| {
            let previous = row.previous_hash.take().unwrap_or_else(|| vec![0; size_of::<Hash>()]);
            (row.into(), previous)
        })
        .collect())
}

/// Every key's receipt that names a position in a partition, in the order of these positions; before them those that are
/// kept there and name none in any.
pub fn receipts(
    connection: &mut PgConnection,
    partitions: Partitions,
    partition: i16,
) -> BoxStream<'_, Result<RecordedReceipt>> {
    let all: Vec<i16> = partitions.all().collect();
    let (here, anywhere) = match partitions.are_several() {
        false => ("^([0-9]{1,18})$".to_owned(), "^[0-9]{1,18}$".to_owned()),
        true => {
            let one = format!("({}):[0-9]{{1,18}}", all.iter().map(i16::to_string).collect::<Vec<_>>().join("|"));
            (format!("(?:^|,){partition}:([0-9]{{1,18}})(?:,|$)"), format!("^{one}(,{one})*$"))
        }
    };
    query_file_as!(RecordedReceipt, "src/receipts.sql", partition, here, &all, anywhere).fetch(connection)
}

/// Every snapshot of this shape.
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

/// A row of the event table.
pub(super) struct Row {
    pub(super) position: i64,
    pub(super) id: Uuid,
    pub(super) stream_id: Uuid,
    pub(super) version: i64,
    pub(super) event_type: String,
    pub(super) schema_version: i16,
    pub(super) data: String,
    pub(super) metadata: String,
    pub(super) recorded_at: DateTime<Utc>,
    pub(super) hash: Vec<u8>,
    pub(super) previous_hash: Option<Vec<u8>>,
}

impl From<Row> for LinkedEvent {
    fn from(row: Row) -> Self {
        let event = RecordedEvent {
            position: row.position,
            id: row.id,
            stream_id: row.stream_id,
            version: row.version,
            event_type: row.event_type,
            schema_version: row.schema_version,
            data: row.data,
            recorded_at: row.recorded_at,
        };
        Self { event, metadata: row.metadata, hash: row.hash }
    }
}
