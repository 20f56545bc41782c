//! The events of aggregates that are no accounts. They are recorded so that the log shows who changed what. They decide no command and
//! change no view.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{EventType, decode::DecodeError};

/// An event of another aggregate than an account. Serialized, it is the `data` of the stored event, without its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is named like the struct that documents it")]
pub enum OtherEvent {
    WebhookRegistered(WebhookRegistered),
    WebhookPaused(WebhookPaused),
    WebhookResumed(WebhookResumed),
    WebhookDeleted(WebhookDeleted),
}

/// An endpoint was registered. The secret is not part of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookRegistered {
    /// The URL to which events are sent.
    #[schema(example = "https://example.com/hooks")]
    pub url: String,
    /// The types of the events that are sent; absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, value_type = Vec<EventType>, example = json!(["MoneyDeposited"]))]
    pub types: Vec<String>,
    /// The account whose events are sent; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub account_id: Option<Uuid>,
    /// The owner of the accounts whose events are sent; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "customer-17")]
    pub owner: Option<String>,
}

/// Deliveries to an endpoint were stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookPaused {
    /// Whether a request or the endpoint stopped them.
    pub cause: PauseCause,
}

/// Why deliveries were stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PauseCause {
    /// A caller requested it.
    Requested,
    /// The endpoint answered 410 Gone.
    Gone,
}

/// Deliveries to an endpoint were started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookResumed {
    /// Since when deliveries had failed; absent if they had not.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::time::optional")]
    #[schema(nullable = false)]
    pub failing_since: Option<DateTime<Utc>>,
}

/// An endpoint was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookDeleted {}

impl OtherEvent {
    /// The type of the event.
    pub fn event_type(&self) -> EventType {
        match self {
            OtherEvent::WebhookRegistered(_) => EventType::WebhookRegistered,
            OtherEvent::WebhookPaused(_) => EventType::WebhookPaused,
            OtherEvent::WebhookResumed(_) => EventType::WebhookResumed,
            OtherEvent::WebhookDeleted(_) => EventType::WebhookDeleted,
        }
    }

    /// The schema version that this release writes.
    pub fn schema_version(&self) -> i16 {
        match self {
            OtherEvent::WebhookRegistered(_)
            | OtherEvent::WebhookPaused(_)
            | OtherEvent::WebhookResumed(_)
            | OtherEvent::WebhookDeleted(_) => 1,
        }
    }

    /// Decodes an event from its stored type name, schema version and JSON.
    ///
    /// # Errors
    /// The type or its schema version is unknown, the data is malformed, or the event is one of an account.
    pub fn decode(name: &str, schema_version: i16, data: &str) -> Result<Self, DecodeError> {
        let event = match (name, schema_version) {
            ("WebhookRegistered", 1) => serde_json::from_str(data).map(OtherEvent::WebhookRegistered),
            ("WebhookPaused", 1) => serde_json::from_str(data).map(OtherEvent::WebhookPaused),
            ("WebhookResumed", 1) => serde_json::from_str(data).map(OtherEvent::WebhookResumed),
            ("WebhookDeleted", 1) => serde_json::from_str(data).map(OtherEvent::WebhookDeleted),
            _ => return Err(DecodeError::unsupported(name, schema_version)),
        };
        event.map_err(|source| DecodeError::Malformed { name: name.to_owned(), schema_version, source })
    }
}
