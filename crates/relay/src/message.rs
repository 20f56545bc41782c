//! An event as other services get it: CloudEvents 1.0 in the structured mode of its NATS binding, one JSON object that keeps
//! its meaning wherever it is copied to.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md>

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use passbook_event_store::timestamp;
use passbook_event_store::whole::LinkedEvent;

/// The media type of a CloudEvents message in JSON.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The message. The names of attributes of our own are lower case without marks, as CloudEvents wants them.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    /// The account.
    subject: Uuid,
    time: String,
    datacontenttype: &'static str,
    partition: i16,
    position: String,
    /// The position again, so that texts sort as numbers do: CloudEvents's extension of that name.
    sequence: String,
    /// The event's place among those of its account.
    accountversion: String,
    hash: String,
    #[serde(flatten)]
    caused_by: CausedBy,
    data: &'a RawValue,
}

/// What of an event's metadata is told.
#[derive(Default, Deserialize, Serialize)]
struct CausedBy {
    #[serde(rename(deserialize = "user_id", serialize = "userid"), skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(
        rename(deserialize = "correlation_id", serialize = "correlationid"),
        skip_serializing_if = "Option::is_none"
    )]
    correlation_id: Option<String>,
    #[serde(rename(deserialize = "causation_id", serialize = "causationid"), skip_serializing_if = "Option::is_none")]
    causation_id: Option<String>,
}

/// What is read back of a message to find it in the log.
#[derive(Deserialize)]
struct Told {
    position: String,
    hash: String,
}

/// Where an event is published: `passbook.<partition>.<type>`.
pub(super) fn subject(partition: i16, linked: &LinkedEvent) -> String {
    format!("passbook.{partition}.{}", token(&linked.event.event_type))
}

/// Where all events of a partition are.
pub(super) fn subjects(partition: i16) -> String {
    format!("passbook.{partition}.>")
}

/// A type of any later release is one part of a subject.
fn token(event_type: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    event_type.chars().map(plain).collect()
}

/// The message that tells an event.
///
/// # Errors
/// What was recorded is no JSON, which Postgres does not keep.
pub(super) fn render(partition: i16, linked: &LinkedEvent) -> serde_json::Result<Bytes> {
    let event = &linked.event;
    let message = CloudEvent {
        specversion: "1.0",
        id: event.id,
        source: format!("/passbook/{partition}"),
        event_type: format!("passbook.{}.v{}", event.event_type, event.schema_version),
        subject: event.stream_id,
        time: timestamp::format(&event.recorded_at),
        datacontenttype: "application/json",
        partition,
        position: event.position.to_string(),
        sequence: format!("{:019}", event.position),
        accountversion: event.version.to_string(),
        hash: hex::encode(&linked.hash),
        caused_by: serde_json::from_str(&linked.metadata).unwrap_or_default(),
        data: serde_json::from_str(&event.data)?,
    };
    serde_json::to_vec(&message).map(Bytes::from)
}

/// Position and hash of the event that this message tells; nothing if it is none of ours.
pub(super) fn place(message: &[u8]) -> Option<(i64, Vec<u8>)> {
    let Told { position, hash } = serde_json::from_slice(message).ok()?;
    Some((position.parse().ok()?, hex::decode(hash).ok()?))
}
