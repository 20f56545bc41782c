//! Cursors of lists. They are opaque to clients, and each list accepts only its own.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::parameters::calendar_date;
use crate::http::problem::Problem;
use passbook_audit::{CursorParam, InvalidCursor};
use passbook_read_model::accounts::PageKey;

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
        // Digits only: with a sign, the time could be earlier than the first time of Postgres.
        let is_hex = |text: &&str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digits = cursor.strip_prefix('a').filter(is_hex).filter(|digits| digits.len() == 48)?;
        let (micros, account_id) = digits.split_at(16);
        let opened_at = DateTime::<Utc>::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?;
        Some((opened_at, Uuid::try_parse(account_id).ok()?))
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
