//! Metadata has at most 20 pairs of texts, with keys of 1 to 40 and values of at most 500 characters.

use std::collections::BTreeMap;

use passbook_domain::{
    AccountCommand, Event, Metadata,
    command::Movement,
    event::{AccountOpened, MoneyMoved},
    metadata::InvalidMetadata,
};

use crate::{fixtures::*, given_when_then::given};

fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Metadata, InvalidMetadata> {
    Metadata::new(pairs.into_iter().collect::<BTreeMap<_, _>>())
}

fn pairs(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|number| (format!("key-{number}"), String::new()))
}

#[test]
fn the_number_of_pairs_is_limited() {
    assert_eq!(new(pairs(20)).unwrap().iter().count(), 20);
    assert_eq!(new(pairs(21)), Err(InvalidMetadata::TooManyPairs));
    assert!(new([]).unwrap().is_empty());
}

#[test]
fn the_lengths_of_keys_and_values_are_counted_in_characters() {
    let text = |characters| "ß".repeat(characters);
    assert!(new([(text(40), text(500))]).is_ok());
    assert_eq!(new([(text(41), String::new())]), Err(InvalidMetadata::InvalidKey));
    assert_eq!(new([(String::new(), text(1))]), Err(InvalidMetadata::InvalidKey));
    assert_eq!(new([(text(1), text(501))]), Err(InvalidMetadata::InvalidValue { key: text(1) }));
}

#[test]
fn texts_without_the_null_character_are_accepted() {
    assert_eq!(new([("a\0".to_owned(), String::new())]), Err(InvalidMetadata::InvalidKey));
    let error = new([("a".to_owned(), "\0".to_owned())]).unwrap_err();
    assert_eq!(error, InvalidMetadata::InvalidValue { key: "a".to_owned() });
    assert!(new([("\u{1}".to_owned(), "\n".to_owned())]).is_ok());
}

#[test]
fn metadata_is_recorded_with_accounts_and_movements() {
    let pairs = || metadata(&[("order", "4711")]);
    let opening = match open(5) {
        AccountCommand::Open { owner, currency, initial_deposit, .. } => {
            AccountCommand::Open { owner, currency, initial_deposit, metadata: pairs() }
        }
        other => other,
    };
    let (owner, currency) = (OWNER.into(), passbook_domain::Currency::EUR);
    given([]).when(opening).then(Event::AccountOpened(AccountOpened {
        owner,
        currency,
        initial_deposit: 5,
        metadata: pairs(),
    }));
    let movement = || Movement { metadata: pairs(), ..movement(5) };
    let moved = || MoneyMoved { metadata: pairs(), ..moved(5) };
    given([opened(5)]).when(AccountCommand::Deposit(movement(), None)).then(Event::MoneyDeposited(moved()));
    given([opened(5)]).when(AccountCommand::Withdraw(movement(), None)).then(Event::MoneyWithdrawn(moved()));
    given([opened(5)]).and([opened(0)]).when(transfer(movement())).then((
        Event::TransferSent(passbook_domain::event::TransferSent { metadata: pairs(), ..sent_side(5) }),
        Event::TransferReceived(passbook_domain::event::TransferReceived { metadata: pairs(), ..received_side(5) }),
    ));
}
