//! The types of events by their names, for whoever asks for one of them.

use serde::Deserialize;
use utoipa::ToSchema;

/// What kind of fact an event is.
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
    /// Every type.
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

    /// The name as it is stored and shown.
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

    /// The type of this name, if this release knows it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.name() == name)
    }

    /// Whether money moves, as it does in most of what happens.
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
    fn every_type_is_found_by_its_name() {
        for event_type in EventType::ALL {
            assert_eq!(EventType::from_name(event_type.name()), Some(event_type));
        }
        assert_eq!(EventType::from_name("Unheard"), None);
    }
}
