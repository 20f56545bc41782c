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
    /// The partition; 0 for all together.
    pub partition: i16,
    /// The position of the last event; 0 if there is none.
    pub position: i64,
    /// The hash of the last event; 32 zero bytes if there is none.
    pub hash: Vec<u8>,
    /// When the partition was last appended to.
    pub recorded_at: DateTime<Utc>,
}

/// A row of the event table.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct Event {
    /// The partition of the account.
    pub partition: i16,
    /// The position within the partition, from 1.
    pub position: i64,
    /// The id of the event.
    pub id: Uuid,
    /// The id of the account.
    pub stream_id: Uuid,
    /// The version of the account after this event, from 1.
    pub version: i64,
    /// The type, such as `MoneyDeposited`.
    #[sqlx(rename = "type")]
    pub event_type: String,
    /// The version of the data's schema.
    pub schema_version: i16,
    /// The data as JSON text.
    pub data: String,
    /// The metadata as JSON text.
    pub metadata: String,
    /// When the event was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The hash of the event, which covers the previous event's hash.
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
    let log = read_in_snapshot(&mut snapshot).await;
    snapshot.commit().await.unwrap();
    log
}

/// Reads the log in the transaction of the caller, which has one snapshot.
pub(crate) async fn read_in_snapshot(snapshot: &mut PgConnection) -> Log {
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
    if heads.len() > 1 {
        events.sort_by_key(|event| (event.recorded_at, event.partition));
    }
    Log { head, heads, events, keys }
}
