//! The events and heads of the log as HTTP shows them, and the filter of events. An event is shown with everything that its hash
//! covers, so that a client can recompute the hash from the event before it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cursor::PartitionCursor;
use passbook_domain::EventType;
use passbook_event_store::timestamp;
use passbook_event_store::{EventWithHash, Partitions, Position, log::Head};

/// An event as it was recorded.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventRecord {
    /// The event's own id.
    pub id: Uuid,
    /// The event's position in the log, from 1; with several partitions, the partition and the position in it, such as `3:17`.
    #[schema(value_type = String)]
    pub position: Position,
    /// The type of the aggregate: `BankAccount`, or `Webhook` for an endpoint.
    #[schema(example = "BankAccount")]
    pub aggregate_type: &'static str,
    /// The account, or the endpoint.
    pub aggregate_id: Uuid,
    /// The version of the account or endpoint after the event, from 1.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// The type of the event. A newer release may record types that this release does not support.
    #[serde(rename = "type")]
    #[schema(example = "MoneyDeposited")]
    pub event_type: String,
    /// The version of the schema of `data`.
    #[schema(example = 1)]
    pub schema_version: i16,
    /// The data of the event, byte for byte as recorded. Its members depend on `type`.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
    /// The caller and the request that caused the event, byte for byte as recorded.
    #[schema(value_type = Metadata)]
    pub metadata: Box<RawValue>,
    /// The time at which the event was recorded. Times never decrease along the log.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
    /// SHA-256 over the hash of the previous event in the log and all members above.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
    #[serde(skip)]
    pub(super) partition: i16,
    /// The cursor after this event.
    #[serde(skip)]
    pub(super) cursor: PartitionCursor,
}

/// The caller and the request that caused an event.
#[derive(Debug, ToSchema)]
#[schema(as = EventMetadata)]
#[expect(dead_code, reason = "only the derive reads the fields")]
pub struct Metadata {
    /// The caller.
    #[schema(example = "anonymous")]
    user_id: String,
    /// The `x-request-id` of the request. It is common to everything that one interaction caused.
    #[schema(example = "01900000-0000-7000-8000-000000000001")]
    correlation_id: String,
    /// The cause of the event: the trace id of the request's `traceparent`, or else an id of the command. Both sides of a
    /// transfer have the same.
    causation_id: Uuid,
    /// The id of the batch that the command was part of; absent for a single command.
    #[schema(required = false, nullable = false)]
    batch_id: Option<Uuid>,
}

impl EventRecord {
    /// The event of a partition, as it is shown.
    ///
    /// # Errors
    /// Its data or metadata is no JSON. Postgres prevents this.
    pub fn new(partitions: Partitions, partition: i16, linked: EventWithHash) -> Result<Self, sqlx::Error> {
        let EventWithHash { event, metadata, hash } = linked;
        Ok(Self {
            id: event.id,
            position: partitions.position_in(partition, event.position),
            aggregate_type: EventType::aggregate_of(&event.event_type).name(),
            aggregate_id: event.stream_id,
            version: event.version,
            event_type: event.event_type,
            schema_version: event.schema_version,
            data: raw_json(event.data)?,
            metadata: raw_json(metadata)?,
            recorded_at: event.recorded_at,
            hash: hex::encode(&hash),
            partition,
            cursor: PartitionCursor::new(event.position, &hash),
        })
    }
}

/// Wraps the text of a `json` column, which Postgres has validated.
fn raw_json(json: String) -> Result<Box<RawValue>, sqlx::Error> {
    RawValue::from_string(json).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The head of a partition of the log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogHead {
    /// The partition.
    #[schema(example = 0)]
    pub partition: i16,
    /// The position of the last event; `0` if the partition is empty, or `0:0` with several partitions.
    #[schema(value_type = String)]
    pub position: Position,
    /// The hash of the last event, which covers all events before it; zeros if the partition is empty.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

impl LogHead {
    pub(crate) fn new(partitions: Partitions, partition: i16, head: &Head) -> Self {
        Self { partition, position: partitions.position_in(partition, head.position), hash: hex::encode(head.hash) }
    }
}

/// Selects events of the log. The default selects all.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFilter {
    /// Only events of this type.
    pub event_type: Option<EventType>,
    /// Only events recorded at this time or later.
    pub since: Option<DateTime<Utc>>,
}

impl EventFilter {
    /// Whether the filter selects an event of this type and time. The type is `None` if this release does not support it.
    pub(super) fn matches(&self, event_type: Option<EventType>, recorded_at: DateTime<Utc>) -> bool {
        self.event_type.is_none_or(|wanted| event_type == Some(wanted))
            && self.since.is_none_or(|since| recorded_at >= since)
    }

    /// Whether the filter selects every event.
    pub(super) fn matches_all(&self) -> bool {
        self.event_type.is_none() && self.since.is_none()
    }
}
