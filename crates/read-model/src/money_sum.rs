//! Sums of money over many movements or accounts. Such a sum can exceed 64 bits: it has 128 bits here and is `numeric` in the
//! tables. It is transferred as text: `sqlx` has no 128-bit integer, and JavaScript rounds numbers above 2^53 - 1.

use std::{
    error::Error,
    fmt,
    ops::{Add, AddAssign},
};

use serde::{Serialize, Serializer};
use sqlx::{
    Decode, Postgres, Type,
    postgres::{PgTypeInfo, PgValueRef},
};

/// A sum in minor units. It decodes from a column that is cast to text, and is a string of digits in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MoneySum(pub i128);

impl Serialize for MoneySum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Add<i64> for MoneySum {
    type Output = Self;

    fn add(self, minor_units: i64) -> Self {
        Self(self.0 + i128::from(minor_units))
    }
}

impl AddAssign<i64> for MoneySum {
    fn add_assign(&mut self, minor_units: i64) {
        *self = *self + minor_units;
    }
}

impl fmt::Display for MoneySum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Type<Postgres> for MoneySum {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }
}

impl Decode<'_, Postgres> for MoneySum {
    fn decode(value: PgValueRef<'_>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self(<&str as Decode<Postgres>>::decode(value)?.parse()?))
    }
}
