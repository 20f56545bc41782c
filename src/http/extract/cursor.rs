//! Cursors of lists. They are opaque to clients, and each list accepts only its own.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::parameters::calendar_date;
use crate::http::problem::Problem;
use passbook_audit::{CursorParam, InvalidCursor};
use passbook_read_model::{
    accounts::{PageKey, Sort, SortBy, SortKey},
    transactions::LogKey,
};

/// The cursor after an account in the list of accounts.
pub fn after_account((opened_at, account_id): PageKey) -> String {
    format!("a{:016x}{}", opened_at.timestamp_micros(), account_id.simple())
}

/// Parses a cursor of the list of accounts.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_account(cursor: &str) -> Result<PageKey, Problem> {
    let parse = || {
        let (micros, account_id) = hex_digits(cursor.strip_prefix('a')?, 48)?.split_at(16);
        let opened_at = DateTime::<Utc>::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?;
        Some((opened_at, Uuid::try_parse(account_id).ok()?))
    };
    parse().ok_or_else(not_of_this_list)
}

/// The digits of a cursor. Without signs: a negative time could be earlier than the first time of Postgres.
fn hex_digits(text: &str, length: usize) -> Option<&str> {
    Some(text).filter(|text| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The cursor after an account in a sorted list of accounts.
pub fn after_sorted(sort: Sort, (key, account_id): SortKey) -> String {
    format!("{}{:016x}{}", sort_letter(sort), key.cast_unsigned(), account_id.simple())
}

/// Parses a cursor of a list of accounts in this order.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_sorted(sort: Sort, cursor: &str) -> Result<SortKey, Problem> {
    let parse = || {
        let (key, account_id) = hex_digits(cursor.strip_prefix(sort_letter(sort))?, 48)?.split_at(16);
        Some((u64::from_str_radix(key, 16).ok()?.cast_signed(), Uuid::try_parse(account_id).ok()?))
    };
    parse().ok_or_else(not_of_this_list)
}

fn sort_letter(sort: Sort) -> char {
    match (sort.by, sort.is_descending) {
        (SortBy::Balance, false) => 'b',
        (SortBy::Balance, true) => 'B',
        (SortBy::LastActivity, false) => 'l',
        (SortBy::LastActivity, true) => 'L',
    }
}

/// The cursor after a transaction in the list of the transactions of all accounts.
pub fn after_log_key(LogKey { recorded_at, partition, position }: LogKey) -> String {
    format!("t{:016x}{partition:04x}{position:016x}", recorded_at.timestamp_micros())
}

/// Parses a cursor of the list of the transactions of all accounts.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_log_key(cursor: &str) -> Result<LogKey, Problem> {
    let parse = || {
        let (micros, rest) = hex_digits(cursor.strip_prefix('t')?, 36)?.split_at(16);
        let (partition, position) = rest.split_at(4);
        Some(LogKey {
            recorded_at: DateTime::<Utc>::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?,
            partition: i16::from_str_radix(partition, 16).ok()?,
            position: i64::from_str_radix(position, 16).ok()?,
        })
    };
    parse().ok_or_else(not_of_this_list)
}

/// The cursor after a transaction in the list of an account's transactions.
pub fn after_transaction(version: i64) -> String {
    format!("v{version}")
}

/// Parses a cursor of a list of transactions: the version of the transaction before the page.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_transaction(cursor: &str) -> Result<i64, Problem> {
    let digits = cursor.strip_prefix('v').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(not_of_this_list)
}

/// The cursor after a hold in the list of an account's holds.
pub fn after_hold(version: i64) -> String {
    format!("h{version}")
}

/// Parses a cursor of a list of holds: the version at which the hold before the page was placed.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_hold(cursor: &str) -> Result<i64, Problem> {
    let digits = cursor.strip_prefix('h').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(not_of_this_list)
}

/// The cursor after a webhook or a delivery in its list.
pub fn after_webhook(id: Uuid) -> String {
    format!("w{}", id.simple())
}

/// Parses a cursor of a list of webhooks or of deliveries.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_webhook(cursor: &str) -> Result<Uuid, Problem> {
    let parse = || Uuid::try_parse(hex_digits(cursor.strip_prefix('w')?, 32)?).ok();
    parse().ok_or_else(not_of_this_list)
}

/// Parses the cursor of the log in `field`. An absent cursor means the beginning of the log.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of the log.
pub fn parse_log(field: &'static str, cursor: Option<&str>) -> Result<CursorParam, Problem> {
    let Some(cursor) = cursor else { return Ok(CursorParam::default()) };
    cursor.parse().map_err(|error: InvalidCursor| Problem::invalid_parameter(field, error.to_string()))
}

/// The cursor after a day in the list of an account's daily balances.
pub fn after_day(date: NaiveDate) -> String {
    format!("d{date}")
}

/// Parses a cursor of a list of daily balances.
///
/// # Errors
/// 400 `invalid_parameter` if it is not a cursor of this list.
pub fn parse_day(cursor: &str) -> Result<NaiveDate, Problem> {
    cursor.strip_prefix('d').and_then(calendar_date).ok_or_else(not_of_this_list)
}

fn not_of_this_list() -> Problem {
    Problem::invalid_parameter(
        "after",
        "`after` is not a cursor of this list. Pass the `next` value of the previous page.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_by_its_own_list_only() {
        let account = (DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time"), Uuid::now_v7());
        assert_eq!(parse_account(&after_account(account)).ok(), Some(account));
        assert_eq!(parse_transaction(&after_transaction(17)).ok(), Some(17));
        let [up, down] = [false, true].map(|is_descending| Sort { by: SortBy::Balance, is_descending });
        let latest = Sort { by: SortBy::LastActivity, is_descending: true };
        let key = (-17, Uuid::now_v7());
        assert_eq!(parse_sorted(down, &after_sorted(down, key)).ok(), Some(key));
        for other in [up, latest] {
            assert!(parse_sorted(other, &after_sorted(down, key)).is_err(), "{other:?}");
        }
        let place = LogKey { recorded_at: account.0, partition: 17, position: 4_711 };
        assert_eq!(parse_log_key(&after_log_key(place)).ok(), Some(place));
        for invalid in ["", "t", &after_account(account), &format!("t{}", "f".repeat(36))] {
            assert!(parse_log_key(invalid).is_err(), "{invalid}");
        }
        assert_eq!(parse_webhook(&after_webhook(account.1)).ok(), Some(account.1));
        for invalid in ["", "w", &after_account(account), &format!("w{}", "g".repeat(32)), &format!("w{}", account.1)] {
            assert!(parse_webhook(invalid).is_err(), "{invalid}");
        }
        assert_eq!(parse_hold(&after_hold(17)).ok(), Some(17));
        for invalid in ["", "h", "h-1", "h+1", "h99999999999999999999", "v3"] {
            assert!(parse_hold(invalid).is_err(), "{invalid}");
        }
        let date = NaiveDate::from_ymd_opt(2026, 1, 31).expect("a date");
        assert_eq!(parse_day(&after_day(date)).ok(), Some(date));
        for invalid in ["", "d", "d2026-02-30", "d+026-01-31", "d-026-01-31", "d2026-1-31", "d2026-01-311", "v3"] {
            assert!(parse_day(invalid).is_err(), "{invalid}");
        }
        let negative_time = format!("a-{}", "f".repeat(47));
        for invalid in
            ["", "a", "v", "v-1", "v99999999999999999999", &after_transaction(3), &"a".repeat(49), "aä", &negative_time]
        {
            assert!(parse_account(invalid).is_err(), "{invalid}");
        }
    }
}
