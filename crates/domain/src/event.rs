//! The events of an account, and the form in which each one is stored.
//!
//! Each type has a `schema_version`. Stored events are never rewritten. A new form gets a new version, [`Event::decode`] reads
//! all versions, and a test decodes a stored sample of each of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    EventType,
    command::{Channel, Movement},
    money::{Amount, Currency},
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
            Event::AccountFrozen(_) => EventType::AccountFrozen,
            Event::AccountUnfrozen(_) => EventType::AccountUnfrozen,
            Event::AccountClosed(_) => EventType::AccountClosed,
        }
    }

    /// The type's name, as stored and as shown to clients.
    pub fn name(&self) -> &'static str {
        self.event_type().name()
    }

    /// The schema version that this release writes. The previous release must be able to read it, because two releases can
    /// run side by side.
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

    /// The change of the account's balance in minor units: negative for a debit, 0 if no money moves.
    pub fn balance_change(&self) -> i64 {
        match self {
            Event::AccountOpened(opened) => opened.initial_deposit,
            Event::MoneyDeposited(deposited) => deposited.amount.minor_units(),
            Event::MoneyWithdrawn(withdrawn) => -withdrawn.amount.minor_units(),
            Event::TransferSent(sent) => -sent.amount.minor_units(),
            Event::TransferReceived(received) => received.amount.minor_units(),
            Event::AccountFrozen(_) | Event::AccountUnfrozen(_) | Event::AccountClosed(_) => 0,
        }
    }
}

impl MoneyMoved {
    pub(crate) fn new(movement: &Movement, channel: Option<Channel>) -> Self {
        Self { amount: movement.amount, reference: movement.reference.clone(), channel }
    }
}
