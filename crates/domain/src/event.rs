//! The events of an account, and the form in which each one is stored.
//!
//! Each type has a `schema_version`. Stored events are never rewritten. A new form gets a new version, [`Event::decode`] reads
//! all versions, and a test decodes a stored sample of each of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the stored JSON members")]
pub struct AccountOpened {
    pub owner: Arc<str>,
    pub currency: Currency,
    pub initial_deposit: i64,
}

/// Money was deposited or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the stored JSON members")]
pub struct MoneyMoved {
    pub amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// `None`: the client did not name a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
}

/// Money was transferred to another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the stored JSON members")]
pub struct TransferSent {
    pub transfer_id: Uuid,
    pub to: Uuid,
    pub amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Money was transferred from another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the stored JSON members")]
pub struct TransferReceived {
    pub transfer_id: Uuid,
    pub from: Uuid,
    pub amount: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// The account was frozen, unfrozen or closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the stored JSON members")]
pub struct StatusChanged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
