//! The id of a hold is a UUID of version 8 that begins with the version at which the hold was placed.

use passbook_domain::holds::{hold_id, hold_version};
use proptest::prelude::*;
use uuid::{Uuid, Variant, uuid};

use crate::fixtures::UNIQUE;

/// Clients keep these ids. If this test fails, the function is wrong, not the test.
#[test]
fn the_form_of_an_id_never_changes() {
    assert_eq!(hold_id(3, UNIQUE), uuid!("00000000-0003-8000-8000-0000000000ff"));
    let all_bits = hold_id(0x0123_4567_89ab, Uuid::max());
    assert_eq!(all_bits, uuid!("01234567-89ab-8fff-bfff-ffffffffffff"));
}

#[test]
fn ids_of_other_versions_are_no_ids_of_holds() {
    for other in [UNIQUE, Uuid::nil(), Uuid::max(), hold_id(0, UNIQUE)] {
        assert_eq!(hold_version(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn an_id_tells_its_version(version in 1..1i64 << 48, unique: u128) {
        let id = hold_id(version, Uuid::from_u128(unique));
        prop_assert_eq!(hold_version(id), Some(version));
        prop_assert_eq!((id.get_version_num(), id.get_variant()), (8, Variant::RFC4122));
    }

    #[test]
    fn ids_of_one_version_differ_where_their_unique_parts_do(unique: [u128; 2]) {
        let [first, second] = unique.map(|unique| hold_id(7, Uuid::from_u128(unique)));
        // Only the bits below the version of the account count, without those of the form.
        let bits = |unique: u128| unique & (u128::MAX >> 48) & !(0xf << 76) & !(0b11 << 62);
        prop_assert_eq!(first == second, bits(unique[0]) == bits(unique[1]));
    }
}
