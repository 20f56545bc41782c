//! Cursors, positions and the ids of streamed events: where to go on.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, NaiveDate, Utc};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    super::{cursor::*, feed::last_event_id, parameters::min_position},
    bytes, mutated,
};
use passbook_event_store::Position;

fn anything() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

/// Until the year 9999.
fn moment() -> impl Strategy<Value = DateTime<Utc>> {
    (0..=253_402_300_799_999_999i64).prop_map(|micros| DateTime::from_timestamp_micros(micros).expect("a time"))
}

fn mark() -> impl Strategy<Value = (DateTime<Utc>, Uuid)> {
    (moment(), any::<u128>()).prop_map(|(time, id)| (time, Uuid::from_u128(id)))
}

fn day_of_the_contract() -> impl Strategy<Value = NaiveDate> {
    moment().prop_map(|time| time.date_naive())
}

/// Of one partition, or of several.
const LOG_CURSOR: &str = "([0-9]{1,20}|[0-9]{1,2}:[0-9]{1,20}(,[0-9]{1,2}:[0-9]{1,20})?)(-[0-9a-f]{8})?";

/// In a log of one partition, or of several in ascending order.
fn position() -> impl Strategy<Value = Position> {
    let over = proptest::collection::btree_map(0..64i16, 1..=i64::MAX, 1..8);
    prop_oneof![
        (0..=i64::MAX).prop_map(Position::Only),
        over.prop_map(|places| Position::Over(places.into_iter().collect())),
    ]
}

fn are_digits(text: &str) -> bool {
    text.parse::<i64>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit())
}

proptest! {
    #[test]
    fn whatever_account_a_cursor_is_behind_it_is_read_back(mark in mark()) {
        prop_assert_eq!(account(&after_account(mark)).ok(), Some(mark));
    }

    #[test]
    fn whatever_movement_a_cursor_is_behind_it_is_read_back(version in 0..=i64::MAX) {
        prop_assert_eq!(movement(&after_movement(version)).ok(), Some(version));
    }

    #[test]
    fn whatever_day_a_cursor_is_behind_it_is_read_back(date in day_of_the_contract()) {
        prop_assert_eq!(day(&after_day(date)).ok(), Some(date));
    }

    #[test]
    fn whatever_is_taken_for_a_cursor_of_accounts_leads_to_one_place(
        text in prop_oneof![anything(), mutated(mark().prop_map(after_account))]
    ) {
        if let Ok(mark) = account(&text) {
            prop_assert_eq!(after_account(mark), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn whatever_is_taken_for_a_cursor_of_movements_leads_to_one_place(
        text in prop_oneof![anything(), mutated((0..=i64::MAX).prop_map(after_movement))]
    ) {
        if let Ok(version) = movement(&text) {
            prop_assert!(version >= 0);
            prop_assert_eq!(movement(&after_movement(version)).ok(), Some(version));
        }
    }

    #[test]
    fn whatever_is_taken_for_a_cursor_of_days_leads_to_one_place(
        text in prop_oneof![anything(), mutated(day_of_the_contract().prop_map(after_day))]
    ) {
        if let Ok(date) = day(&text) {
            prop_assert_eq!(after_day(date), text);
        }
    }

    #[test]
    fn whatever_is_taken_for_a_cursor_of_the_log_is_digits_and_a_hash(
        text in prop_oneof![anything(), mutated(LOG_CURSOR)]
    ) {
        if log("after", Some(&text)).is_ok() {
            for place in text.split(',') {
                let (position, hash) = place.split_once('-').unwrap_or((place, "00000000"));
                prop_assert!(are_digits(position.split_once(':').map_or(position, |place| place.1)), "{text}");
                let is_hash = hash.len() == 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                prop_assert!(is_hash, "{text}");
            }
        }
    }

    #[test]
    fn whatever_comes_as_the_last_id_of_a_stream_is_a_cursor_or_refused(
        value in prop_oneof![bytes(), mutated(LOG_CURSOR).prop_map(String::into_bytes)]
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), value)]);
        let read = last_event_id(&headers).ok().flatten();
        prop_assert_eq!(read, log("after", Some(&text)).ok());
    }

    #[test]
    fn whatever_position_is_told_is_read_back(position in position()) {
        let read = min_position(Some(&position.to_string()));
        prop_assert_eq!(read.ok().flatten(), Some(position));
    }

    #[test]
    fn whatever_is_taken_for_a_position_is_digits(
        text in prop_oneof![anything(), mutated("[0-9]{1,20}"), mutated(position().prop_map(|place| place.to_string()))]
    ) {
        if let Ok(Some(_)) = min_position(Some(&text)) {
            let places = text.split(',').map(|place| place.split_once(':').map_or(place, |place| place.1));
            prop_assert!(places.into_iter().all(are_digits), "{text}");
        }
    }
}
