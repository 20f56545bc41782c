//! The published form of an event: CloudEvents 1.0 in the structured mode of its NATS binding. One JSON object contains all
//! attributes, so the message keeps its meaning when it is copied elsewhere.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md>

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::log_reader::LogPosition;
use passbook_event_store::EventWithHash;
use passbook_event_store::timestamp;

/// The media type of a CloudEvents message in JSON.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The message. CloudEvents allows only lower-case letters and digits in the names of extension attributes.
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
    /// The position with leading zeros, as in the CloudEvents extension `sequence`: strings sort in the order of numbers.
    sequence: String,
    /// The event's version in the stream of its account.
    accountversion: String,
    hash: String,
    #[serde(flatten)]
    metadata: PublishedMetadata,
    data: &'a RawValue,
}

/// The fields of an event's metadata that are published.
#[derive(Default, Deserialize, Serialize)]
struct PublishedMetadata {
    #[serde(rename(deserialize = "user_id", serialize = "userid"), skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(
        rename(deserialize = "correlation_id", serialize = "correlationid"),
        skip_serializing_if = "Option::is_none"
    )]
    correlation_id: Option<String>,
    #[serde(rename(deserialize = "causation_id", serialize = "causationid"), skip_serializing_if = "Option::is_none")]
    causation_id: Option<String>,
    #[serde(rename(deserialize = "batch_id", serialize = "batchid"), skip_serializing_if = "Option::is_none")]
    batch_id: Option<String>,
}

/// The fields of a published message that identify its event in the log.
#[derive(Deserialize)]
struct PublishedPosition {
    position: String,
    hash: String,
}

/// The subject of an event: `passbook.<partition>.<type>`.
pub(super) fn subject(partition: i16, recorded: &EventWithHash) -> String {
    format!("passbook.{partition}.{}", token(&recorded.event.event_type))
}

/// The subject filter that matches all events of a partition.
pub(super) fn subjects(partition: i16) -> String {
    format!("passbook.{partition}.>")
}

/// Replaces the characters that would split a subject. A later release may add event types with such characters.
fn token(event_type: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    event_type.chars().map(safe).collect()
}

/// Renders the message of an event.
///
/// # Errors
/// The event's data is not valid JSON. Postgres prevents this.
pub(super) fn render(partition: i16, recorded: &EventWithHash) -> serde_json::Result<Bytes> {
    let event = &recorded.event;
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
        hash: hex::encode(&recorded.hash),
        metadata: serde_json::from_str(&recorded.metadata).unwrap_or_default(),
        data: serde_json::from_str(&event.data)?,
    };
    serde_json::to_vec(&message).map(Bytes::from)
}

/// Reads the position and the hash of the event from a message. `None` means that the relay did not publish the message.
pub(super) fn parse_position(message: &[u8]) -> Option<LogPosition> {
    let PublishedPosition { position, hash } = serde_json::from_slice(message).ok()?;
    Some(LogPosition { position: position.parse().ok()?, hash: hex::decode(hash).ok()? })
}

#[cfg(test)]
mod tests {
    use passbook_event_store::RecordedEvent;
    use serde_json::{Value, json};

    use super::*;

    fn published(metadata: &str) -> Value {
        let event = RecordedEvent {
            position: 7,
            id: Uuid::from_u128(1),
            stream_id: Uuid::from_u128(2),
            version: 3,
            event_type: "MoneyDeposited".to_owned(),
            schema_version: 2,
            data: r#"{"amount":5}"#.to_owned(),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
        };
        let recorded = EventWithHash { event, metadata: metadata.to_owned(), hash: vec![0; 32] };
        serde_json::from_slice(&render(0, &recorded).expect("a message")).expect("JSON")
    }

    #[test]
    fn message_names_the_batch_only_of_events_that_have_one() {
        let with = published(r#"{"user_id":"ada","correlation_id":"c","causation_id":"d","batch_id":"e"}"#);
        let names = ["userid", "correlationid", "causationid", "batchid"];
        assert_eq!(names.map(|name| &with[name]), [&json!("ada"), &json!("c"), &json!("d"), &json!("e")]);
        let without = published(r#"{"user_id":"ada","correlation_id":"c","causation_id":"d"}"#);
        assert_eq!(without.get("batchid"), None);
    }
}
