//! Cursors of lists, positions, and the ids of streamed events.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, NaiveDate, Utc};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    super::{
        event_stream::last_event_id,
        extract::{cursor::*, parameters::min_position},
    },
    bytes, mutated,
};
use passbook_event_store::Position;
use passbook_read_model::{
    accounts::{Sort, SortBy},
    transactions::LogKey,
};

fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

/// A time up to the year 9999.
fn time() -> impl Strategy<Value = DateTime<Utc>> {
    (0..=253_402_300_799_999_999i64).prop_map(|micros| DateTime::from_timestamp_micros(micros).expect("a time"))
}

fn account_key() -> impl Strategy<Value = (DateTime<Utc>, Uuid)> {
    (time(), any::<u128>()).prop_map(|(time, id)| (time, Uuid::from_u128(id)))
}

fn sort() -> impl Strategy<Value = Sort> {
    (any::<bool>(), any::<bool>()).prop_map(|(is_balance, is_descending)| Sort {
        by: if is_balance { SortBy::Balance } else { SortBy::LastActivity },
        is_descending,
    })
}

fn sort_key() -> impl Strategy<Value = (i64, Uuid)> {
    (any::<i64>(), any::<u128>()).prop_map(|(key, id)| (key, Uuid::from_u128(id)))
}

fn log_key() -> impl Strategy<Value = LogKey> {
    (time(), 0..=i16::MAX, 0..=i64::MAX).prop_map(|(recorded_at, partition, position)| LogKey {
        recorded_at,
        partition,
        position,
    })
}

fn valid_day() -> impl Strategy<Value = NaiveDate> {
    time().prop_map(|time| time.date_naive())
}

/// A cursor of the log with one partition, or with several.
const LOG_CURSOR: &str = "([0-9]{1,20}|[0-9]{1,2}:[0-9]{1,20}(,[0-9]{1,2}:[0-9]{1,20})?)(-[0-9a-f]{8})?";

/// A position in a log with one partition, or with several in ascending order.
fn position() -> impl Strategy<Value = Position> {
    let per_partition = proptest::collection::btree_map(0..64i16, 1..=i64::MAX, 1..8);
    prop_oneof![
        (0..=i64::MAX).prop_map(Position::Single),
        per_partition.prop_map(|positions| Position::PerPartition(positions.into_iter().collect())),
    ]
}

fn are_digits(text: &str) -> bool {
    text.parse::<i64>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit())
}

proptest! {
    #[test]
    fn arbitrary_account_cursors_are_parsed_back(key in account_key()) {
        prop_assert_eq!(parse_account(&after_account(key)).ok(), Some(key));
    }

    #[test]
    fn arbitrary_cursors_of_sorted_accounts_are_parsed_back(sort in sort(), key in sort_key()) {
        prop_assert_eq!(parse_sorted(sort, &after_sorted(sort, key)).ok(), Some(key));
    }

    #[test]
    fn arbitrary_cursors_of_all_transactions_are_parsed_back(key in log_key()) {
        prop_assert_eq!(parse_log_key(&after_log_key(key)).ok(), Some(key));
    }

    #[test]
    fn arbitrary_text_is_a_unique_cursor_of_a_search_or_rejected(
        sort in sort(),
        text in prop_oneof![
            any_text(),
            mutated((sort(), sort_key()).prop_map(|(sort, key)| after_sorted(sort, key))),
            mutated(log_key().prop_map(after_log_key)),
        ]
    ) {
        if let Ok(key) = parse_sorted(sort, &text) {
            prop_assert!(after_sorted(sort, key).eq_ignore_ascii_case(&text), "{text}");
        }
        if let Ok(key) = parse_log_key(&text) {
            prop_assert_eq!(after_log_key(key), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn arbitrary_transaction_cursors_are_parsed_back(version in 0..=i64::MAX) {
        prop_assert_eq!(parse_transaction(&after_transaction(version)).ok(), Some(version));
    }

    #[test]
    fn arbitrary_day_cursors_are_parsed_back(date in valid_day()) {
        prop_assert_eq!(parse_day(&after_day(date)).ok(), Some(date));
    }

    #[test]
    fn arbitrary_text_is_a_unique_account_cursor_or_rejected(
        text in prop_oneof![any_text(), mutated(account_key().prop_map(after_account))]
    ) {
        if let Ok(key) = parse_account(&text) {
            prop_assert_eq!(after_account(key), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn arbitrary_text_is_a_transaction_cursor_or_rejected(
        text in prop_oneof![any_text(), mutated((0..=i64::MAX).prop_map(after_transaction))]
    ) {
        if let Ok(version) = parse_transaction(&text) {
            prop_assert!(version >= 0);
            prop_assert_eq!(parse_transaction(&after_transaction(version)).ok(), Some(version));
        }
    }

    #[test]
    fn arbitrary_text_is_a_unique_day_cursor_or_rejected(
        text in prop_oneof![any_text(), mutated(valid_day().prop_map(after_day))]
    ) {
        if let Ok(date) = parse_day(&text) {
            prop_assert_eq!(after_day(date), text);
        }
    }

    #[test]
    fn arbitrary_log_cursors_are_digits_and_a_hash_or_rejected(
        text in prop_oneof![any_text(), mutated(LOG_CURSOR)]
    ) {
        if parse_log("after", Some(&text)).is_ok() {
            for part in text.split(',') {
                let (position, hash) = part.split_once('-').unwrap_or((part, "00000000"));
                prop_assert!(are_digits(position.split_once(':').map_or(position, |part| part.1)), "{text}");
                let is_hash = hash.len() == 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                prop_assert!(is_hash, "{text}");
            }
        }
    }

    #[test]
    fn arbitrary_last_event_ids_are_cursors_or_rejected(
        value in prop_oneof![bytes(), mutated(LOG_CURSOR).prop_map(String::into_bytes)]
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), value)]);
        let parsed = last_event_id(&headers).ok().flatten();
        prop_assert_eq!(parsed, parse_log("after", Some(&text)).ok());
    }

    #[test]
    fn arbitrary_positions_are_parsed_back(position in position()) {
        let parsed = min_position(Some(&position.to_string()));
        prop_assert_eq!(parsed.ok().flatten(), Some(position));
    }

    #[test]
    fn arbitrary_text_is_a_position_of_digits_or_rejected(
        text in prop_oneof![any_text(), mutated("[0-9]{1,20}"), mutated(position().prop_map(|position| position.to_string()))]
    ) {
        if let Ok(Some(_)) = min_position(Some(&text)) {
            let numbers = text.split(',').map(|part| part.split_once(':').map_or(part, |part| part.1));
            prop_assert!(numbers.into_iter().all(are_digits), "{text}");
        }
    }
}
