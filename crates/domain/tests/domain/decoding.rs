//! What cannot be read is said, never guessed.

use passbook_domain::{Event, event::DecodeError};

use crate::samples::{one_of_each, versions_read};

#[test]
fn a_type_that_no_release_wrote_is_unknown() {
    let error = Event::decode("MoneyBurnt", 1, "{}").unwrap_err();
    assert!(matches!(&error, DecodeError::UnknownType(name) if name == "MoneyBurnt"), "{error:?}");
    assert_eq!(error.to_string(), "\"MoneyBurnt\" is not a type of event");
}

#[test]
fn a_type_is_compared_letter_by_letter() {
    assert!(matches!(Event::decode("accountOpened", 1, "{}"), Err(DecodeError::UnknownType(_))));
}

#[test]
fn a_version_above_those_that_this_release_reads_is_newer_whatever_its_data() {
    for event in one_of_each() {
        let version = versions_read(event.name()).last().unwrap() + 1;
        assert!(event.schema_version() < version, "what is written is read");
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
fn data_that_are_no_json_are_malformed_and_named() {
    for event in one_of_each() {
        let error = Event::decode(event.name(), event.schema_version(), "{").unwrap_err();
        assert!(matches!(&error, DecodeError::Malformed { name, .. } if name == event.name()), "{error:?}");
        assert!(error.to_string().contains(event.name()), "{error}");
    }
}

#[test]
fn a_fact_that_lacks_a_member_is_malformed() {
    let lacking = [
        ("AccountOpened", r#"{"owner":"a","currency":"EUR"}"#),
        ("AccountOpened", r#"{"owner":"a","initial_deposit":0}"#),
        ("AccountOpened", r#"{"currency":"EUR","initial_deposit":0}"#),
        ("MoneyDeposited", r#"{"reference":"a"}"#),
        ("MoneyWithdrawn", "{}"),
        ("TransferSent", r#"{"transfer_id":"01900000-0000-7000-8000-00000000000f","amount":1}"#),
        ("TransferReceived", r#"{"from":"01900000-0000-7000-8000-000000000001","amount":1}"#),
    ];
    for (name, data) in lacking {
        assert!(matches!(Event::decode(name, 1, data), Err(DecodeError::Malformed { .. })), "{name} {data}");
    }
}

#[test]
fn a_value_that_cannot_be_is_malformed() {
    let impossible = [
        ("AccountOpened", r#"{"owner":"a","currency":"EURO","initial_deposit":0}"#),
        ("AccountOpened", r#"{"owner":"a","currency":"EUR","initial_deposit":0.5}"#),
        ("MoneyDeposited", r#"{"amount":0}"#),
        ("MoneyWithdrawn", r#"{"amount":-1}"#),
        ("MoneyWithdrawn", r#"{"amount":9007199254740992}"#),
        ("TransferSent", r#"{"transfer_id":"f","to":"01900000-0000-7000-8000-000000000002","amount":1}"#),
        ("AccountFrozen", r#"{"reason":7}"#),
        ("AccountClosed", "null"),
    ];
    for (name, data) in impossible {
        assert!(matches!(Event::decode(name, 1, data), Err(DecodeError::Malformed { .. })), "{name} {data}");
    }
}

#[test]
fn version_2_is_refused_what_it_cannot_be() {
    for name in ["MoneyDeposited", "MoneyWithdrawn"] {
        for data in [r#"{"channel":"atm"}"#, r#"{"amount":1,"channel":"post"}"#, r#"{"amount":1,"channel":7}"#] {
            assert!(matches!(Event::decode(name, 2, data), Err(DecodeError::Malformed { .. })), "{name} {data}");
        }
    }
}

#[test]
fn version_1_knows_no_channel_whatever_its_data_say() {
    for name in ["MoneyDeposited", "MoneyWithdrawn"] {
        let old = Event::decode(name, 1, r#"{"amount":1,"channel":"atm"}"#).unwrap();
        assert_eq!(old, Event::decode(name, 2, r#"{"amount":1}"#).unwrap());
    }
}

#[test]
fn words_that_nobody_gave_are_not_written() {
    let wordless = [
        ("MoneyDeposited", r#"{"amount":1}"#),
        ("MoneyWithdrawn", r#"{"amount":1}"#),
        ("AccountFrozen", "{}"),
        ("AccountUnfrozen", "{}"),
        ("AccountClosed", "{}"),
    ];
    for (name, data) in wordless {
        let event = Event::decode(name, 1, data).unwrap();
        assert_eq!((event.name(), serde_json::to_string(&event).unwrap().as_str()), (name, data));
    }
}
