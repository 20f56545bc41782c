//! A snapshot is the account as JSON. Its shape has a version: one that changes without being raised would be read as
//! something else.

use std::{fs, path::Path};

use passbook_domain::{Account, Currency, account::STATE_VERSION};

use crate::{given::fold, words::*};

fn account() -> Account {
    fold([opened_in(Currency::JPY, 10_000), withdrawn(500), frozen()])
}

fn stored(version: i16) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/domain/snapshots/v{version}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_change_of_the_shape_raises_its_version() {
    assert_eq!(serde_json::to_string(&account()).unwrap() + "\n", stored(STATE_VERSION));
}

#[test]
fn a_stored_snapshot_of_todays_shape_is_the_account_that_it_was_taken_of() {
    assert_eq!(serde_json::from_str::<Account>(&stored(STATE_VERSION)).unwrap(), account());
}
