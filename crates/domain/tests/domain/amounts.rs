//! Amounts of money are positive integers that every JSON client can represent exactly.

use passbook_domain::{
    Amount,
    money::{InvalidAmount, MINOR_UNITS_MAX},
};

#[test]
fn the_largest_amount_is_the_largest_safe_integer_of_json() {
    assert_eq!(MINOR_UNITS_MAX, (1 << 53) - 1);
}

#[test]
fn an_amount_is_between_one_and_the_maximum() {
    for minor_units in [1, 12_550, MINOR_UNITS_MAX] {
        assert_eq!(Amount::try_from(minor_units).map(Amount::minor_units), Ok(minor_units));
    }
    for minor_units in [i64::MIN, -1, 0, MINOR_UNITS_MAX + 1, i64::MAX] {
        assert_eq!(Amount::try_from(minor_units), Err(InvalidAmount));
    }
}

#[test]
fn an_amount_is_a_plain_integer_in_json() {
    assert_eq!(serde_json::to_string(&Amount::try_from(12_550).unwrap()).unwrap(), "12550");
    assert_eq!(serde_json::from_str::<Amount>("12550").unwrap().minor_units(), 12_550);
    for other in ["0", "-1", "1.0", "1e2", "\"1\"", "null", "9007199254740992", "18446744073709551616"] {
        assert!(serde_json::from_str::<Amount>(other).is_err(), "{other}");
    }
}
