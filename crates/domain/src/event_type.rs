//! The event types and their stored names.

use serde::Deserialize;
use utoipa::ToSchema;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "each variant is named like the struct that documents it")]
pub enum EventType {
    AccountOpened,
    MoneyDeposited,
    MoneyWithdrawn,
    TransferSent,
    TransferReceived,
    AccountFrozen,
    AccountUnfrozen,
    AccountClosed,
}

impl EventType {
    /// Every event type.
    pub const ALL: [EventType; 8] = [
        EventType::AccountOpened,
        EventType::MoneyDeposited,
        EventType::MoneyWithdrawn,
        EventType::TransferSent,
        EventType::TransferReceived,
        EventType::AccountFrozen,
        EventType::AccountUnfrozen,
        EventType::AccountClosed,
    ];

    /// The name, as stored and as shown to clients.
    pub fn name(self) -> &'static str {
        match self {
            EventType::AccountOpened => "AccountOpened",
            EventType::MoneyDeposited => "MoneyDeposited",
            EventType::MoneyWithdrawn => "MoneyWithdrawn",
            EventType::TransferSent => "TransferSent",
            EventType::TransferReceived => "TransferReceived",
            EventType::AccountFrozen => "AccountFrozen",
            EventType::AccountUnfrozen => "AccountUnfrozen",
            EventType::AccountClosed => "AccountClosed",
        }
    }

    /// The type with this name; `None` if this release does not know it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.name() == name)
    }

    /// Whether the event always moves money. Most events of a log do.
    pub fn moves_money(self) -> bool {
        match self {
            EventType::MoneyDeposited
            | EventType::MoneyWithdrawn
            | EventType::TransferSent
            | EventType::TransferReceived => true,
            EventType::AccountOpened
            | EventType::AccountFrozen
            | EventType::AccountUnfrozen
            | EventType::AccountClosed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_is_found_by_its_name() {
        for event_type in EventType::ALL {
            assert_eq!(EventType::from_name(event_type.name()), Some(event_type));
        }
        assert_eq!(EventType::from_name("Unknown"), None);
    }
}
