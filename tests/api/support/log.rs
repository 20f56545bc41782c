//! What is recorded, read past the service.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};
use uuid::Uuid;

/// The whole log. Two that are equal mean that nothing was recorded between them.
#[derive(Debug, PartialEq)]
pub struct Log {
    pub head: Head,
    pub events: Vec<Event>,
    /// How many idempotency keys are recorded.
    pub keys: i64,
}

/// Where the log ends.
#[derive(Debug, FromRow, PartialEq)]
pub struct Head {
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
    /// The facts of one account, as type and data.
    pub fn facts(&self, account: Uuid) -> Vec<(&str, Value)> {
        let own = self.events.iter().filter(|event| event.stream_id == account);
        own.map(|event| (event.event_type.as_str(), event.json())).collect()
    }
}

impl Event {
    /// The data.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// Reads it all at one moment.
pub async fn read(connection: &mut PgConnection) -> Log {
    use sqlx::Connection;
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let head = query_as("SELECT position, hash, recorded_at FROM log_head").fetch_one(&mut *snapshot).await.unwrap();
    let events = query_as(
        "SELECT partition, position, id, stream_id, version, type, schema_version, data::text AS data,
                metadata::text AS metadata, recorded_at, hash
         FROM event ORDER BY partition, position",
    )
    .fetch_all(&mut *snapshot)
    .await
    .unwrap();
    let keys = query_scalar("SELECT count(*) FROM idempotency_key").fetch_one(&mut *snapshot).await.unwrap();
    snapshot.commit().await.unwrap();
    Log { head, events, keys }
}
