//! Reads the recorded log from the database, without the service.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};
use uuid::Uuid;

/// The whole log. If two reads are equal, nothing was recorded between them.
#[derive(Debug, PartialEq)]
pub struct Log {
    /// All partitions together: the number of events, all hashes concatenated, and the latest time.
    pub head: Head,
    /// The head of each partition.
    pub heads: Vec<Head>,
    /// By position within a partition, and by time across partitions.
    pub events: Vec<Event>,
    /// The number of recorded idempotency keys.
    pub keys: i64,
}

/// The end of a partition's log.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct Head {
    pub partition: i16,
    pub position: i64,
    pub hash: Vec<u8>,
    pub recorded_at: DateTime<Utc>,
}

/// A row of the event table.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct Event {
    pub partition: i16,
    pub position: i64,
    pub id: Uuid,
    pub stream_id: Uuid,
    pub version: i64,
    #[sqlx(rename = "type")]
    pub event_type: String,
    pub schema_version: i16,
    pub data: String,
    pub metadata: String,
    pub recorded_at: DateTime<Utc>,
    pub hash: Vec<u8>,
}

impl Log {
    /// Type and data of each event of one account.
    pub fn event_payloads(&self, account: Uuid) -> Vec<(&str, Value)> {
        let own = self.events.iter().filter(|event| event.stream_id == account);
        own.map(|event| (event.event_type.as_str(), event.json())).collect()
    }
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// Reads the log in one snapshot.
pub async fn read(connection: &mut PgConnection) -> Log {
    use sqlx::Connection;
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let heads: Vec<Head> = query_as("SELECT partition, position, hash, recorded_at FROM log_head ORDER BY partition")
        .fetch_all(&mut *snapshot)
        .await
        .unwrap();
    let head = Head {
        partition: 0,
        position: heads.iter().map(|head| head.position).sum(),
        hash: heads.iter().flat_map(|head| head.hash.clone()).collect(),
        recorded_at: heads.iter().map(|head| head.recorded_at).max().unwrap(),
    };
    let mut events: Vec<Event> = query_as(
        "SELECT partition, position, id, stream_id, version, type, schema_version, data::text AS data,
                metadata::text AS metadata, recorded_at, hash
         FROM event ORDER BY partition, position",
    )
    .fetch_all(&mut *snapshot)
    .await
    .unwrap();
    let keys = query_scalar("SELECT count(*) FROM idempotency_key").fetch_one(&mut *snapshot).await.unwrap();
    snapshot.commit().await.unwrap();
    if heads.len() > 1 {
        events.sort_by_key(|event| (event.recorded_at, event.partition));
    }
    Log { head, heads, events, keys }
}
