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
    HoldPlaced,
    HoldCaptured,
    HoldReleased,
    MovementReversed,
    LimitsSet,
    AccountFrozen,
    AccountUnfrozen,
    AccountClosed,
    WebhookRegistered,
    WebhookPaused,
    WebhookResumed,
    WebhookDeleted,
}

/// What the events of a stream are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// An account. Only its events are commands' decisions and rows of views.
    BankAccount,
    /// An endpoint that receives events.
    Webhook,
}

impl Aggregate {
    /// The name, as shown to clients.
    pub const fn name(self) -> &'static str {
        match self {
            Aggregate::BankAccount => "BankAccount",
            Aggregate::Webhook => "Webhook",
        }
    }
}

impl EventType {
    /// Every event type.
    pub const ALL: [EventType; 17] = [
        EventType::AccountOpened,
        EventType::MoneyDeposited,
        EventType::MoneyWithdrawn,
        EventType::TransferSent,
        EventType::TransferReceived,
        EventType::HoldPlaced,
        EventType::HoldCaptured,
        EventType::HoldReleased,
        EventType::MovementReversed,
        EventType::LimitsSet,
        EventType::AccountFrozen,
        EventType::AccountUnfrozen,
        EventType::AccountClosed,
        EventType::WebhookRegistered,
        EventType::WebhookPaused,
        EventType::WebhookResumed,
        EventType::WebhookDeleted,
    ];

    /// The name, as stored and as shown to clients.
    pub const fn name(self) -> &'static str {
        match self {
            EventType::AccountOpened => "AccountOpened",
            EventType::MoneyDeposited => "MoneyDeposited",
            EventType::MoneyWithdrawn => "MoneyWithdrawn",
            EventType::TransferSent => "TransferSent",
            EventType::TransferReceived => "TransferReceived",
            EventType::HoldPlaced => "HoldPlaced",
            EventType::HoldCaptured => "HoldCaptured",
            EventType::HoldReleased => "HoldReleased",
            EventType::MovementReversed => "MovementReversed",
            EventType::LimitsSet => "LimitsSet",
            EventType::AccountFrozen => "AccountFrozen",
            EventType::AccountUnfrozen => "AccountUnfrozen",
            EventType::AccountClosed => "AccountClosed",
            EventType::WebhookRegistered => "WebhookRegistered",
            EventType::WebhookPaused => "WebhookPaused",
            EventType::WebhookResumed => "WebhookResumed",
            EventType::WebhookDeleted => "WebhookDeleted",
        }
    }

    /// The type with this name; `None` if this release does not know it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.name() == name)
    }

    /// Whether most events of a log are of such types. The index over rare types leaves them out.
    pub fn is_common(self) -> bool {
        match self {
            EventType::MoneyDeposited
            | EventType::MoneyWithdrawn
            | EventType::TransferSent
            | EventType::TransferReceived => true,
            EventType::AccountOpened
            | EventType::HoldPlaced
            | EventType::HoldCaptured
            | EventType::HoldReleased
            | EventType::MovementReversed
            | EventType::LimitsSet
            | EventType::AccountFrozen
            | EventType::AccountUnfrozen
            | EventType::AccountClosed
            | EventType::WebhookRegistered
            | EventType::WebhookPaused
            | EventType::WebhookResumed
            | EventType::WebhookDeleted => false,
        }
    }

    /// The aggregate whose streams have such events.
    pub const fn aggregate(self) -> Aggregate {
        match self {
            EventType::AccountOpened
            | EventType::MoneyDeposited
            | EventType::MoneyWithdrawn
            | EventType::TransferSent
            | EventType::TransferReceived
            | EventType::HoldPlaced
            | EventType::HoldCaptured
            | EventType::HoldReleased
            | EventType::MovementReversed
            | EventType::LimitsSet
            | EventType::AccountFrozen
            | EventType::AccountUnfrozen
            | EventType::AccountClosed => Aggregate::BankAccount,
            EventType::WebhookRegistered
            | EventType::WebhookPaused
            | EventType::WebhookResumed
            | EventType::WebhookDeleted => Aggregate::Webhook,
        }
    }

    /// The types of events that are no events of accounts.
    pub fn of_other_aggregates() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|event_type| event_type.aggregate() != Aggregate::BankAccount)
    }

    /// The aggregate of an event with this type's name. A type that only a newer release knows counts as one of accounts, so that
    /// nothing skips it.
    pub fn aggregate_of(name: &str) -> Aggregate {
        Self::from_name(name).map_or(Aggregate::BankAccount, Self::aggregate)
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
