//! Events before and after they are recorded. The store treats `data` and `metadata` as text and never parses them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::hash_chain::HashedFields;

/// An event to append. The append assigns its position, its hash and its time.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event's id, a version 7 UUID.
    pub id: Uuid,
    /// The stream that the event belongs to.
    pub stream_id: Uuid,
    /// The version of the stream after this event, from 1.
    pub version: i64,
    /// The name of the event type.
    pub event_type: &'static str,
    /// The version of the JSON schema of `data`.
    pub schema_version: i16,
    /// JSON, stored byte for byte.
    pub data: String,
    /// JSON, stored byte for byte.
    pub metadata: String,
}

/// Identifies one event by its stream and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamVersion {
    /// The stream.
    pub stream_id: Uuid,
    /// The version, from 1.
    pub version: i64,
}

/// An event as it is recorded in the log, without its metadata and its hash.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// The position in the log of its partition, from 1.
    pub position: i64,
    /// The event's id.
    pub id: Uuid,
    /// The stream that the event belongs to.
    pub stream_id: Uuid,
    /// The version of the stream after this event, from 1.
    pub version: i64,
    /// The name of the event type.
    pub event_type: String,
    /// The version of the JSON schema of `data`.
    pub schema_version: i16,
    /// JSON as it was written.
    pub data: String,
    /// The time of the append. All events of a batch have the same time, and each batch has a later time than the one before.
    pub recorded_at: DateTime<Utc>,
}

/// A recorded event with its metadata and its recorded hash.
#[derive(Debug)]
pub struct EventWithHash {
    /// The event.
    pub event: RecordedEvent,
    /// JSON as it was written.
    pub metadata: String,
    /// The recorded hash. It may be wrong if the row was changed.
    pub hash: Vec<u8>,
}

impl EventWithHash {
    /// Returns the fields that the event's hash covers. `partition` is the one that the event was read from.
    pub fn hashed_fields(&self, partition: i16) -> HashedFields<'_> {
        let Self { event, metadata, .. } = self;
        HashedFields {
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

/// A row of the `event` table. `previous_hash` is null unless the query selects it.
pub(super) struct EventRow {
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

impl From<EventRow> for EventWithHash {
    fn from(row: EventRow) -> Self {
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
