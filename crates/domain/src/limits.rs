//! Limits on the money that leaves an account, and the counters of what left it in the current UTC day and month.
//!
//! The counters run whether a limit is set or not, so a limit that is set later counts from the start of its period. Withdrawals,
//! sent transfers and placed holds count. What the end of a hold releases is subtracted again in the period of its placement.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    account::OpenedAccount,
    holds::{Hold, Holds},
    money::{Amount, MINOR_UNITS_MAX},
    rejection::Rejection,
    time::Period,
};

/// The limits of an account, in minor units from 0 to [`MINOR_UNITS_MAX`]. They are also the data of the event `LimitsSet`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Limits {
    /// How far the balance may go below zero.
    #[schema(example = 20000, minimum = 0, maximum = 9007199254740991i64)]
    pub overdraft: i64,
    /// The largest single withdrawal, sent transfer or hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 9007199254740991i64)]
    pub per_movement: Option<i64>,
    /// How much may leave the account in one UTC day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 9007199254740991i64)]
    pub out_per_day: Option<i64>,
    /// How much may leave the account in one UTC month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 9007199254740991i64)]
    pub out_per_month: Option<i64>,
}

/// The name of a limit that can be exceeded. If several are, the first one is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is named like the field that documents it")]
pub enum LimitName {
    PerMovement,
    OutPerDay,
    OutPerMonth,
}

/// A limit and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// The limit, in minor units.
    pub maximum: i64,
    /// What counts against it, in minor units; 0 for a limit on single movements. At most [`MINOR_UNITS_MAX`] is shown.
    pub used: i64,
    /// What may still leave the account, in minor units.
    pub remaining: i64,
    /// When the counter starts at 0 again; `None` for a limit on single movements.
    pub resets_at: Option<DateTime<Utc>>,
}

/// What left the account in the current day and month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    day: Counter,
    month: Counter,
}

/// What left the account in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Counter {
    /// The number of the period. The counter is 0 in every later one.
    period: i64,
    /// Minor units. The sum of many movements can exceed 64 bits.
    out: i128,
}

impl LimitName {
    /// All names, in the order in which exceeded limits are reported.
    pub const ALL: [Self; 3] = [Self::PerMovement, Self::OutPerDay, Self::OutPerMonth];

    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PerMovement => "per_movement",
            Self::OutPerDay => "out_per_day",
            Self::OutPerMonth => "out_per_month",
        }
    }
}

impl Usage {
    /// Counts money that leaves the account at `at`.
    pub(crate) fn add(&mut self, amount: Amount, at: DateTime<Utc>) {
        self.day.add(Period::Day, amount, at);
        self.month.add(Period::Month, amount, at);
    }

    /// Gives back what a hold releases at `at`, in the periods in which it was placed.
    pub(crate) fn give_back(&mut self, released: i64, placed_at: DateTime<Utc>, at: DateTime<Utc>) {
        self.day.give_back(Period::Day, released, placed_at, at);
        self.month.give_back(Period::Month, released, placed_at, at);
    }
}

impl Counter {
    fn add(&mut self, period: Period, amount: Amount, at: DateTime<Utc>) {
        let number = period.number_of(at);
        if self.period != number {
            *self = Self { period: number, out: 0 };
        }
        self.out += i128::from(amount.minor_units());
    }

    fn give_back(&mut self, period: Period, released: i64, placed_at: DateTime<Utc>, at: DateTime<Utc>) {
        let number = period.number_of(at);
        if self.period == number && period.number_of(placed_at) == number {
            self.out -= i128::from(released);
        }
    }

    /// What counts at `now`. A hold that is over is given back at that moment, before its expiry is recorded. It was placed and
    /// ended in this period if it was placed in it.
    fn used(self, period: Period, holds: &Holds, now: DateTime<Utc>) -> i64 {
        let number = period.number_of(now);
        if self.period != number {
            return 0;
        }
        let placed_now = |hold: &&Hold| period.number_of(hold.placed_at) == number;
        let given_back: i128 = holds.over(now).filter(placed_now).map(|hold| i128::from(hold.remaining())).sum();
        i64::try_from(self.out - given_back).unwrap_or(i64::MAX).min(MINOR_UNITS_MAX)
    }
}

impl OpenedAccount {
    /// How much of a limit is used at `now`; `None` if the account does not have the limit.
    pub fn limit_usage(&self, limit: LimitName, now: DateTime<Utc>) -> Option<LimitUsage> {
        let (maximum, used, resets_at) = match limit {
            LimitName::PerMovement => (self.limits.per_movement?, 0, None),
            LimitName::OutPerDay => {
                let used = self.usage.day.used(Period::Day, &self.holds, now);
                (self.limits.out_per_day?, used, Period::Day.end_of(now))
            }
            LimitName::OutPerMonth => {
                let used = self.usage.month.used(Period::Month, &self.holds, now);
                (self.limits.out_per_month?, used, Period::Month.end_of(now))
            }
        };
        Some(LimitUsage { maximum, used, remaining: (maximum - used).max(0), resets_at })
    }

    /// Checks that no limit is exceeded if `amount` leaves the account.
    pub(crate) fn within_limits(&self, amount: Amount, now: DateTime<Utc>) -> Result<(), Rejection> {
        for limit in LimitName::ALL {
            if let Some(LimitUsage { maximum, used, remaining, resets_at }) = self.limit_usage(limit, now)
                && amount.minor_units() > remaining
            {
                let currency = self.currency;
                return Err(Rejection::LimitExceeded { limit, maximum, used, resets_at, amount, currency });
            }
        }
        Ok(())
    }

    /// Checks that the account can get these limits. A lower overdraft than the one in use is allowed: it stops further debits.
    pub(crate) fn accept_limits(&self, limits: &Limits) -> Result<(), Rejection> {
        self.not_closed()?;
        if self.balance > MINOR_UNITS_MAX - limits.overdraft {
            return Err(Rejection::BalanceLimitExceeded);
        }
        Ok(())
    }
}
