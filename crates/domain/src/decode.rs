//! Decodes stored events, and upcasts those of older schema versions.
//!
//! A log may hold every version that a release ever wrote, so each version keeps its struct and its upcast function for ever. A
//! stored event is parsed into the struct of its version and converted from struct to struct. An intermediate JSON tree would
//! cost more than the rest of decoding. `docs/evolving-events.md` shows how to add a version.

use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use crate::{
    Aggregate, EventType,
    command::Channel,
    event::{AccountOpened, Event, MoneyMoved, TransferReceived, TransferSent},
    metadata::Metadata,
    money::{Amount, Currency},
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
    /// The event is one of another aggregate: it has no effect on accounts.
    #[error("{0} is no event of an account")]
    OtherAggregate(&'static str),
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

impl DecodeError {
    /// Whether a newer release wrote the event: no release removes a type or a schema version.
    pub fn is_of_newer_release(&self) -> bool {
        match self {
            Self::Newer { .. } | Self::UnknownType(_) => true,
            Self::OtherAggregate(_) | Self::Malformed { .. } => false,
        }
    }

    /// Whether the event is one of another aggregate than an account.
    pub fn is_of_other_aggregate(&self) -> bool {
        matches!(self, Self::OtherAggregate(_))
    }

    /// The error of an event whose type and schema version no decoder reads.
    pub(crate) fn unsupported(name: &str, schema_version: i16) -> Self {
        match EventType::from_name(name) {
            Some(_) => Self::Newer { name: name.to_owned(), schema_version },
            None => Self::UnknownType(name.to_owned()),
        }
    }
}

impl Event {
    /// Decodes an event from its stored type name, schema version and JSON, and upcasts it to the current schema version.
    ///
    /// # Errors
    /// The type or its schema version is unknown, the data is malformed, or the event is one of another aggregate.
    pub fn decode(name: &str, schema_version: i16, data: &str) -> Result<Self, DecodeError> {
        let event = match (name, schema_version) {
            ("AccountOpened", 1) => parse(data).map(account_opened_v1_to_v2).map(Event::AccountOpened),
            ("AccountOpened", 2) => parse(data).map(Event::AccountOpened),
            ("MoneyDeposited", 1) => {
                parse(data).map(money_moved_v1_to_v2).map(money_moved_v2_to_v3).map(Event::MoneyDeposited)
            }
            ("MoneyDeposited", 2) => parse(data).map(money_moved_v2_to_v3).map(Event::MoneyDeposited),
            ("MoneyDeposited", 3) => parse(data).map(Event::MoneyDeposited),
            ("MoneyWithdrawn", 1) => {
                parse(data).map(money_moved_v1_to_v2).map(money_moved_v2_to_v3).map(Event::MoneyWithdrawn)
            }
            ("MoneyWithdrawn", 2) => parse(data).map(money_moved_v2_to_v3).map(Event::MoneyWithdrawn),
            ("MoneyWithdrawn", 3) => parse(data).map(Event::MoneyWithdrawn),
            ("TransferSent", 1) => parse(data).map(transfer_sent_v1_to_v2).map(Event::TransferSent),
            ("TransferSent", 2) => parse(data).map(Event::TransferSent),
            ("TransferReceived", 1) => parse(data).map(transfer_received_v1_to_v2).map(Event::TransferReceived),
            ("TransferReceived", 2) => parse(data).map(Event::TransferReceived),
            ("HoldPlaced", 1) => parse(data).map(Event::HoldPlaced),
            ("HoldCaptured", 1) => parse(data).map(Event::HoldCaptured),
            ("HoldReleased", 1) => parse(data).map(Event::HoldReleased),
            ("MovementReversed", 1) => parse(data).map(Event::MovementReversed),
            ("LimitsSet", 1) => parse(data).map(Event::LimitsSet),
            ("AccountFrozen", 1) => parse(data).map(Event::AccountFrozen),
            ("AccountUnfrozen", 1) => parse(data).map(Event::AccountUnfrozen),
            ("AccountClosed", 1) => parse(data).map(Event::AccountClosed),
            _ => {
                return match EventType::from_name(name) {
                    Some(other) if other.aggregate() != Aggregate::BankAccount => {
                        // A newer schema version of such an event changes no account, either.
                        Err(DecodeError::OtherAggregate(other.name()))
                    }
                    Some(_) | None => Err(DecodeError::unsupported(name, schema_version)),
                };
            }
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
fn money_moved_v1_to_v2(old: MoneyMovedV1) -> MoneyMovedV2 {
    MoneyMovedV2 { amount: old.amount, reference: old.reference, channel: None }
}

/// `MoneyDeposited` and `MoneyWithdrawn`, schema version 2: without metadata.
#[derive(Deserialize)]
struct MoneyMovedV2 {
    amount: Amount,
    reference: Option<String>,
    channel: Option<Channel>,
}

/// Version 2 to 3: there is no metadata.
fn money_moved_v2_to_v3(old: MoneyMovedV2) -> MoneyMoved {
    let MoneyMovedV2 { amount, reference, channel } = old;
    MoneyMoved { amount, reference, channel, metadata: Metadata::default() }
}

/// `AccountOpened`, schema version 1: without metadata.
#[derive(Deserialize)]
struct AccountOpenedV1 {
    owner: Arc<str>,
    currency: Currency,
    initial_deposit: i64,
}

/// Version 1 to 2: there is no metadata.
fn account_opened_v1_to_v2(old: AccountOpenedV1) -> AccountOpened {
    let AccountOpenedV1 { owner, currency, initial_deposit } = old;
    AccountOpened { owner, currency, initial_deposit, metadata: Metadata::default() }
}

/// `TransferSent`, schema version 1: without a hold and metadata.
#[derive(Deserialize)]
struct TransferSentV1 {
    transfer_id: Uuid,
    to: Uuid,
    amount: Amount,
    reference: Option<String>,
}

/// Version 1 to 2: the transfer captures no hold, and there is no metadata.
fn transfer_sent_v1_to_v2(old: TransferSentV1) -> TransferSent {
    let TransferSentV1 { transfer_id, to, amount, reference } = old;
    let metadata = Metadata::default();
    TransferSent { transfer_id, to, amount, reference, hold_id: None, is_final: None, metadata }
}

/// `TransferReceived`, schema version 1: without a hold and metadata.
#[derive(Deserialize)]
struct TransferReceivedV1 {
    transfer_id: Uuid,
    from: Uuid,
    amount: Amount,
    reference: Option<String>,
}

/// Version 1 to 2: the transfer captures no hold, and there is no metadata.
fn transfer_received_v1_to_v2(old: TransferReceivedV1) -> TransferReceived {
    let TransferReceivedV1 { transfer_id, from, amount, reference } = old;
    TransferReceived { transfer_id, from, amount, reference, hold_id: None, metadata: Metadata::default() }
}
