//! The calendar of limits and the text format of times in events. Times come in as data: those of the log, in microseconds.

use chrono::{DateTime, Datelike, Days, Months, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serializer};

/// A period over which a limit counts, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    Day,
    Month,
}

impl Period {
    /// The number of the period that contains `time`. Later periods have larger numbers.
    pub(crate) fn number_of(self, time: DateTime<Utc>) -> i64 {
        match self {
            Self::Day => i64::from(time.num_days_from_ce()),
            Self::Month => i64::from(time.year()) * 12 + i64::from(time.month0()),
        }
    }

    /// The first moment after the period that contains `time`; `None` if the calendar ends there.
    pub(crate) fn end_of(self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let today = time.date_naive();
        let next = match self {
            Self::Day => today.checked_add_days(Days::new(1)),
            Self::Month => today.with_day(1).and_then(|first| first.checked_add_months(Months::new(1))),
        };
        next.and_then(|date| date.and_hms_opt(0, 0, 0)).map(|midnight| Utc.from_utc_datetime(&midnight))
    }
}

/// Writes a time as RFC 3339 in UTC with six fractional digits: `2026-01-31T12:00:00.000000Z`.
pub(crate) fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// Reads any RFC 3339 time.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    DateTime::<Utc>::deserialize(deserializer)
}

/// The same formats for a time that may be absent.
pub(crate) mod optional {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

    pub(crate) fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_day_and_a_month_end_at_midnight_utc() {
        for (at, day_ends, month_ends) in [
            ("2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2028-02-28T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
        ] {
            assert_eq!(Period::Day.end_of(time(at)), Some(time(day_ends)), "{at}");
            assert_eq!(Period::Month.end_of(time(at)), Some(time(month_ends)), "{at}");
        }
        assert_eq!(Period::Day.end_of(DateTime::<Utc>::MAX_UTC), None);
        assert_eq!(Period::Month.end_of(DateTime::<Utc>::MAX_UTC), None);
    }

    #[test]
    fn a_period_begins_where_the_one_before_it_ends() {
        for period in [Period::Day, Period::Month] {
            let mut at = time("2027-12-25T13:00:00Z");
            for _ in 0..400 {
                let end = period.end_of(at).expect("a later period");
                assert_eq!(period.number_of(end), period.number_of(at) + 1);
                assert_eq!(period.number_of(end - chrono::TimeDelta::microseconds(1)), period.number_of(at));
                at = end;
            }
        }
    }
}
