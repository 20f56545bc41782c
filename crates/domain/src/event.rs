//! The events of an account, and the form in which each one is stored.
//!
//! Each type has a `schema_version`. Stored events are never rewritten. A new form gets a new version, [`Event::decode`] reads
//! all versions, and a test decodes a stored sample of each of them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    EventType,
    command::{Channel, Movement},
    holds::HoldStatus,
    limits::Limits,
    metadata::Metadata,
    money::{Amount, Currency},
    reversal::Effect,
    time,
};

/// An event of one account. Serialized, it is the `data` of the stored event, without its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is named like the struct that documents it")]
pub enum Event {
    AccountOpened(AccountOpened),
    MoneyDeposited(MoneyMoved),
    MoneyWithdrawn(MoneyMoved),
    TransferSent(TransferSent),
    TransferReceived(TransferReceived),
    HoldPlaced(HoldPlaced),
    HoldCaptured(HoldCaptured),
    HoldReleased(HoldReleased),
    MovementReversed(MovementReversed),
    LimitsSet(Limits),
    AccountFrozen(StatusChanged),
    AccountUnfrozen(StatusChanged),
    AccountClosed(StatusChanged),
}

/// The account was opened. The initial deposit is in minor units and may be 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountOpened {
    /// The customer that owns the account.
    #[schema(value_type = String, example = "customer-17")]
    pub owner: Arc<str>,
    /// The account's currency for life (ISO 4217).
    #[schema(value_type = String, example = "EUR", pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// The first deposit, in minor units; 0: none.
    #[schema(example = 10000, minimum = 0, maximum = 9007199254740991i64)]
    pub initial_deposit: i64,
    /// The pairs of texts that the caller supplied; absent if there are none.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schema(required = false)]
    pub metadata: Metadata,
}

/// Money was deposited or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoneyMoved {
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "rent")]
    pub reference: Option<String>,
    /// Where the money was paid; absent if the client did not name a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub channel: Option<Channel>,
    /// The pairs of texts that the caller supplied; absent if there are none.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schema(required = false)]
    pub metadata: Metadata,
}

/// Money was transferred to another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferSent {
    /// The transfer, which both accounts record.
    pub transfer_id: Uuid,
    /// The account that is paid.
    pub to: Uuid,
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "rent")]
    pub reference: Option<String>,
    /// The hold of this account that the transfer captures; absent for a transfer without a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hold_id: Option<Uuid>,
    /// Whether the hold is over; absent for a transfer without a hold.
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub is_final: Option<bool>,
    /// The pairs of texts that the caller supplied; absent if there are none.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schema(required = false)]
    pub metadata: Metadata,
}

/// Money was transferred from another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferReceived {
    /// The transfer, which both accounts record.
    pub transfer_id: Uuid,
    /// The account that pays.
    pub from: Uuid,
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "rent")]
    pub reference: Option<String>,
    /// The hold of the sender that the transfer captures; absent for a transfer without a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hold_id: Option<Uuid>,
    /// The pairs of texts that the caller supplied; absent if there are none.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schema(required = false)]
    pub metadata: Metadata,
}

/// Money was set aside for a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldPlaced {
    /// The id of the hold.
    pub hold_id: Uuid,
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// When the hold is over at the latest, this moment included.
    #[serde(with = "time")]
    pub expires_at: DateTime<Utc>,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "order 2026-17")]
    pub reference: Option<String>,
    /// The pairs of texts that the caller supplied; absent if there are none.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schema(required = false)]
    pub metadata: Metadata,
}

/// Money of a hold was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldCaptured {
    /// The hold.
    pub hold_id: Uuid,
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// Whether the hold is over.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "parcel 1")]
    pub reference: Option<String>,
}

/// A hold ended without a capture, or the rest of it after captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldReleased {
    /// The hold.
    pub hold_id: Uuid,
    /// What the hold had left, in minor units.
    #[schema(value_type = i64, example = 500, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// Whether a command or its time ended the hold.
    pub cause: ReleaseCause,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "order cancelled")]
    pub reason: Option<String>,
}

/// Why a hold was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseCause {
    /// A command ended it.
    Voided,
    /// Its time ended it.
    Expired,
}

/// An earlier movement was paid back, in part or whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovementReversed {
    /// The version of the reversed movement in the stream of this account.
    #[schema(example = 2, minimum = 1)]
    pub reverses_version: i64,
    /// The event of the reversed movement.
    pub reverses_event_id: Uuid,
    /// Whether the balance of this account rises or falls.
    pub effect: Effect,
    /// The amount, in minor units.
    #[schema(value_type = i64, example = 300, minimum = 1, maximum = 9007199254740991i64)]
    pub amount: Amount,
    /// The reversed transfer; absent if the movement is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub transfer_id: Option<Uuid>,
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "goods returned")]
    pub reason: Option<String>,
}

/// The account was frozen, unfrozen or closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusChanged {
    /// The text that the caller supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "lost card")]
    pub reason: Option<String>,
}

impl Event {
    /// The type of the event.
    pub fn event_type(&self) -> EventType {
        match self {
            Event::AccountOpened(_) => EventType::AccountOpened,
            Event::MoneyDeposited(_) => EventType::MoneyDeposited,
            Event::MoneyWithdrawn(_) => EventType::MoneyWithdrawn,
            Event::TransferSent(_) => EventType::TransferSent,
            Event::TransferReceived(_) => EventType::TransferReceived,
            Event::HoldPlaced(_) => EventType::HoldPlaced,
            Event::HoldCaptured(_) => EventType::HoldCaptured,
            Event::HoldReleased(_) => EventType::HoldReleased,
            Event::MovementReversed(_) => EventType::MovementReversed,
            Event::LimitsSet(_) => EventType::LimitsSet,
            Event::AccountFrozen(_) => EventType::AccountFrozen,
            Event::AccountUnfrozen(_) => EventType::AccountUnfrozen,
            Event::AccountClosed(_) => EventType::AccountClosed,
        }
    }

    /// The type's name, as stored and as shown to clients.
    pub fn name(&self) -> &'static str {
        self.event_type().name()
    }

    /// The schema version that this release writes: the oldest one that has all members of the event. A release that reads only older
    /// versions still reads events without the new members, and refuses those with them.
    pub fn schema_version(&self) -> i16 {
        match self {
            Event::AccountOpened(opened) => 1 + i16::from(!opened.metadata.is_empty()),
            Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => 2 + i16::from(!moved.metadata.is_empty()),
            Event::TransferSent(sent) => 1 + i16::from(sent.hold_id.is_some() || !sent.metadata.is_empty()),
            Event::TransferReceived(received) => {
                1 + i16::from(received.hold_id.is_some() || !received.metadata.is_empty())
            }
            Event::HoldPlaced(_)
            | Event::HoldCaptured(_)
            | Event::HoldReleased(_)
            | Event::MovementReversed(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => 1,
        }
    }

    /// The hold of this account that the event places, captures or releases. That of a received transfer is the sender's.
    pub fn own_hold(&self) -> Option<Uuid> {
        match self {
            Event::HoldPlaced(placed) => Some(placed.hold_id),
            Event::HoldCaptured(captured) => Some(captured.hold_id),
            Event::HoldReleased(released) => Some(released.hold_id),
            Event::TransferSent(sent) => sent.hold_id,
            Event::AccountOpened(_)
            | Event::MoneyDeposited(_)
            | Event::MoneyWithdrawn(_)
            | Event::TransferReceived(_)
            | Event::MovementReversed(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => None,
        }
    }

    /// The change of the account's balance in minor units: negative for a debit, 0 if no money moves.
    pub fn balance_change(&self) -> i64 {
        match self {
            Event::AccountOpened(opened) => opened.initial_deposit,
            Event::MoneyDeposited(deposited) => deposited.amount.minor_units(),
            Event::MoneyWithdrawn(withdrawn) => -withdrawn.amount.minor_units(),
            Event::TransferSent(sent) => -sent.amount.minor_units(),
            Event::TransferReceived(received) => received.amount.minor_units(),
            Event::HoldCaptured(captured) => -captured.amount.minor_units(),
            Event::MovementReversed(reversed) => match reversed.effect {
                Effect::Credit => reversed.amount.minor_units(),
                Effect::Debit => -reversed.amount.minor_units(),
            },
            Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::LimitsSet(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => 0,
        }
    }
}

impl MoneyMoved {
    pub(crate) fn new(movement: &Movement, channel: Option<Channel>) -> Self {
        let Movement { amount, reference, metadata, .. } = movement;
        Self { amount: *amount, reference: reference.clone(), channel, metadata: metadata.clone() }
    }
}

impl ReleaseCause {
    /// The status of a hold that was released for this cause.
    pub fn status(self) -> HoldStatus {
        match self {
            Self::Voided => HoldStatus::Voided,
            Self::Expired => HoldStatus::Expired,
        }
    }
}
