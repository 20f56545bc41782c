//! `samples/<Type>.v<N>.json` holds a sample of each version of each event type that a release has ever written. Every
//! release must read all of them, so a sample is never changed or removed.

use std::{collections::BTreeMap, fs, iter, path::Path};

use passbook_domain::{
    Channel, Currency, DecodeError, Event,
    event::{AccountOpened, MoneyMoved, StatusChanged, TransferReceived, TransferSent},
};

use crate::fixtures::*;

/// One event of each type, with every member. The exhaustive match in `next` makes the compiler demand new types here.
pub fn one_of_each() -> impl Iterator<Item = Event> {
    iter::successors(Some(first()), next)
}

fn first() -> Event {
    Event::AccountOpened(AccountOpened { owner: OWNER.into(), currency: Currency::EUR, initial_deposit: 10_000 })
}

fn next(event: &Event) -> Option<Event> {
    let reference = || Some("invoice \"2026-17\" für Zoë".to_owned());
    let (transfer_id, to, from) = (TRANSFER, TO, FROM);
    match event {
        Event::AccountOpened(_) => {
            let channel = Some(Channel::Branch);
            Some(Event::MoneyDeposited(MoneyMoved { amount: amount(500), reference: reference(), channel }))
        }
        Event::MoneyDeposited(_) => {
            let (amount, channel) = (amount(9_007_199_254_740_991), Some(Channel::Atm));
            Some(Event::MoneyWithdrawn(MoneyMoved { amount, reference: reference(), channel }))
        }
        Event::MoneyWithdrawn(_) => {
            let amount = amount(12_550);
            Some(Event::TransferSent(TransferSent { transfer_id, to, amount, reference: reference() }))
        }
        Event::TransferSent(_) => {
            let amount = amount(12_550);
            Some(Event::TransferReceived(TransferReceived { transfer_id, from, amount, reference: reference() }))
        }
        Event::TransferReceived(_) => Some(Event::AccountFrozen(StatusChanged { reason: Some("lost card".into()) })),
        Event::AccountFrozen(_) => Some(Event::AccountUnfrozen(StatusChanged { reason: Some("card found".into()) })),
        Event::AccountUnfrozen(_) => {
            Some(Event::AccountClosed(StatusChanged { reason: Some("asked by its owner".into()) }))
        }
        Event::AccountClosed(_) => None,
    }
}

/// The schema versions of a type that this release reads, including the one that it writes.
pub fn versions_read(name: &str) -> impl Iterator<Item = i16> {
    (1..).take_while(move |version| !matches!(Event::decode(name, *version, ""), Err(DecodeError::Newer { .. })))
}

/// The stored samples by type and version.
fn stored() -> BTreeMap<(String, i16), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/domain/samples");
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let (event_type, version) = name.strip_suffix(".json").and_then(|name| name.split_once(".v")).unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let data = text.strip_suffix('\n').unwrap_or_else(|| panic!("{name} must end with a newline"));
        ((event_type.to_owned(), version.parse().unwrap()), data.to_owned())
    };
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect()
}

#[test]
fn every_version_of_every_type_has_a_stored_sample() {
    let read = one_of_each().flat_map(|event| versions_read(event.name()).map(move |version| (event.name(), version)));
    let read: Vec<(String, i16)> = read.map(|(name, version)| (name.to_owned(), version)).collect();
    assert_eq!(read.len(), stored().len(), "readable versions: {read:?}");
    for (name, version) in read {
        assert!(
            stored().contains_key(&(name.clone(), version)),
            "tests/domain/samples holds no {name}.v{version}.json"
        );
    }
}

#[test]
fn every_stored_sample_is_readable() {
    for ((event_type, version), data) in stored() {
        let event = Event::decode(&event_type, version, &data).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(event.name(), event_type);
    }
}

#[test]
fn the_current_samples_decode_to_the_expected_events() {
    let stored = stored();
    for event in one_of_each() {
        let data = &stored[&(event.name().to_owned(), event.schema_version())];
        assert_eq!(Event::decode(event.name(), event.schema_version(), data).unwrap(), event);
    }
}

#[test]
fn the_version_1_samples_decode_to_the_same_events_without_channel() {
    let stored = stored();
    for mut event in one_of_each() {
        if let Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) = &mut event {
            moved.channel = None;
        }
        assert_eq!(Event::decode(event.name(), 1, &stored[&(event.name().to_owned(), 1)]).unwrap(), event);
    }
}

#[test]
fn encoded_events_equal_their_samples_byte_for_byte() {
    let stored = stored();
    for event in one_of_each() {
        let data = &stored[&(event.name().to_owned(), event.schema_version())];
        assert_eq!(&serde_json::to_string(&event).unwrap(), data);
    }
}

#[test]
fn event_type_names_are_unique() {
    let mut names: Vec<&str> = one_of_each().map(|event| event.name()).collect();
    let types = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), types);
}
