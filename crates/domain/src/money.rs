//! Money as integers in the currency's minor unit (`12550` is 125.50 EUR). Never a float.

use serde::{Deserialize, Serialize};

/// An ISO 4217 currency.
pub use iso_currency::Currency;

/// Every currency of ISO 4217 that an account can have, with those that were withdrawn.
pub fn currencies() -> impl Iterator<Item = Currency> {
    <Currency as iso_currency::IntoEnumIterator>::iter()
}

/// Whether the currency was withdrawn from ISO 4217. Accounts that have it keep it, and no account can be opened in it.
pub fn is_withdrawn(currency: Currency) -> bool {
    matches!(currency, Currency::BGN | Currency::CUC | Currency::HRK | Currency::SLL | Currency::ZWL)
}

/// The number of decimal digits of a currency; 0 for a currency without a minor unit.
pub fn digits(currency: Currency) -> u16 {
    currency.exponent().unwrap_or(0)
}

/// An amount in major units with its currency, such as `125.50 EUR`, `-0.05 EUR` or `500 JPY`.
pub fn in_major_units(minor_units: i64, currency: Currency) -> String {
    format!("{} {}", decimal(minor_units.into(), currency), currency.code())
}

/// An amount or a sum in major units, such as `125.50`, `-0.05` or `500`, with the digits of its currency.
pub fn decimal(minor_units: i128, currency: Currency) -> String {
    let (sign, magnitude) = (if minor_units < 0 { "-" } else { "" }, minor_units.unsigned_abs());
    match digits(currency) {
        0 => format!("{sign}{magnitude}"),
        digits => {
            let unit = 10_u128.pow(digits.into());
            let (whole, fraction) = (magnitude / unit, magnitude % unit);
            format!("{sign}{whole}.{fraction:0width$}", width = digits.into())
        }
    }
}

/// The largest amount and the largest balance, in minor units: 2^53 - 1, the largest integer that every JSON client
/// represents exactly (RFC 8259, section 6).
pub const MINOR_UNITS_MAX: i64 = 9_007_199_254_740_991;

/// The amount of a movement in minor units, from 1 to [`MINOR_UNITS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Amount(i64);

impl Amount {
    /// The amount in minor units.
    pub fn minor_units(self) -> i64 {
        self.0
    }
}

/// The number is not a valid amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount is a whole number of minor units from 1 to {MINOR_UNITS_MAX}")]
pub struct InvalidAmount;

impl TryFrom<i64> for Amount {
    type Error = InvalidAmount;

    fn try_from(minor_units: i64) -> Result<Self, InvalidAmount> {
        match minor_units {
            1..=MINOR_UNITS_MAX => Ok(Self(minor_units)),
            _ => Err(InvalidAmount),
        }
    }
}

impl From<Amount> for i64 {
    fn from(amount: Amount) -> i64 {
        amount.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_in_major_units_has_the_digits_of_its_currency() {
        for (minor_units, currency, text) in [
            (12_550, Currency::EUR, "125.50 EUR"),
            (5, Currency::EUR, "0.05 EUR"),
            (0, Currency::EUR, "0.00 EUR"),
            (-105, Currency::EUR, "-1.05 EUR"),
            (500, Currency::JPY, "500 JPY"),
            (1_234, Currency::KWD, "1.234 KWD"),
            (MINOR_UNITS_MAX, Currency::EUR, "90071992547409.91 EUR"),
            (i64::MIN, Currency::JPY, "-9223372036854775808 JPY"),
        ] {
            assert_eq!(in_major_units(minor_units, currency), text);
        }
    }
}
