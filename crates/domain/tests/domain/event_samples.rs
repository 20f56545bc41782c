//! `samples/<Type>.v<N>.json` holds a sample of each version of each event type that a release has ever written. Every
//! release must read all of them, so a sample is never changed or removed.

use std::{collections::BTreeMap, fs, iter, path::Path};

use passbook_domain::{
    Aggregate, Channel, Currency, DecodeError, Event, EventType, Limits, Metadata, OtherEvent,
    event::{
        AccountOpened, HoldCaptured, HoldPlaced, HoldReleased, MoneyMoved, MovementReversed, ReleaseCause,
        StatusChanged, TransferReceived, TransferSent,
    },
    other_event::{PauseCause, WebhookDeleted, WebhookPaused, WebhookRegistered, WebhookResumed},
    reversal::Effect,
};

use crate::fixtures::*;

/// One event of each type, with every member. The exhaustive match in `next` makes the compiler demand new types here.
pub fn one_of_each() -> impl Iterator<Item = Event> {
    iter::successors(Some(first()), next)
}

fn first() -> Event {
    let (owner, currency, initial_deposit) = (OWNER.into(), Currency::EUR, 10_000);
    Event::AccountOpened(AccountOpened { owner, currency, initial_deposit, metadata: order() })
}

fn order() -> Metadata {
    metadata(&[("order", "4711"), ("shop", "Zoë's \"Café\"")])
}

fn next(event: &Event) -> Option<Event> {
    let reference = Some("invoice \"2026-17\" für Zoë".to_owned());
    let (transfer_id, to, from) = (TRANSFER, TO, FROM);
    let (hold_id, amount, metadata) = (hold_at(3), amount(12_550), order());
    match event {
        Event::AccountOpened(_) => {
            let (amount, channel) = (crate::fixtures::amount(500), Some(Channel::Branch));
            Some(Event::MoneyDeposited(MoneyMoved { amount, reference, channel, metadata }))
        }
        Event::MoneyDeposited(_) => {
            let (amount, channel) = (crate::fixtures::amount(9_007_199_254_740_991), Some(Channel::Atm));
            Some(Event::MoneyWithdrawn(MoneyMoved { amount, reference, channel, metadata }))
        }
        Event::MoneyWithdrawn(_) => {
            let (hold_id, is_final) = (Some(hold_id), Some(true));
            let sent = TransferSent { transfer_id, to, amount, reference, hold_id, is_final, metadata };
            Some(Event::TransferSent(sent))
        }
        Event::TransferSent(_) => {
            let hold_id = Some(hold_id);
            Some(Event::TransferReceived(TransferReceived { transfer_id, from, amount, reference, hold_id, metadata }))
        }
        Event::TransferReceived(_) => {
            Some(Event::HoldPlaced(HoldPlaced { hold_id, amount, expires_at: expiry(), reference, metadata }))
        }
        Event::HoldPlaced(_) => Some(Event::HoldCaptured(HoldCaptured { hold_id, amount, is_final: false, reference })),
        Event::HoldCaptured(_) => {
            let (cause, reason) = (ReleaseCause::Voided, Some("out of stock".into()));
            Some(Event::HoldReleased(HoldReleased { hold_id, amount, cause, reason }))
        }
        Event::HoldReleased(_) => Some(Event::MovementReversed(MovementReversed {
            reverses_version: 7,
            reverses_event_id: UNIQUE,
            effect: Effect::Credit,
            amount,
            transfer_id: Some(transfer_id),
            reason: Some("goods returned".into()),
        })),
        Event::MovementReversed(_) => Some(Event::LimitsSet(Limits {
            overdraft: 50_000,
            per_movement: Some(100_000),
            out_per_day: Some(0),
            out_per_month: Some(9_007_199_254_740_991),
        })),
        Event::LimitsSet(_) => Some(Event::AccountFrozen(StatusChanged { reason: Some("lost card".into()) })),
        Event::AccountFrozen(_) => Some(Event::AccountUnfrozen(StatusChanged { reason: Some("card found".into()) })),
        Event::AccountUnfrozen(_) => {
            Some(Event::AccountClosed(StatusChanged { reason: Some("asked by its owner".into()) }))
        }
        Event::AccountClosed(_) => None,
    }
}

/// One event of each type of other aggregates, with every member. The exhaustive match makes the compiler demand new types here.
fn one_of_each_other() -> impl Iterator<Item = OtherEvent> {
    let first = OtherEvent::WebhookRegistered(WebhookRegistered {
        url: "https://example.com/hooks?shop=Zo%C3%AB".to_owned(),
        types: vec!["MoneyDeposited".to_owned(), "AccountOpened".to_owned()],
        account_id: Some("01900000-0000-7000-8000-000000000007".parse().unwrap()),
        owner: Some("customer-17".to_owned()),
    });
    iter::successors(Some(first), |event| match event {
        OtherEvent::WebhookRegistered(_) => Some(OtherEvent::WebhookPaused(WebhookPaused { cause: PauseCause::Gone })),
        OtherEvent::WebhookPaused(_) => {
            let failing_since = Some("2026-01-31T12:00:00.000001Z".parse().unwrap());
            Some(OtherEvent::WebhookResumed(WebhookResumed { failing_since }))
        }
        OtherEvent::WebhookResumed(_) => Some(OtherEvent::WebhookDeleted(WebhookDeleted {})),
        OtherEvent::WebhookDeleted(_) => None,
    })
}

/// The event as it was before events had metadata and holds.
fn without_later_members(mut event: Event) -> Event {
    match &mut event {
        Event::AccountOpened(opened) => opened.metadata = Metadata::default(),
        Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) => moved.metadata = Metadata::default(),
        Event::TransferSent(sent) => {
            (sent.hold_id, sent.is_final, sent.metadata) = (None, None, Metadata::default());
        }
        Event::TransferReceived(received) => (received.hold_id, received.metadata) = (None, Metadata::default()),
        _ => {}
    }
    event
}

/// The schema versions of a type that this release reads, including the one that it writes.
pub fn versions_read(name: &str) -> impl Iterator<Item = i16> {
    let is_read = move |version: &i16| match EventType::aggregate_of(name) {
        Aggregate::BankAccount => !matches!(Event::decode(name, *version, ""), Err(DecodeError::Newer { .. })),
        Aggregate::Webhook => !matches!(OtherEvent::decode(name, *version, ""), Err(DecodeError::Newer { .. })),
    };
    (1..).take_while(is_read)
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
    let names = EventType::ALL.map(EventType::name).into_iter();
    let read = names.flat_map(|name| versions_read(name).map(move |version| (name, version)));
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
        let name = match EventType::aggregate_of(&event_type) {
            Aggregate::BankAccount => Event::decode(&event_type, version, &data).map(|event| event.name()),
            Aggregate::Webhook => {
                OtherEvent::decode(&event_type, version, &data).map(|event| event.event_type().name())
            }
        };
        assert_eq!(name.unwrap_or_else(|error| panic!("{error}")), event_type);
    }
}

#[test]
fn the_current_samples_of_other_aggregates_decode_to_the_expected_events() {
    let stored = stored();
    for event in one_of_each_other() {
        let name = event.event_type().name();
        let data = &stored[&(name.to_owned(), event.schema_version())];
        assert_eq!(&OtherEvent::decode(name, event.schema_version(), data).unwrap(), &event);
        assert_eq!(&serde_json::to_string(&event).unwrap(), data);
        assert!(
            matches!(Event::decode(name, 1, data), Err(DecodeError::OtherAggregate(_))),
            "{name} is no event of an account"
        );
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
fn the_version_1_samples_decode_to_the_events_without_later_members() {
    let stored = stored();
    for mut event in one_of_each() {
        if event.schema_version() > 1 {
            event = without_later_members(event);
        }
        if let Event::MoneyDeposited(moved) | Event::MoneyWithdrawn(moved) = &mut event {
            moved.channel = None;
        }
        assert_eq!(Event::decode(event.name(), 1, &stored[&(event.name().to_owned(), 1)]).unwrap(), event);
    }
}

/// Two releases run side by side: the older one must read every event without the members that it does not know, and must
/// refuse one with them.
#[test]
fn events_without_later_members_keep_the_version_and_bytes_of_before() {
    let stored = stored();
    for (event, version) in one_of_each().zip([1, 2, 2, 1, 1]) {
        assert_eq!(event.schema_version(), version + 1, "{event:?}");
        let before = without_later_members(event);
        assert_eq!(before.schema_version(), version);
        let data = &stored[&(before.name().to_owned(), version)];
        assert_eq!(&serde_json::to_string(&before).unwrap(), data);
        assert_eq!(Event::decode(before.name(), version, data).unwrap(), before);
    }
}

/// A captured transfer that an older release took for a plain one would leave the hold active.
#[test]
fn a_captured_transfer_has_a_version_that_older_releases_refuse() {
    let captured = TransferSent { hold_id: Some(hold_at(3)), is_final: Some(false), ..sent_side(5) };
    assert_eq!(Event::TransferSent(captured).schema_version(), 2);
    let received = TransferReceived { hold_id: Some(hold_at(3)), ..received_side(5) };
    assert_eq!(Event::TransferReceived(received).schema_version(), 2);
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
