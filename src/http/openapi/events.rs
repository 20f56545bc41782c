//! The schema of an event: one of several, by its type, each with the schema of its own data.

use std::collections::BTreeMap;

use utoipa::openapi::{Discriminator, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type};

use passbook_domain::EventType;

const EVENT: &str = "Event";

/// Replaces the schema of an event of any type by one schema for each type.
pub fn split_by_type(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let Some(RefOr::T(Schema::Object(any))) = schemas.remove(EVENT) else { return };
    let mut one_of = OneOfBuilder::new().description(Some("An event as it was recorded."));
    let mut discriminator = Discriminator::new("type");
    for event_type in EventType::ALL {
        let mut event = any.clone();
        let type_name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([event_type.name()]));
        event.properties.insert("type".to_owned(), type_name.into());
        event.properties.insert("data".to_owned(), Ref::from_schema_name(data_schema(event_type)).into());
        let name = format!("{}Event", event_type.name());
        let reference = Ref::from_schema_name(&name);
        discriminator.mapping.insert(event_type.name().to_owned(), reference.ref_location.clone());
        one_of = one_of.item(reference);
        schemas.insert(name, Schema::Object(event).into());
    }
    schemas.insert(EVENT.to_owned(), one_of.discriminator(Some(discriminator)).into());
}

/// The name of the schema of an event's data.
fn data_schema(event_type: EventType) -> &'static str {
    match event_type {
        EventType::AccountOpened => "AccountOpened",
        EventType::MoneyDeposited | EventType::MoneyWithdrawn => "MoneyMoved",
        EventType::TransferSent => "TransferSent",
        EventType::TransferReceived => "TransferReceived",
        EventType::HoldPlaced => "HoldPlaced",
        EventType::HoldCaptured => "HoldCaptured",
        EventType::HoldReleased => "HoldReleased",
        EventType::MovementReversed => "MovementReversed",
        EventType::LimitsSet => "Limits",
        EventType::AccountFrozen | EventType::AccountUnfrozen | EventType::AccountClosed => "StatusChanged",
        EventType::WebhookRegistered => "WebhookRegistered",
        EventType::WebhookPaused => "WebhookPaused",
        EventType::WebhookResumed => "WebhookResumed",
        EventType::WebhookDeleted => "WebhookDeleted",
    }
}
