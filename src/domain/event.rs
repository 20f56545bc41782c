//! What can happen to an account, and how each fact is written and read for ever.
//!
//! Each type carries a `schema_version`. A change of shape adds an upcaster `v(n) -> v(n+1)` below; what is stored
//! is never rewritten, and a sample of every version ever written is decoded by a test for ever.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    EventType,
    command::Movement,
    money::{Amount, Currency},
};

/// A fact about one account. Serialized, it is the `data` of the event alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is named like the struct that documents it")]
pub enum Event {
    AccountOpened(AccountOpened),
    MoneyDeposited(MoneyMoved),
    MoneyWithdrawn(MoneyMoved),
    TransferSent(TransferSent),
    TransferReceived(TransferReceived),
    AccountFrozen(StatusChanged),
    AccountUnfrozen(StatusChanged),
    AccountClosed(StatusChanged),
}

/// The account began, with an initial deposit that may be 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the facts")]
pub struct AccountOpened {
    pub owner: Arc<str>,
    pub currency: Currency,
    pub initial_deposit: i64,
}

/// Money was paid in or out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the facts")]
pub struct MoneyMoved {
    pub amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Money left for another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the facts")]
pub struct TransferSent {
    pub transfer_id: Uuid,
    pub to: Uuid,
    pub amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Money arrived from another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the facts")]
pub struct TransferReceived {
    pub transfer_id: Uuid,
    pub from: Uuid,
    pub amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// The account was frozen, unfrozen or closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the facts")]
pub struct StatusChanged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why stored bytes are not an event that this release understands.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release.
    #[error("{name} of schema version {schema_version} was written by a newer release than this one")]
    Newer {
        /// The event's type.
        name: String,
        /// The version found.
        schema_version: i16,
    },
    /// No release ever wrote this type.
    #[error("{0:?} is not a type of event")]
    UnknownType(String),
    /// The data are not what the type and version promise.
    #[error("{name} of schema version {schema_version} has other data than it should: {source}")]
    Malformed {
        /// The event's type.
        name: String,
        /// The version found.
        schema_version: i16,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Event {
    /// What kind of fact it is.
    pub fn event_type(&self) -> EventType {
        match self {
            Event::AccountOpened(_) => EventType::AccountOpened,
            Event::MoneyDeposited(_) => EventType::MoneyDeposited,
            Event::MoneyWithdrawn(_) => EventType::MoneyWithdrawn,
            Event::TransferSent(_) => EventType::TransferSent,
            Event::TransferReceived(_) => EventType::TransferReceived,
            Event::AccountFrozen(_) => EventType::AccountFrozen,
            Event::AccountUnfrozen(_) => EventType::AccountUnfrozen,
            Event::AccountClosed(_) => EventType::AccountClosed,
        }
    }

    /// The type's name as it is stored and shown.
    pub fn name(&self) -> &'static str {
        self.event_type().name()
    }

    /// The schema version that this release writes.
    pub fn schema_version(&self) -> i16 {
        written_version(UPCASTERS, self.name())
    }

    /// The event from its stored type, schema version and data, upcast to today's shape.
    pub fn decode(name: &str, schema_version: i16, data: &str) -> Result<Self, DecodeError> {
        let malformed = |source| DecodeError::Malformed { name: name.to_owned(), schema_version, source };
        let written = written_version(UPCASTERS, name);
        if schema_version > written {
            return Err(DecodeError::Newer { name: name.to_owned(), schema_version });
        }
        if schema_version == written {
            return Self::from_data(name, data, malformed);
        }
        let old = serde_json::from_str(data).map_err(malformed)?;
        let today = upcast(UPCASTERS, name, schema_version, old).to_string();
        Self::from_data(name, &today, malformed)
    }

    fn from_data(
        name: &str,
        data: &str,
        malformed: impl Fn(serde_json::Error) -> DecodeError,
    ) -> Result<Self, DecodeError> {
        let event = match name {
            "AccountOpened" => serde_json::from_str(data).map(Event::AccountOpened),
            "MoneyDeposited" => serde_json::from_str(data).map(Event::MoneyDeposited),
            "MoneyWithdrawn" => serde_json::from_str(data).map(Event::MoneyWithdrawn),
            "TransferSent" => serde_json::from_str(data).map(Event::TransferSent),
            "TransferReceived" => serde_json::from_str(data).map(Event::TransferReceived),
            "AccountFrozen" => serde_json::from_str(data).map(Event::AccountFrozen),
            "AccountUnfrozen" => serde_json::from_str(data).map(Event::AccountUnfrozen),
            "AccountClosed" => serde_json::from_str(data).map(Event::AccountClosed),
            unknown => return Err(DecodeError::UnknownType(unknown.to_owned())),
        };
        event.map_err(malformed)
    }
}

impl From<&Movement> for MoneyMoved {
    fn from(movement: &Movement) -> Self {
        Self { amount: movement.amount, reference: movement.reference.clone() }
    }
}

/// One step from a schema version to the next: pure, and kept for as long as a log may hold the old version.
struct Upcaster {
    name: &'static str,
    from: i16,
    apply: fn(Value) -> Value,
}

/// All steps, in order. The version that is written of a type is one above its last step.
const UPCASTERS: &[Upcaster] = &[];

fn written_version(upcasters: &[Upcaster], name: &str) -> i16 {
    upcasters.iter().filter(|step| step.name == name).map(|step| step.from + 1).max().unwrap_or(1)
}

fn upcast(upcasters: &[Upcaster], name: &str, schema_version: i16, data: Value) -> Value {
    upcasters
        .iter()
        .filter(|step| step.name == name && step.from >= schema_version)
        .fold(data, |data, step| (step.apply)(data))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STEPS: &[Upcaster] = &[
        Upcaster { name: "A", from: 1, apply: |data| json!({"one": data}) },
        Upcaster { name: "B", from: 1, apply: |_| Value::Null },
        Upcaster { name: "A", from: 2, apply: |data| json!({"two": data}) },
    ];

    #[test]
    fn an_old_event_passes_every_step_of_its_type_from_its_version_on() {
        assert_eq!(upcast(STEPS, "A", 1, json!(0)), json!({"two": {"one": 0}}));
        assert_eq!(upcast(STEPS, "A", 2, json!(0)), json!({"two": 0}));
        assert_eq!(upcast(STEPS, "A", 3, json!(0)), json!(0));
    }

    #[test]
    fn the_version_written_is_one_above_the_last_step() {
        assert_eq!(written_version(STEPS, "A"), 3);
        assert_eq!(written_version(STEPS, "B"), 2);
        assert_eq!(written_version(STEPS, "C"), 1);
    }
}
