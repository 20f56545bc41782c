//! Sums of money over many movements or accounts, which may pass what one balance may hold: 128 bits here, `numeric` in
//! the tables, and text on the way between the two.

use std::{
    error::Error,
    fmt,
    ops::{Add, AddAssign},
};

use serde::Serialize;
use sqlx::{
    Decode, Postgres, Type,
    postgres::{PgTypeInfo, PgValueRef},
};

/// A sum in minor units, read from a column cast to text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Sum(pub i128);

impl Add<i64> for Sum {
    type Output = Self;

    fn add(self, minor_units: i64) -> Self {
        Self(self.0 + i128::from(minor_units))
    }
}

impl AddAssign<i64> for Sum {
    fn add_assign(&mut self, minor_units: i64) {
        *self = *self + minor_units;
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Type<Postgres> for Sum {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }
}

impl Decode<'_, Postgres> for Sum {
    fn decode(value: PgValueRef<'_>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self(<&str as Decode<Postgres>>::decode(value)?.parse()?))
    }
}
