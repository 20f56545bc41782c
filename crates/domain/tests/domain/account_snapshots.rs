//! A snapshot is an account as JSON with a version. A change of its shape without a new version would make old snapshots
//! decode wrongly.

use std::{fs, path::Path};

use passbook_domain::{Account, Currency, Event, Limits, account::STATE_VERSION, event::HoldPlaced};

use crate::{fixtures::*, given_when_then::fold};

fn account() -> Account {
    let hold = match placed(4, 1_200) {
        Event::HoldPlaced(hold) => {
            HoldPlaced { reference: Some("a text".into()), metadata: metadata(&[("k", "a text")]), ..hold }
        }
        other => panic!("{other:?}"),
    };
    let limits = Limits { overdraft: 70, per_movement: None, out_per_day: Some(5_000), out_per_month: None };
    fold([
        opened_in(Currency::JPY, 10_000),
        limits_set(limits),
        withdrawn(500),
        Event::HoldPlaced(hold),
        captured(4, 200, false),
        frozen(),
    ])
}

fn stored(version: i16) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/domain/snapshots/v{version}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_current_snapshot_version_has_the_stored_shape() {
    assert_eq!(serde_json::to_string(&account()).unwrap() + "\n", stored(STATE_VERSION));
}

#[test]
fn a_stored_snapshot_decodes_to_the_original_account() {
    assert_eq!(serde_json::from_str::<Account>(&stored(STATE_VERSION)).unwrap(), account());
}

#[test]
fn a_snapshot_contains_no_text_of_a_client() {
    assert!(!serde_json::to_string(&account()).unwrap().contains("a text"));
}
