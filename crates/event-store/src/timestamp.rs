//! The one text format of times: RFC 3339 in UTC, with six fractional digits and `Z`. The module works with
//! `#[serde(with = "timestamp")]`, and [`option`] does so for optional times.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serializer};

/// Returns the current time of this process, truncated to microseconds, the precision of Postgres.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Formats a time: `2026-01-31T12:00:00.000000Z`.
pub fn format(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Writes a time as [`format`] does.
///
/// # Errors
/// The error of the serializer.
pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(time))
}

/// Reads any RFC 3339 time.
///
/// # Errors
/// The text is not an RFC 3339 time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    DateTime::<Utc>::deserialize(deserializer)
}

/// For `#[serde(with = "timestamp::option")]`: an optional time, `null` if there is none.
pub mod option {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

    /// Writes the time, or `null`.
    ///
    /// # Errors
    /// The error of the serializer.
    pub fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads an RFC 3339 time, or `None` from `null`.
    ///
    /// # Errors
    /// The value is neither `null` nor an RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<DateTime<Utc>>::deserialize(deserializer)
    }
}
