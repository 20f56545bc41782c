//! An event as it is shown: everything that was recorded, so that whoever has the event before can recompute its hash.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cursor::Place;
use passbook_event_store::timestamp;
use passbook_event_store::{Partitions, Position, whole::LinkedEvent};

/// An event as it was recorded.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventRecord {
    /// The event's own id.
    pub id: Uuid,
    /// Its place in the log, from 1; over partitions its partition and its place there, such as `3:17`.
    #[schema(value_type = String, example = "42")]
    pub position: Position,
    /// What it happened to: always `BankAccount`.
    #[schema(example = "BankAccount")]
    pub aggregate_type: &'static str,
    /// The account that it happened to.
    pub aggregate_id: Uuid,
    /// Its place among the account's events, from 1.
    #[schema(example = 2, minimum = 1)]
    pub version: i64,
    /// What kind of fact it is. A newer release may record types that are not known here.
    #[serde(rename = "type")]
    #[schema(example = "MoneyDeposited")]
    pub event_type: String,
    /// The version of the shape of `data`.
    #[schema(example = 1)]
    pub schema_version: i16,
    /// The fact, byte for byte as it was recorded. The members depend on `type`.
    #[schema(value_type = Object, example = json!({"amount": 500, "reference": "rent"}))]
    pub data: Box<RawValue>,
    /// Who caused it, and by which request, byte for byte as it was recorded.
    #[schema(value_type = Metadata)]
    pub metadata: Box<RawValue>,
    /// When it was recorded. Times never decrease along the log.
    #[serde(with = "timestamp")]
    pub recorded_at: DateTime<Utc>,
    /// SHA-256 over the hash of the event before it in the log and everything above.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
    #[serde(skip)]
    pub(super) partition: i16,
    #[serde(skip)]
    pub(super) place: Place,
}

/// Who caused an event, and by which request.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Metadata {
    /// Who asked.
    #[schema(example = "anonymous")]
    user_id: String,
    /// Ties together everything that one interaction caused; the `x-request-id` of the request.
    #[schema(example = "01900000-0000-7000-8000-000000000001")]
    correlation_id: String,
    /// What caused the event: the id of the trace that the request's `traceparent` named, or else one of the command's own.
    /// Both sides of a transfer share it.
    causation_id: Uuid,
}

impl EventRecord {
    /// An event of a partition.
    pub(super) fn new(partitions: Partitions, partition: i16, linked: LinkedEvent) -> Result<Self, sqlx::Error> {
        let LinkedEvent { event, metadata, hash } = linked;
        Ok(Self {
            id: event.id,
            position: partitions.position(partition, event.position),
            aggregate_type: "BankAccount",
            aggregate_id: event.stream_id,
            version: event.version,
            event_type: event.event_type,
            schema_version: event.schema_version,
            data: raw(event.data)?,
            metadata: raw(metadata)?,
            recorded_at: event.recorded_at,
            hash: hex::encode(&hash),
            partition,
            place: Place::new(event.position, &hash),
        })
    }
}

/// Postgres keeps no text in a `json` column that is none.
fn raw(json: String) -> Result<Box<RawValue>, sqlx::Error> {
    RawValue::from_string(json).map_err(|error| sqlx::Error::Decode(error.into()))
}
