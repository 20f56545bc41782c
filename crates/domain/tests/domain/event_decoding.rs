//! Decoding refuses event types, versions and data that this release cannot read. It never guesses.

use passbook_domain::{DecodeError, Event};

use crate::event_samples::{one_of_each, versions_read};

#[test]
fn an_undefined_event_type_is_unknown() {
    let error = Event::decode("MoneyBurnt", 1, "{}").unwrap_err();
    assert!(matches!(&error, DecodeError::UnknownType(name) if name == "MoneyBurnt"), "{error:?}");
    assert_eq!(error.to_string(), "\"MoneyBurnt\" is not an event type of this release");
}

#[test]
fn event_types_are_case_sensitive() {
    assert!(matches!(Event::decode("accountOpened", 1, "{}"), Err(DecodeError::UnknownType(_))));
}

#[test]
fn a_schema_version_above_the_readable_ones_is_newer_with_any_data() {
    for event in one_of_each() {
        let version = versions_read(event.name()).last().unwrap() + 1;
        assert!(event.schema_version() < version, "the written version must be readable");
        for data in [serde_json::to_string(&event).unwrap(), "not even JSON".into()] {
            let error = Event::decode(event.name(), version, &data).unwrap_err();
            assert!(
                matches!(&error, DecodeError::Newer { name, schema_version } if name == event.name() && *schema_version == version),
                "{error:?}"
            );
        }
    }
}

#[test]
fn data_that_is_not_json_is_malformed_and_its_type_is_named() {
    for event in one_of_each() {
        let error = Event::decode(event.name(), event.schema_version(), "{").unwrap_err();
        assert!(matches!(&error, DecodeError::Malformed { name, .. } if name == event.name()), "{error:?}");
        assert!(error.to_string().contains(event.name()), "{error}");
    }
}

#[test]
fn an_event_without_a_required_member_is_malformed() {
    let lacking = [
        ("AccountOpened", r#"{"owner":"a","currency":"EUR"}"#),
        ("AccountOpened", r#"{"owner":"a","initial_deposit":0}"#),
        ("AccountOpened", r#"{"currency":"EUR","initial_deposit":0}"#),
        ("MoneyDeposited", r#"{"reference":"a"}"#),
        ("MoneyWithdrawn", "{}"),
        ("TransferSent", r#"{"transfer_id":"01900000-0000-7000-8000-00000000000f","amount":1}"#),
        ("TransferReceived", r#"{"from":"01900000-0000-7000-8000-000000000001","amount":1}"#),
        ("HoldPlaced", r#"{"hold_id":"00000000-0003-8000-8000-0000000000ff","amount":1}"#),
        ("HoldCaptured", r#"{"hold_id":"00000000-0003-8000-8000-0000000000ff","amount":1}"#),
        ("HoldReleased", r#"{"hold_id":"00000000-0003-8000-8000-0000000000ff","amount":1}"#),
        ("MovementReversed", r#"{"reverses_version":1,"effect":"credit","amount":1}"#),
        ("LimitsSet", r#"{"per_movement":1}"#),
    ];
    for (name, data) in lacking {
        assert!(matches!(Event::decode(name, 1, data), Err(DecodeError::Malformed { .. })), "{name} {data}");
    }
}

#[test]
fn an_event_with_an_invalid_value_is_malformed() {
    let impossible = [
        ("AccountOpened", r#"{"owner":"a","currency":"EURO","initial_deposit":0}"#),
        ("AccountOpened", r#"{"owner":"a","currency":"EUR","initial_deposit":0.5}"#),
        ("MoneyDeposited", r#"{"amount":0}"#),
        ("MoneyWithdrawn", r#"{"amount":-1}"#),
        ("MoneyWithdrawn", r#"{"amount":9007199254740992}"#),
        ("TransferSent", r#"{"transfer_id":"f","to":"01900000-0000-7000-8000-000000000002","amount":1}"#),
        ("HoldReleased", r#"{"hold_id":"00000000-0003-8000-8000-0000000000ff","amount":1,"cause":"lost"}"#),
        ("HoldPlaced", r#"{"hold_id":"00000000-0003-8000-8000-0000000000ff","amount":1,"expires_at":"soon"}"#),
        ("LimitsSet", r#"{"overdraft":0,"per_movement":"1"}"#),
        ("AccountFrozen", r#"{"reason":7}"#),
        ("AccountClosed", "null"),
    ];
    for (name, data) in impossible {
        assert!(matches!(Event::decode(name, 1, data), Err(DecodeError::Malformed { .. })), "{name} {data}");
    }
}

#[test]
fn version_2_requires_an_amount_and_a_known_channel() {
    for name in ["MoneyDeposited", "MoneyWithdrawn"] {
        for data in [r#"{"channel":"atm"}"#, r#"{"amount":1,"channel":"post"}"#, r#"{"amount":1,"channel":7}"#] {
            assert!(matches!(Event::decode(name, 2, data), Err(DecodeError::Malformed { .. })), "{name} {data}");
        }
    }
}

#[test]
fn version_1_ignores_a_channel_in_its_data() {
    for name in ["MoneyDeposited", "MoneyWithdrawn"] {
        let old = Event::decode(name, 1, r#"{"amount":1,"channel":"atm"}"#).unwrap();
        assert_eq!(old, Event::decode(name, 2, r#"{"amount":1}"#).unwrap());
    }
}

#[test]
fn absent_optional_texts_are_not_written() {
    let without_texts = [
        ("MoneyDeposited", r#"{"amount":1}"#),
        ("MoneyWithdrawn", r#"{"amount":1}"#),
        ("AccountFrozen", "{}"),
        ("AccountUnfrozen", "{}"),
        ("AccountClosed", "{}"),
    ];
    for (name, data) in without_texts {
        let event = Event::decode(name, 1, data).unwrap();
        assert_eq!((event.name(), serde_json::to_string(&event).unwrap().as_str()), (name, data));
    }
}
