//! Decodes stored events, and upcasts those of older schema versions.
//!
//! A log may hold every version that a release ever wrote, so each version keeps its struct and its upcast function for ever. A
//! stored event is parsed into the struct of its version and converted from struct to struct. An intermediate JSON tree would
//! cost more than the rest of decoding. `docs/evolving-events.md` shows how to add a version.

use serde::Deserialize;

use crate::{
    event::{Event, MoneyMoved},
    money::Amount,
};

/// Why this release cannot decode a stored event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The schema version is newer than this release.
    #[error("{name} has schema version {schema_version}, which only a newer release can read")]
    Newer {
        /// The event's type.
        name: String,
        /// The stored schema version.
        schema_version: i16,
    },
    /// The type is unknown to this release.
    #[error("{0:?} is not an event type of this release")]
    UnknownType(String),
    /// The data does not have the form of its type and schema version.
    #[error("the data of {name} in schema version {schema_version} is malformed: {source}")]
    Malformed {
        /// The event's type.
        name: String,
        /// The stored schema version.
        schema_version: i16,
        /// The JSON error.
        source: serde_json::Error,
    },
}

impl Event {
    /// Decodes an event from its stored type name, schema version and JSON, and upcasts it to the current schema version.
    ///
    /// # Errors
    /// The type or its schema version is unknown, or the data is malformed.
    pub fn decode(name: &str, schema_version: i16, data: &str) -> Result<Self, DecodeError> {
        let event = match (name, schema_version) {
            ("AccountOpened", 1) => parse(data).map(Event::AccountOpened),
            ("MoneyDeposited", 1) => parse(data).map(money_moved_v1_to_v2).map(Event::MoneyDeposited),
            ("MoneyDeposited", 2) => parse(data).map(Event::MoneyDeposited),
            ("MoneyWithdrawn", 1) => parse(data).map(money_moved_v1_to_v2).map(Event::MoneyWithdrawn),
            ("MoneyWithdrawn", 2) => parse(data).map(Event::MoneyWithdrawn),
            ("TransferSent", 1) => parse(data).map(Event::TransferSent),
            ("TransferReceived", 1) => parse(data).map(Event::TransferReceived),
            ("AccountFrozen", 1) => parse(data).map(Event::AccountFrozen),
            ("AccountUnfrozen", 1) => parse(data).map(Event::AccountUnfrozen),
            ("AccountClosed", 1) => parse(data).map(Event::AccountClosed),
            (
                "AccountOpened" | "MoneyDeposited" | "MoneyWithdrawn" | "TransferSent" | "TransferReceived"
                | "AccountFrozen" | "AccountUnfrozen" | "AccountClosed",
                _,
            ) => return Err(DecodeError::Newer { name: name.to_owned(), schema_version }),
            _ => return Err(DecodeError::UnknownType(name.to_owned())),
        };
        event.map_err(|source| DecodeError::Malformed { name: name.to_owned(), schema_version, source })
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> serde_json::Result<T> {
    serde_json::from_str(data)
}

/// `MoneyDeposited` and `MoneyWithdrawn`, schema version 1: without a channel.
#[derive(Deserialize)]
struct MoneyMovedV1 {
    amount: Amount,
    reference: Option<String>,
}

/// Version 1 to 2: the channel is unknown.
fn money_moved_v1_to_v2(old: MoneyMovedV1) -> MoneyMoved {
    MoneyMoved { amount: old.amount, reference: old.reference, channel: None }
}
