//! Cursors: where a list goes on. Opaque to clients, and of one list only.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::{
    parameters::calendar_date,
    problem::{Code, Problem},
};
use passbook_audit::{Bookmark, InvalidCursor};
use passbook_read_model::accounts::Mark;

/// Behind an account in the list of accounts.
pub fn after_account((opened_at, account_id): Mark) -> String {
    format!("a{:016x}{}", opened_at.timestamp_micros(), account_id.simple())
}

/// Where a cursor of the list of accounts points.
pub fn account(cursor: &str) -> Result<Mark, Problem> {
    let parse = || {
        // Digits alone: a sign would make times that are before any of Postgres.
        let only_hex = |text: &&str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digits = cursor.strip_prefix('a').filter(only_hex).filter(|digits| digits.len() == 48)?;
        let (micros, account_id) = digits.split_at(16);
        let opened_at = DateTime::<Utc>::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?;
        Some((opened_at, Uuid::try_parse(account_id).ok()?))
    };
    parse().ok_or_else(foreign)
}

/// Behind a movement in an account's list of movements.
pub fn after_movement(version: i64) -> String {
    format!("v{version}")
}

/// Where a cursor of a list of movements points.
pub fn movement(cursor: &str) -> Result<i64, Problem> {
    let digits = cursor.strip_prefix('v').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(foreign)
}

/// Where a cursor of the log points, which `field` holds; without one before the first event.
pub fn log(field: &'static str, cursor: Option<&str>) -> Result<Bookmark, Problem> {
    let Some(cursor) = cursor else { return Ok(Bookmark::default()) };
    cursor.parse().map_err(|error: InvalidCursor| Problem::field(Code::InvalidParameter, field, error.to_string()))
}

/// Behind a day in an account's list of days.
pub fn after_day(date: NaiveDate) -> String {
    format!("d{date}")
}

/// Where a cursor of a list of days points.
pub fn day(cursor: &str) -> Result<NaiveDate, Problem> {
    cursor.strip_prefix('d').and_then(calendar_date).ok_or_else(foreign)
}

fn foreign() -> Problem {
    Problem::field(Code::InvalidParameter, "after", "after is what `next` of a page of this list says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_points_where_it_was_made() {
        let mark = (DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time"), Uuid::now_v7());
        assert_eq!(account(&after_account(mark)).ok(), Some(mark));
        assert_eq!(movement(&after_movement(17)).ok(), Some(17));
        let date = NaiveDate::from_ymd_opt(2026, 1, 31).expect("a date");
        assert_eq!(day(&after_day(date)).ok(), Some(date));
        for foreign in ["", "d", "d2026-02-30", "d+026-01-31", "d-026-01-31", "d2026-1-31", "d2026-01-311", "v3"] {
            assert!(day(foreign).is_err(), "{foreign}");
        }
        let before_any = format!("a-{}", "f".repeat(47));
        for foreign in
            ["", "a", "v", "v-1", "v99999999999999999999", &after_movement(3), &"a".repeat(49), "aä", &before_any]
        {
            assert!(account(foreign).is_err(), "{foreign}");
        }
    }
}
