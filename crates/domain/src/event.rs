//! What can happen to an account, and how each fact is written and read for ever.
//!
//! Each type carries a `schema_version`. What is stored is never rewritten: a change of shape adds a function to
//! [`super::upcast`] and a line to [`Event::decode`], and a sample of every version ever written is decoded by a test for
//! ever. `docs/evolving-events.md` walks through such a change.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    EventType,
    channel::Channel,
    command::Movement,
    money::{Amount, Currency},
    upcast::money_moved_v1_to_v2,
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
    /// Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
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

    /// The schema version that this release writes. The release before must be able to read it, where the two run side
    /// by side.
    pub fn schema_version(&self) -> i16 {
        match self {
            Event::MoneyDeposited(_) | Event::MoneyWithdrawn(_) => 2,
            Event::AccountOpened(_)
            | Event::TransferSent(_)
            | Event::TransferReceived(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => 1,
        }
    }

    /// What the account's balance gains by it, in minor units: below 0 where money leaves, 0 where none moves.
    pub fn gain(&self) -> i64 {
        match self {
            Event::AccountOpened(opened) => opened.initial_deposit,
            Event::MoneyDeposited(deposited) => deposited.amount.minor_units(),
            Event::MoneyWithdrawn(withdrawn) => -withdrawn.amount.minor_units(),
            Event::TransferSent(sent) => -sent.amount.minor_units(),
            Event::TransferReceived(received) => received.amount.minor_units(),
            Event::AccountFrozen(_) | Event::AccountUnfrozen(_) | Event::AccountClosed(_) => 0,
        }
    }

    /// The event from its stored type, schema version and data, upcast to today's shape. A line for each version of
    /// each type that this release reads.
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

impl MoneyMoved {
    pub(super) fn new(movement: &Movement, channel: Option<Channel>) -> Self {
        Self { amount: movement.amount, reference: movement.reference.clone(), channel }
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> serde_json::Result<T> {
    serde_json::from_str(data)
}
